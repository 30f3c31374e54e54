//! The same product under other users than root.

use std::time::Duration;

use micro_tests::{Server, eventually, require, require_root};

use crate::fixtures::{run_echo, source};

#[test]
fn without_root_it_works_and_says_which_fences_are_missing() {
    if !require_root() {
        return;
    }
    let mut server = Server::with().user(41_234).start().logged_in();
    run_echo(&server, "greeter");
    assert!(
        server
            .cli(["greeter", "--name=Alice"])
            .ok()
            .contains("Hello Alice")
    );
    assert!(
        server
            .log()
            .contains("missing  services share the user of this server"),
        "{}",
        server.log()
    );
    assert_eq!(server.stop(), 0, "{}", server.log());
    assert_eq!(server.leftovers(), Vec::<String>::new());
}

#[test]
fn started_by_root_the_node_runs_as_a_user_of_its_own() {
    if !require_root() || !require(&["python3"]) {
        return;
    }
    let server = Server::with().flag("--user", "nobody").start().logged_in();
    let node = server.node().expect("the node runs");
    let status = std::fs::read_to_string(format!("/proc/{node}/status")).expect("it is there");
    let line = |name: &str| {
        status
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        !line("Uid:")
            .split_whitespace()
            .skip(1)
            .any(|uid| uid == "0"),
        "{status}"
    );
    assert_eq!(
        line("CapEff:").split_whitespace().nth(1),
        Some("0000000000000000")
    );

    // Built, not only started: what the build job's own user made is read, released and removed.
    let main = "import http.server, os\nhttp.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()\n";
    let build = "build = 'mkdir -p deep/er && umask 077 && echo made > deep/er/file'\ncommand = 'python3 main.py'\n";
    let dir = source(
        &server,
        "built",
        &[("main.py", main), ("micro.toml", build)],
    );
    server.cli(["run", dir.to_str().unwrap()]).ok();
    assert_eq!(server.curl("/built/deep/er/file", &[]).body, "made\n");
    eventually(
        "the scratch tree is removed",
        Duration::from_secs(20),
        || {
            std::fs::read_dir(server.state().join("builds"))
                .ok()?
                .next()
                .is_none()
                .then_some(())
        },
    );
}
