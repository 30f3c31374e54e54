//! What people get wrong, and what they are told to do about it.

use micro_tests::{Server, require};

use crate::fixtures::{echo, run_echo, source};

#[test]
fn requests_that_do_not_fit_the_schema() {
    let server = Server::with()
        .settings("[limits]\nbody = '64KiB'")
        .start()
        .logged_in();
    run_echo(&server, "greeter");
    let post = |body: &str| {
        server.curl(
            "/greeter/Helloworld/Echo",
            &["-H", "content-type: application/json", "-d", body],
        )
    };

    let broken = post("{\"text\":");
    assert_eq!(broken.status, 400, "{broken:?}");
    assert!(
        broken.json()["detail"].as_str().unwrap().contains("line"),
        "{broken:?}"
    );
    let wrong = post(r#"{"number":"many"}"#);
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert!(
        wrong.json()["detail"].as_str().unwrap().contains("number"),
        "{wrong:?}"
    );
    let unknown = post(r#"{"nmae":"x"}"#);
    assert_eq!(unknown.status, 400, "{unknown:?}");
    assert!(
        unknown.json()["detail"].as_str().unwrap().contains("nmae"),
        "{unknown:?}"
    );
    let large = post(&format!(r#"{{"text":"{}"}}"#, "x".repeat(100_000)));
    assert_eq!(large.status, 413, "{}", large.headers);
    assert!(
        large.json()["detail"]
            .as_str()
            .unwrap()
            .contains("limits.body"),
        "{large:?}"
    );
}

#[test]
fn commands_that_name_nothing() {
    let server = Server::start().logged_in();
    let unknown = server.cli(["nosuchservice", "--name=x"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown
            .stderr
            .contains("Unrecognized micro command: nosuchservice"),
        "{unknown:?}"
    );
    let call = server.cli(["call", "nosuchservice", "Foo.Bar", "{}"]);
    assert_eq!(call.code, 4, "{call:?}");
    assert!(
        call.stderr.contains("Service \"nosuchservice\" not found"),
        "{call:?}"
    );
    run_echo(&server, "greeter");
    let flag = server.cli(["greeter", "call", "--nmae=x"]).failed();
    assert!(
        flag.contains("nmae") && flag.contains("name"),
        "it names the nearest flag: {flag}"
    );
    let typed = server.cli(["greeter", "echo", "--number=many"]).failed();
    assert!(typed.contains("number"), "{typed}");
    let method = server.cli(["call", "greeter", "Helloworld.Nope", "{}"]);
    assert_eq!(method.code, 5, "{method:?}");
    let json = server.cli(["call", "greeter", "Helloworld.Call", "{"]);
    assert_eq!(json.code, 1, "{json:?}");
}

#[test]
fn a_server_that_is_not_there() {
    let server = Server::with().unstarted();
    server.cli(["env", "add", "gone", "127.0.0.1:1"]).ok();
    server.cli(["env", "set", "gone"]).ok();
    let out = server.cli(["services"]);
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("127.0.0.1:1"), "{out:?}");
}

#[test]
fn sources_that_cannot_be_built_or_run() {
    if !require(&["python3"]) {
        return;
    }
    let server = Server::with()
        .settings("[limits]\nstart_timeout = '3s'")
        .start()
        .logged_in();
    let run = |name: &str, files: &[(&str, &str)]| {
        let dir = source(&server, name, files);
        server.cli(["run", dir.to_str().unwrap()]).failed()
    };
    let nothing = run("nothing", &[("notes.txt", "hello")]);
    assert!(
        nothing.contains("Cargo.toml") && nothing.contains("Procfile"),
        "it says what was looked for: {nothing}"
    );
    let exits = run(
        "exits",
        &[("main.py", "import sys; print('bye'); sys.exit(3)\n")],
    );
    assert!(exits.contains("bye") && exits.contains('3'), "{exits}");
    let silent = run(
        "silent",
        &[(
            "main.py",
            "import time\nprint('thinking', flush=True)\ntime.sleep(600)\n",
        )],
    );
    assert!(silent.contains("PORT"), "it says where to listen: {silent}");
    let broken = run("broken", &[("micro.toml", "[servce]\n"), ("main.py", "")]);
    assert!(broken.contains("servce"), "{broken}");
    let build = run(
        "badbuild",
        &[
            (
                "micro.toml",
                "build = 'echo compiling && echo oops >&2 && exit 7'\ncommand = 'python3 main.py'\n",
            ),
            ("main.py", ""),
        ],
    );
    assert!(build.contains("oops") && build.contains('7'), "{build}");
    let missing = server.cli(["run", "./does-not-exist"]).failed();
    assert!(missing.contains("does-not-exist"), "{missing}");
    // None of them is left running.
    let status = server.cli(["status"]).ok();
    assert!(!status.contains("running"), "{status}");
}

#[test]
fn archives_that_reach_out_of_their_directory() {
    let server = Server::start().logged_in();
    let dir = source(&server, "links", &[("main.py", "")]);
    std::os::unix::fs::symlink("/etc/passwd", dir.join("passwd")).unwrap();
    let text = server.cli(["run", dir.to_str().unwrap()]).failed();
    assert!(
        text.contains("passwd") && text.contains("link leads out"),
        "{text}"
    );

    // Past our CLI, by the wire: the daemon checks for itself.
    let token = server.cli(["user", "token"]).ok();
    let upload = |tar: Vec<u8>| {
        let file = server.scratch("tar").join("upload.json");
        let first = serde_json::json!({"service": {"name": "evil", "version": "latest"}, "data": base64(&tar)});
        std::fs::write(&file, first.to_string()).unwrap();
        let bearer = format!("Authorization: Bearer {}", token.trim());
        let body = format!("@{}", file.display());
        server.curl(
            "/runtime/Source/Upload",
            &[
                "-H",
                &bearer,
                "-H",
                "content-type: application/json",
                "-d",
                &body,
            ],
        )
    };
    for (what, tar) in [
        ("../escape", dotdot()),
        ("/absolute", absolute()),
        ("link", link()),
    ] {
        let reply = upload(tar);
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        assert!(
            reply.json()["detail"].as_str().unwrap().contains(what),
            "{reply:?}"
        );
    }
    assert!(!server.state().join("sources/escape").exists());
}

#[test]
fn an_upload_beyond_the_limit_is_refused_before_it_fills_the_disk() {
    let server = Server::with()
        .settings("[limits]\nupload = '1MiB'")
        .start()
        .logged_in();
    let dir = source(&server, "big", &[("main.py", "")]);
    std::fs::write(dir.join("blob"), vec![7; 3 << 20]).unwrap();
    let text = server.cli(["run", dir.to_str().unwrap()]).failed();
    assert!(text.contains("limits.upload"), "{text}");
}

#[test]
fn isolation_that_is_required_and_cannot_be_had_refuses_to_run() {
    if !micro_tests::require_root() {
        return;
    }
    let server = Server::with()
        .settings("[server]\nisolation = 'required'")
        .start()
        .logged_in();
    let complete = !server.log().contains("missing  ");
    let out = server.cli([std::path::Path::new("run"), &echo()]);
    assert_eq!(out.code == 0, complete, "{out:?}\n{}", server.log());
}

fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    // The safe setters refuse such names; an attacker does not use them.
    let name = &mut header.as_old_mut().name;
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn archive(header: &tar::Header, data: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(header, data).unwrap();
    builder.into_inner().unwrap()
}

fn dotdot() -> Vec<u8> {
    archive(&header("../escape", tar::EntryType::Regular, 1), b"x")
}

fn absolute() -> Vec<u8> {
    archive(&header("/absolute", tar::EntryType::Regular, 1), b"x")
}

fn link() -> Vec<u8> {
    let mut header = header("link", tar::EntryType::Symlink, 0);
    header.set_link_name("../../../../etc/passwd").unwrap();
    header.set_cksum();
    archive(&header, b"")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize] as char;
            text.push(if index <= chunk.len() { symbol } else { '=' });
        }
    }
    text
}
