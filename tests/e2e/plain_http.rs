//! Services that know nothing of us: plain HTTP on `$PORT`.

use micro_tests::{Server, require};

use crate::fixtures::{source, web};

#[test]
fn it_is_reached_by_path_and_by_host_name() {
    if !require(&["python3"]) {
        return;
    }
    let server = Server::start().logged_in();
    let dir = web(&server, "site", "hi");
    server.cli(["run", dir.to_str().unwrap()]).ok();
    let by_path = server.curl("/site/a/b?c=d", &[]);
    assert_eq!(
        (by_path.status, by_path.body.as_str()),
        (200, "hi /a/b?c=d\n")
    );
    for host in ["site.micro.localhost", "site.localhost"] {
        let by_host = server.curl("/a/b?c=d", &["-H", &format!("Host: {host}")]);
        assert_eq!(
            (by_host.status, by_host.body.as_str()),
            (200, "hi /a/b?c=d\n"),
            "{host}"
        );
    }
}

#[test]
fn a_procfile_names_the_command() {
    if !require(&["python3"]) {
        return;
    }
    let server = Server::start().logged_in();
    web(&server, "app", "from a procfile");
    std::fs::rename(
        server.scratch("app").join("main.py"),
        server.scratch("app").join("web_server.py"),
    )
    .unwrap();
    let dir = source(
        &server,
        "app",
        &[("Procfile", "web: python3 web_server.py\n")],
    );
    server.cli(["run", dir.to_str().unwrap()]).ok();
    assert_eq!(server.curl("/app/", &[]).body, "from a procfile /\n");
}

#[test]
fn a_service_sees_its_own_little_world() {
    if !require(&["python3"]) || !micro_tests::require_root() {
        return;
    }
    let script = r#"
import http.server, json, os

def can(f):
    try:
        f()
        return True
    except OSError:
        return False

def world():
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    return {
        "uid": os.getuid(),
        "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
        "no_new_privs": status["NoNewPrivs"].strip(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
        "seccomp": status["Seccomp"].strip(),
        "writes_data": can(lambda: open("/data/x", "w").write("x")),
        "writes_tmp": can(lambda: open("/tmp/x", "w").write("x")),
        "writes_app": can(lambda: open("/app/x", "w").write("x")),
        "writes_usr": can(lambda: open("/usr/x", "w").write("x")),
        "reads_shadow": can(lambda: open("/etc/shadow").read()),
        "sees_home": any(os.path.exists(p) for p in ("/home", "/root/.npmrc", "/root/.bashrc", "/root/.cargo")),
        "environment": sorted(os.environ),
    }

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(world()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;
    let server = Server::with()
        .settings("[build]\nenv = ['BUILD_ONLY_SECRET']")
        .start()
        .logged_in();
    let dir = source(&server, "world", &[("main.py", script)]);
    server.cli(["run", dir.to_str().unwrap()]).ok();
    let world = server.curl("/world/", &[]).json();
    assert!(world["uid"].as_u64().unwrap() >= 30_000, "{world}");
    assert!(
        world["pids"].as_array().unwrap().len() <= 4,
        "its own pid namespace: {world}"
    );
    assert_eq!(world["no_new_privs"], "1");
    assert_eq!(world["capabilities"], 0);
    assert_eq!(world["seccomp"], "2");
    assert_eq!(world["writes_data"], true);
    assert_eq!(world["writes_tmp"], true);
    assert_eq!(world["writes_app"], false);
    assert_eq!(world["writes_usr"], false);
    assert_eq!(world["reads_shadow"], false);
    assert_eq!(world["sees_home"], false);
    let names: Vec<&str> = world["environment"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|n| n.as_str())
        .collect();
    assert!(
        names.contains(&"PORT") && names.contains(&"MICRO_NAMESPACE"),
        "{names:?}"
    );
    assert!(
        !names.contains(&"BUILD_ONLY_SECRET") && !names.contains(&"SSL_CERT_FILE"),
        "{names:?}"
    );
}
