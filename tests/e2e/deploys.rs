//! Releases replace each other without anybody noticing, and a bad one replaces nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use micro_tests::{Server, require};

use crate::fixtures::{source, web};

#[test]
fn no_request_fails_while_a_release_replaces_another() {
    if !require(&["python3"]) {
        return;
    }
    let server = Server::start().logged_in();
    let dir = web(&server, "site", "one");
    server.cli(["run", dir.to_str().unwrap()]).ok();
    let (stop, failures, total) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let reply = server.curl("/site/", &[]);
                total.fetch_add(1, Ordering::Relaxed);
                if reply.status != 200 {
                    failures.fetch_add(1, Ordering::Relaxed);
                    eprintln!("{reply:?}");
                }
            }
        });
        for answer in ["two", "three"] {
            web(&server, "site", answer);
            server.cli(["run", dir.to_str().unwrap()]).ok();
            assert_eq!(server.curl("/site/", &[]).body, format!("{answer} /\n"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        failures.load(Ordering::Relaxed),
        0,
        "of {}",
        total.load(Ordering::Relaxed)
    );
}

#[test]
fn a_release_that_does_not_start_leaves_the_old_one_serving() {
    if !require(&["python3"]) {
        return;
    }
    let server = Server::start().logged_in();
    let dir = web(&server, "site", "good");
    server.cli(["run", dir.to_str().unwrap()]).ok();
    source(
        &server,
        "site",
        &[("main.py", "raise SystemExit('no database')\n")],
    );
    let text = server.cli(["run", dir.to_str().unwrap()]).failed();
    assert!(
        text.contains("no database"),
        "the last output is shown: {text}"
    );
    assert_eq!(server.curl("/site/", &[]).body, "good /\n");
    assert!(server.cli(["status"]).ok().contains("running"));
    let logs = server.cli(["logs", "site"]).ok();
    assert!(
        logs.contains("no database"),
        "logs outlive the instance: {logs}"
    );
}
