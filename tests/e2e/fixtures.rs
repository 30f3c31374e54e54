//! Services small enough to be written down here.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use micro_tests::Server;

/// The gRPC service of this package (`tests/services/echo.rs`), prebuilt: deploying it needs no build.
pub(crate) fn echo() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_echo"))
}

/// Deploys [`echo`] under this name in the CLI's current namespace.
#[track_caller]
pub(crate) fn run_echo(server: &Server, name: &str) {
    let out = server.cli([
        Path::new("run"),
        Path::new("--name"),
        Path::new(name),
        &echo(),
    ]);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
}

/// A plain HTTP service on Python's standard library whose answer to every GET is `answer`.
pub(crate) fn web(server: &Server, name: &str, answer: &str) -> PathBuf {
    let script = format!(
        r#"import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = ({answer:?} + " " + self.path + "\n").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#
    );
    source(server, name, &[("main.py", &script)])
}

/// A source tree with these files.
pub(crate) fn source(server: &Server, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = server.scratch(name);
    for (path, text) in files {
        let file = dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    dir
}

/// Makes an administrator of `namespace`, as whom the CLI then acts.
pub(crate) fn administrator(server: &Server, namespace: &str) {
    server.cli(["user", "namespace", "set", "micro"]).ok();
    server
        .cli(["login", "--username", "admin", "--password", "micro"])
        .ok();
    let create = [
        "auth",
        "create",
        "account",
        "--namespace",
        namespace,
        "--secret",
        "s3cret",
        "--scopes",
        "admin",
        "boss",
    ];
    assert!(server.cli(create).ok().contains("Account created"));
    enter(server, namespace);
}

/// Acts as the administrator of `namespace` from here on.
pub(crate) fn enter(server: &Server, namespace: &str) {
    server.cli(["user", "namespace", "set", namespace]).ok();
    server
        .cli(["login", "--username", "boss", "--password", "s3cret"])
        .ok();
}

/// Sets the flag when it is dropped, by a failed assertion too: threads of a scope that wait for it
/// would keep the failure from ever being told.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
