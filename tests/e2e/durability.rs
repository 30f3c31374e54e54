//! What was acknowledged is there after everything was killed, again and again.
//!
//! `MICRO_KILL_ROUNDS` says how often (8 when it says nothing).

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use micro_tests::{Server, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::fixtures::Ends;

/// Writers of each kind.
const WRITERS: usize = 2;
/// Acknowledged writes of each kind after which a round may end.
const ENOUGH: u64 = 20;

/// JSON calls over one connection to the gateway; ends when the connection does.
struct Caller {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Caller {
    fn new(gateway: SocketAddr, token: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(gateway)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self {
            stream: BufReader::new(stream),
            token: token.to_owned(),
        })
    }

    /// The body of a successful answer; anything else is no acknowledgement.
    fn call(&mut self, path: &str, body: &Value) -> Option<Value> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: micro\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).ok()?;
        let mut status = String::new();
        self.stream.read_line(&mut status).ok()?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok()?;
            let line = line.trim_end().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        status
            .starts_with("HTTP/1.1 200")
            .then(|| serde_json::from_slice(&body).ok())?
    }
}

/// What the node said it has kept.
#[derive(Default)]
struct Acknowledged {
    records: Mutex<BTreeSet<String>>,
    settings: Mutex<BTreeSet<String>>,
    events: Mutex<BTreeSet<String>>,
}

/// Writes until the connection is gone or `stop`; notes each name once it is acknowledged.
fn write(
    mut caller: Caller,
    stop: &AtomicBool,
    prefix: &str,
    counter: &AtomicU64,
    kept: &Mutex<BTreeSet<String>>,
    request: impl Fn(&str) -> (&'static str, Value),
) {
    for number in 0_u64.. {
        if stop.load(Relaxed) {
            return;
        }
        let name = format!("{prefix}-{number}");
        let (path, body) = request(&name);
        if caller.call(path, &body).is_none() {
            return;
        }
        kept.lock().unwrap().insert(name);
        counter.fetch_add(1, Relaxed);
    }
}

fn base64(text: &str) -> String {
    // Only what the JSON form of `bytes` needs.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(
                    ALPHABET[(bits >> (18 - 6 * place)) as usize & 63],
                ));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// A member of the group, printing each event before it acknowledges it; killed when dropped.
struct Consumer(Child);

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn consumer(server: &Server) -> (Consumer, BufReader<ChildStdout>) {
    let mut child = server
        .command(server.binary())
        .args(["events", "consume", "crashes", "--group", "readers"])
        .args(["--from", "beginning"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let printed = BufReader::new(child.stdout.take().unwrap());
    (Consumer(child), printed)
}

/// The name of the event in a line of a consumer.
fn name_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("event-")?;
    let name: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    Some(format!("event-{name}"))
}

/// The CLI's environment after a start on other ports.
fn follow(server: &Server) {
    let proxy = server.address("proxy").to_string();
    server.cli(["env", "add", "again", &proxy]).ok();
    server.cli(["env", "set", "again"]).ok();
    server
        .cli(["login", "--username", "admin", "--password", "micro"])
        .ok();
}

#[test]
fn acknowledged_writes_survive_sigkill_of_everything() {
    let rounds: u64 = std::env::var("MICRO_KILL_ROUNDS")
        .ok()
        .map_or(8, |n| n.parse().expect("a number of rounds"));
    let mut server = Server::start().logged_in();
    let create = [
        "auth", "create", "token", "--id", "admin", "--secret", "micro", "--expiry", "86400",
        "--output", "json",
    ];
    let token = server.cli(create).json();
    let token = token["access_token"].as_str().expect("a token").to_owned();
    let kept = Acknowledged::default();
    let seen: Mutex<BTreeSet<String>> = Mutex::default();

    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let done: [AtomicU64; 3] = Default::default();
        let gateway = server.address("gateway");
        thread::scope(|scope| {
            let (_reader, printed) = consumer(&server);
            let _stop = Ends(&stop);
            for writer in 0..WRITERS {
                let caller = || Caller::new(gateway, &token).expect("the gateway accepts");
                let prefix = move |kind| format!("{kind}-{round}-{writer}");
                let (stop, done, kept) = (&stop, &done, &kept);
                let (record, setting, event) = (caller(), caller(), caller());
                scope.spawn(move || {
                    write(
                        record,
                        stop,
                        &prefix("record"),
                        &done[0],
                        &kept.records,
                        |name| {
                            let record = json!({"key": name, "value": base64(name)});
                            ("/store/Store/Write", json!({ "record": record }))
                        },
                    );
                });
                scope.spawn(move || {
                    write(
                        setting,
                        stop,
                        &prefix("setting"),
                        &done[1],
                        &kept.settings,
                        |name| {
                            let value = json!({"data": format!("\"{name}\"")});
                            let path = format!("crash.{name}");
                            (
                                "/config/Config/Set",
                                json!({"namespace": "micro", "path": path, "value": value}),
                            )
                        },
                    );
                });
                scope.spawn(move || {
                    write(
                        event,
                        stop,
                        &prefix("event"),
                        &done[2],
                        &kept.events,
                        |name| {
                            let payload = base64(name);
                            (
                                "/events/Stream/Publish",
                                json!({"topic": "crashes", "payload": payload}),
                            )
                        },
                    );
                });
            }
            scope.spawn(|| {
                note(printed, &seen);
            });
            eventually("writes of each kind", Duration::from_secs(60), || {
                done.iter().all(|n| n.load(Relaxed) >= ENOUGH).then_some(())
            });
            // The supervisor first: it would start another node.
            let node = server.node().expect("the node runs");
            kill(Pid::from_raw(server.supervisor()), Signal::SIGKILL).expect("ours");
            kill(Pid::from_raw(node), Signal::SIGKILL).expect("ours");
        });
        server.stop();
        server.launch();
        follow(&server);
        check(&server, &token, &kept, round);
    }

    // Each event came to the group at least once.
    let published = kept.events.lock().unwrap().clone();
    thread::scope(|scope| {
        let (_reader, printed) = consumer(&server);
        scope.spawn(|| {
            note(printed, &seen);
        });
        eventually(
            "the delivery of each event",
            Duration::from_secs(60),
            || published.is_subset(&seen.lock().unwrap()).then_some(()),
        );
    });
}

/// Notes the events that a consumer prints, until it ends.
fn note(printed: BufReader<ChildStdout>, seen: &Mutex<BTreeSet<String>>) {
    for line in printed.lines().map_while(Result::ok) {
        seen.lock().unwrap().extend(name_in(&line));
    }
}

/// Reads everything that was ever acknowledged.
fn check(server: &Server, token: &str, kept: &Acknowledged, round: u64) {
    let mut caller = Caller::new(server.address("gateway"), token).expect("the gateway accepts");
    let all = caller
        .call(
            "/store/Store/Read",
            &json!({"key": "record-", "options": {"prefix": true}}),
        )
        .expect("records are read");
    let found: BTreeSet<String> = all["records"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| {
            let key = record["key"].as_str().expect("a key").to_owned();
            assert_eq!(record["value"], base64(&key), "a torn record");
            key
        })
        .collect();
    let lost: Vec<String> = kept
        .records
        .lock()
        .unwrap()
        .difference(&found)
        .take(5)
        .cloned()
        .collect();
    assert!(lost.is_empty(), "round {round}: records lost: {lost:?}");

    let document = caller
        .call(
            "/config/Config/Get",
            &json!({"namespace": "micro", "path": "crash"}),
        )
        .expect("settings are read");
    let document: Value =
        serde_json::from_str(document["value"]["data"].as_str().expect("JSON")).expect("JSON");
    for name in kept.settings.lock().unwrap().iter() {
        assert_eq!(
            document[name],
            name.as_str(),
            "round {round}: a setting was lost"
        );
    }

    let events = caller
        .call(
            "/events/Store/Read",
            &json!({"topic": "crashes", "limit": 10_000_000}),
        )
        .expect("events are read");
    let found: BTreeSet<&str> = events["events"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| event["payload"].as_str().expect("a payload"))
        .collect();
    let kept = kept.events.lock().unwrap();
    let lost: Vec<&String> = kept
        .iter()
        .filter(|name| !found.contains(base64(name).as_str()))
        .take(5)
        .collect();
    assert!(lost.is_empty(), "round {round}: events lost: {lost:?}");
}

#[test]
fn damage_is_found_by_the_check_of_the_data() {
    let mut server = Server::start().logged_in();
    server
        .cli_with_input(["blob", "write", "picture", "-"], &"pixels ".repeat(5000))
        .ok();
    server.cli(["store", "write", "greeting", "hello"]).ok();
    server.cli(["events", "publish", "news", "hello"]).ok();
    let check = |server: &Server| {
        let output = server
            .server_command()
            .arg("--check-data")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (fine, text) = check(&server);
    assert!(!fine && text.contains("in use"), "{text}");

    assert_eq!(server.stop(), 0);
    let (fine, text) = check(&server);
    assert!(fine && text.contains("1 blobs"), "{text}");

    let blob = find_file(&server.state().join("storage/blobs"));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let (fine, text) = check(&server);
    assert!(!fine && text.contains("damaged"), "{text}");
}

/// The one file below a directory.
fn find_file(directory: &std::path::Path) -> std::path::PathBuf {
    let entries: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|p| p.is_dir());
    files
        .into_iter()
        .next()
        .unwrap_or_else(|| find_file(&dirs[0]))
}
