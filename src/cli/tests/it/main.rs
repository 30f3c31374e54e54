//! The command line as a process against a server that answers from a script: files, flags, calls,
//! output and exit codes. This program is its own subject: started with `CLI` set, it is `micro`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test without the usual harness, which lints take for a program"
)]

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    sync::{Arc, Mutex},
};

mod events;
mod server;
mod state;

use server::Seen;

const CLI: &str = "MICRO_CLI_UNDER_TEST";

type Test = (&'static str, fn(&Bench));

fn main() -> ExitCode {
    if env::var_os(CLI).is_some() {
        let start = |_| ExitCode::from(42);
        let daemon = micro_cli::Daemon {
            start,
            check_data: start,
        };
        return micro_cli::main(env::args_os().collect(), daemon);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let address = runtime.block_on(server::start(Arc::clone(&seen)));
    let tests: [Test; 17] = [
        ("login_refreshes_and_logs_out", login_refreshes_and_logs_out),
        (
            "wrong_password_speaks_plainly",
            wrong_password_speaks_plainly,
        ),
        ("first_account_is_claimed", first_account_is_claimed),
        ("services_are_commands", services_are_commands),
        ("calls_pass_json_through", calls_pass_json_through),
        ("run_uploads_and_tells", run_uploads_and_tells),
        ("a_failed_build_says_why", a_failed_build_says_why),
        (
            "logs_and_status_have_micros_form",
            logs_and_status_have_micros_form,
        ),
        ("nobody_at_home_is_said", nobody_at_home_is_said),
        ("store_speaks_as_micro", state::store_speaks_as_micro),
        ("records_are_watched", state::records_are_watched),
        ("blobs_are_streamed", state::blobs_are_streamed),
        ("config_speaks_as_micro", state::config_speaks_as_micro),
        ("config_has_a_history", state::config_has_a_history),
        ("events_are_published", events::events_are_published),
        (
            "consumers_outlive_the_server",
            events::consumers_outlive_the_server,
        ),
        (
            "topics_and_groups_are_shown",
            events::topics_and_groups_are_shown,
        ),
    ];
    for (name, test) in tests {
        let home = tempfile::tempdir().unwrap();
        *seen.lock().unwrap() = Seen::default();
        let bench = Bench {
            home: home.path().into(),
            address: address.to_string(),
            seen: Arc::clone(&seen),
        };
        let out = bench.micro(&["env", "add", "test", &bench.address], "");
        assert!(out.status.success(), "{out:?}");
        bench.ok(&["env", "set", "test"]);
        test(&bench);
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

struct Bench {
    home: PathBuf,
    address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Bench {
    fn micro(&self, args: &[&str], input: impl AsRef<[u8]>) -> Output {
        self.in_folder(&self.home, args, input)
    }

    fn in_folder(&self, folder: &Path, args: &[&str], input: impl AsRef<[u8]>) -> Output {
        use std::io::Write as _;
        let mut child = self.start(folder, args);
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_ref())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    fn start(&self, folder: &Path, args: &[&str]) -> Child {
        Command::new(env::current_exe().unwrap())
            .args(args)
            .env_clear()
            .env("HOME", &self.home)
            .env(CLI, "1")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Stdout of a command that succeeds.
    fn ok(&self, args: &[&str]) -> String {
        let out = self.micro(args, "");
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Stderr and exit code of a command that fails and prints no data.
    fn fails(&self, args: &[&str]) -> (String, i32) {
        let out = self.micro(args, "");
        assert!(!out.status.success(), "{args:?}: {out:?}");
        assert!(out.stdout.is_empty(), "{args:?}: {out:?}");
        (
            String::from_utf8(out.stderr).unwrap(),
            out.status.code().unwrap(),
        )
    }

    fn login(&self) {
        let out = self.micro(&["login", "--username", "admin"], "micro\n");
        assert!(out.status.success(), "{out:?}");
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            "Successfully logged in.\n"
        );
    }
}

/// The next lines of a command that goes on.
fn lines(child: &mut Child, count: usize) -> Vec<String> {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    (0..count)
        .map(|_| {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        })
        .collect()
}

/// Stderr of a command that ends well when it is interrupted.
fn interrupt(mut child: Child) -> String {
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
    told
}

fn login_refreshes_and_logs_out(bench: &Bench) {
    assert!(
        bench
            .fails(&["user"])
            .0
            .starts_with("You are not logged in\nhint: ")
    );
    bench.login();
    assert_eq!(bench.ok(&["user"]), "admin\n");
    let file = std::fs::read_to_string(bench.home.join(".micro/tokens")).unwrap();
    assert!(
        file.starts_with(&format!("micro://{}/micro/admin:", bench.address)),
        "{file}"
    );
    // The server's first token is as good as over, so the next command buys another one.
    bench.ok(&["services"]);
    assert_eq!(
        bench.seen.lock().unwrap().authorization.last().unwrap(),
        "Bearer renewed"
    );
    assert_eq!(bench.ok(&["user", "token"]), "renewed\n");
    assert_eq!(bench.ok(&["user", "namespace"]), "micro\n");
    assert_eq!(bench.ok(&["logout"]), "");
    assert_eq!(bench.fails(&["user"]).1, 1);
    let (text, code) = bench.fails(&["services"]);
    assert_eq!(
        (text.as_str(), code),
        (
            "Not authorized to perform this request\nhint: run `micro login`\n",
            2
        )
    );
}

fn wrong_password_speaks_plainly(bench: &Bench) {
    let (text, code) = bench.fails(&["login", "--username", "admin", "--password", "no"]);
    assert_eq!((text.as_str(), code), ("Secret not correct\n", 1));
}

fn first_account_is_claimed(bench: &Bench) {
    let out = bench.micro(
        &["login", &bench.address, "--token", "once"],
        "root\nsecret\n",
    );
    assert!(out.status.success(), "{out:?}");
    let seen = bench.seen.lock().unwrap();
    assert_eq!(
        seen.claimed.as_ref().unwrap(),
        &("once".into(), "root".into(), "secret".into())
    );
}

fn services_are_commands(bench: &Bench) {
    bench.login();
    let answer = "{\n\t\"msg\": \"Hello Alice\"\n}\n";
    for args in [
        &["helloworld", "--name=Alice"][..],
        &["helloworld", "call", "--name", "Alice"],
        &["helloworld", "call", "-name=Alice"],
    ] {
        assert_eq!(bench.ok(args), answer, "{args:?}");
    }
    let help = bench.ok(&["helloworld"]);
    assert!(
        help.starts_with("NAME:\n\tmicro helloworld\n\nVERSION:\n\tv1\n"),
        "{help}"
    );
    assert_eq!(bench.ok(&["help", "helloworld"]), help);
    assert!(
        bench
            .ok(&["helloworld", "call", "--help"])
            .contains("FLAGS:\n\t--name string")
    );
    assert_eq!(
        bench.ok(&["helloworld", "stream", "--count=2"]),
        "{\n\t\"count\": \"1\"\n}\n{\n\t\"count\": \"2\"\n}\n"
    );
    let (text, code) = bench.fails(&["helloworld", "--nam=x"]);
    assert_eq!(
        (text.as_str(), code),
        ("Unknown flag: nam\nhint: did you mean --name?\n", 128)
    );
    let (text, code) = bench.fails(&["nothing"]);
    assert!(
        text.starts_with("Unrecognized micro command: nothing. Please refer to 'micro --help'\n"),
        "{text}"
    );
    assert_eq!(code, 1);
}

fn calls_pass_json_through(bench: &Bench) {
    bench.login();
    let call = ["call", "helloworld", "Helloworld.Call", r#"{"name":"Bob"}"#];
    assert_eq!(bench.ok(&call), "{\n\t\"msg\": \"Hello Bob\"\n}\n");
    assert_eq!(
        bench.ok(&[&call[..], &["--output", "raw"]].concat()),
        "{\"msg\":\"Hello Bob\"}\n"
    );
    assert_eq!(
        bench.seen.lock().unwrap().kinds.last().unwrap(),
        "application/grpc+json"
    );
    let (text, code) = bench.fails(&["call", "helloworld", "Call", "{}"]);
    assert_eq!(
        (text.as_str(), code),
        (
            "Method name \"Call\" invalid format. Expecting service.endpoint\n",
            3
        )
    );
    let (text, code) = bench.fails(&["call", "gone", "Gone.Call", "{}"]);
    assert_eq!(code, 4, "{text}");
    assert!(
        text.starts_with("Service \"gone\" not found\nhint: "),
        "{text}"
    );
    assert_eq!(
        bench
            .fails(&["call", "helloworld", "Helloworld.Call", "{"])
            .1,
        1
    );
}

fn source(bench: &Bench, name: &str) -> PathBuf {
    let folder = bench.home.join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("main.py"), "print(1)").unwrap();
    std::fs::write(folder.join("big.bin"), vec![7u8; 3_000_000]).unwrap();
    std::fs::write(folder.join(".gitignore"), "*.tmp\n").unwrap();
    std::fs::write(folder.join("x.tmp"), "x").unwrap();
    folder
}

fn run_uploads_and_tells(bench: &Bench) {
    bench.login();
    let folder = source(bench, "my service");
    let out = bench.in_folder(&folder, &["run", "-env_vars", "A=1,B=2", "."], "");
    assert!(out.status.success(), "{out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    let told = String::from_utf8(out.stderr).unwrap();
    for part in [
        "is called my-service",
        "Building\n",
        "  compiling\n",
        "my-service is running\n",
        "curl 'http://127.0.0.1:8080/my-service",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let seen = bench.seen.lock().unwrap();
    let mut names: Vec<_> = seen
        .uploaded
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, [".gitignore", "big.bin", "main.py"]);
    assert!(seen.uploaded.contains(&("big.bin".into(), 3_000_000)));
    let deploy = seen.deploys.last().unwrap();
    let (service, options) = (
        deploy.service.clone().unwrap(),
        deploy.options.clone().unwrap(),
    );
    assert_eq!(
        (service.name.as_str(), service.source.as_str()),
        ("my-service", "source://my-service:latest")
    );
    assert_eq!(options.env, ["A=1", "B=2"]);
    assert!(!deploy.update);
    drop(seen);
    let json = bench.in_folder(
        &folder,
        &["update", ".", "--name", "other", "--output", "json"],
        "",
    );
    assert!(
        String::from_utf8_lossy(&json.stdout).contains("\"name\": \"other\""),
        "{json:?}"
    );
    assert!(bench.seen.lock().unwrap().deploys.last().unwrap().update);
}

fn a_failed_build_says_why(bench: &Bench) {
    bench.login();
    let folder = source(bench, "broken");
    let out = bench.in_folder(&folder, &["run", "."], "");
    assert_eq!(out.status.code(), Some(127));
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(
        told.ends_with("  compiling\ncannot build broken: exit code 1\nhint: fix it\n"),
        "{told}"
    );
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let out = bench.in_folder(&folder, &["run", "."], "");
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(
        told.contains("cannot upload link: the link leads out of the source"),
        "{told}"
    );
    // The server's refusal is told even when it comes in the middle of the upload.
    std::fs::remove_file(folder.join("link")).unwrap();
    let out = bench.in_folder(&folder, &["run", "--name", "toobig", "."], "");
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(told.ends_with("the source is too large\n"), "{told}");
}

fn logs_and_status_have_micros_form(bench: &Bench) {
    bench.login();
    assert_eq!(
        bench.ok(&["logs", "-n", "2", "helloworld"]),
        "line 1\nline 2\n"
    );
    assert_eq!(
        bench
            .ok(&["logs", "helloworld", "-o", "json"])
            .lines()
            .next()
            .unwrap(),
        r#"{"Message":"line 1","Metadata":null}"#
    );
    let status = bench.ok(&["status"]);
    assert!(status.starts_with("NAME\t\tVERSION\tSOURCE\t"), "{status}");
    assert!(
        bench
            .ok(&["status", "--output", "json"])
            .contains("\"status\": \"running\"")
    );
    assert_eq!(bench.ok(&["kill", "helloworld"]), "");
    let (text, code) = bench.fails(&["kill", "gone"]);
    assert!(
        text.starts_with("not found\nhint: no service gone runs"),
        "{text}"
    );
    assert_eq!(code, 127);
}

fn nobody_at_home_is_said(bench: &Bench) {
    bench.ok(&["env", "add", "down", "127.0.0.1:1"]);
    let (text, code) = bench.fails(&["-env", "down", "status"]);
    assert!(
        text.starts_with(
            "Failed to connect to micro server at 127.0.0.1:1\nhint: connection refused"
        ),
        "{text}"
    );
    assert_eq!(code, 4);
    let (text, code) = bench.fails(&["--env", "nope", "status"]);
    assert!(text.starts_with("Env \"nope\" not found."), "{text}");
    assert_eq!(code, 1);
    assert_eq!(
        bench.fails(&[]).0,
        "No command provided to micro. Please refer to 'micro --help'\n"
    );
    assert_eq!(
        bench
            .micro(&["server", "--state-dir", "/x"], "")
            .status
            .code(),
        Some(42)
    );
    assert!(
        bench
            .ok(&["server", "--print-settings"])
            .contains("server.gateway_address\t")
    );
    assert_eq!(bench.fails(&["server", "--isolation", "maybe"]).1, 1);
    std::fs::write(bench.home.join(".micro/config.json"), "{").unwrap();
    assert!(
        bench
            .fails(&["status"])
            .0
            .contains("config.json is damaged")
    );
    assert!(bench.ok(&["--version"]).starts_with("micro version v"));
}
