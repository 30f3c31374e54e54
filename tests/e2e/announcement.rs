//! The ten commands of the announcement, against a local server.

use std::process::Command;

use micro_tests::{Server, repository, require};

fn git(dir: &std::path::Path, args: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(dir).args([
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "commit.gpgsign=false",
    ]);
    let output = command.args(args).output().expect("git is installed");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn from_source_in_a_repository_to_an_answer() {
    if !require(&["git", "go", "curl"]) {
        return;
    }
    let server = Server::for_builds();

    // micro env set …; micro login in place of the hosted sign-up
    assert!(server.cli(["env"]).ok().contains("* test"));
    let server = server.logged_in();

    // A repository with the service in a directory, as a forge would serve it.
    let repo = server.scratch("services");
    let example = repository().join("examples/helloworld-go");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(&example)
        .arg(repo.join("helloworld"))
        .status()
        .unwrap();
    assert!(copied.success());
    git(&repo, &["init", "--quiet", "--initial-branch=main"]);
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "--quiet", "-m", "A service"]);

    // micro run <repository>/helloworld
    let source = format!("file://{}/.git/helloworld", repo.display());
    let run = server.cli(["run", source.as_str()]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);

    // micro status
    let status = server.cli(["status"]).ok();
    let header: Vec<&str> = status
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        header,
        [
            "NAME", "VERSION", "SOURCE", "STATUS", "BUILD", "UPDATED", "METADATA"
        ]
    );
    assert!(
        status.contains("helloworld") && status.contains("running"),
        "{status}"
    );
    assert!(status.contains("owner=admin, group=micro"), "{status}");

    // micro logs helloworld
    let logs = server.cli(["logs", "helloworld"]).ok();
    assert!(!logs.trim().is_empty(), "the service says where it listens");

    // micro helloworld --name=Alice, and as a subcommand
    for args in [
        &["helloworld", "--name=Alice"][..],
        &["helloworld", "call", "--name=Alice"],
    ] {
        assert!(server.cli(args).ok().contains("\"msg\": \"Hello Alice\""));
    }
    let called = server
        .cli([
            "call",
            "helloworld",
            "Helloworld.Call",
            r#"{"name":"Alice"}"#,
        ])
        .json();
    assert_eq!(called["msg"], "Hello Alice");

    // micro user namespace; curl
    server.cli(["user", "namespace", "set", "micro"]).ok();
    let namespace = server.cli(["user", "namespace"]).ok();
    let header = format!("Micro-Namespace: {}", namespace.trim());
    let reply = server.curl("/helloworld?name=Alice", &["-H", &header]);
    assert_eq!(
        (reply.status, reply.json()["msg"].as_str()),
        (200, Some("Hello Alice"))
    );

    // micro services, get service, kill
    let services = server.cli(["services"]).ok();
    for name in ["auth", "helloworld", "registry", "runtime"] {
        assert!(services.lines().any(|line| line == name), "{services}");
    }
    let service = server.cli(["get", "service", "helloworld"]).ok();
    assert!(
        service.contains("Endpoint: Helloworld.Call") && service.contains("name string"),
        "{service}"
    );
    server.cli(["kill", "helloworld"]).ok();
    assert!(!server.cli(["status"]).ok().contains("helloworld"));
    assert_eq!(server.curl("/helloworld?name=Alice", &[]).status, 404);
}

#[test]
fn a_generated_service_builds_and_runs_as_generated() {
    if !require(&["cargo"]) {
        return;
    }
    let server = Server::for_builds().logged_in();
    let made = server.cli(["new", "greeter"]).ok();
    assert!(made.contains("micro run ."), "{made}");
    let dir = server.home().join("greeter");
    let mut run = server.command(micro_tests::binary());
    let output = run.current_dir(&dir).args(["run", "."]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        server
            .cli(["greeter", "--name=Alice"])
            .ok()
            .contains("Hello Alice")
    );
    // The Rust example shares the namespace's build cache, so its dependencies are built already.
    server
        .cli([
            "run",
            repository()
                .join("examples/helloworld-rust")
                .to_str()
                .unwrap(),
        ])
        .ok();
    super::languages::answers(&server, "helloworld-rust");
}
