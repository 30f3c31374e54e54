//! What outlives what.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use micro_tests::{Server, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::fixtures::run_echo;

fn pid_of(server: &Server, service: &str) -> String {
    let status = server.cli(["status", "--output", "json"]).json();
    let services = status.as_array().expect("a list").clone();
    let found = services
        .iter()
        .find(|s| s["name"] == service)
        .expect("the service is listed");
    found["metadata"]["pid"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn services_survive_the_death_of_the_node_under_load() {
    let server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let pid = pid_of(&server, "greeter");
    assert!(!pid.is_empty(), "status tells the pid");
    let node = server.node().expect("the node runs");

    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let url = format!(
                    "http://{}/greeter/Helloworld/Call?name=x",
                    server.address("gateway")
                );
                while !stop.load(Ordering::Relaxed) {
                    let args = ["--silent", "--max-time", "10", "--noproxy", "*", &url];
                    let output = std::process::Command::new("curl")
                        .args(args)
                        .output()
                        .expect("curl");
                    if String::from_utf8_lossy(&output.stdout).contains("Hello x") {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        eventually("the load runs", Duration::from_secs(20), || {
            (answered.load(Ordering::Relaxed) > 5).then_some(())
        });
        kill(Pid::from_raw(node), Signal::SIGKILL).expect("the node is ours");
        let fresh = eventually("a new node", Duration::from_secs(20), || {
            server.node().filter(|n| *n != node)
        });
        assert_ne!(fresh, node);
        let before = answered.load(Ordering::Relaxed);
        eventually("answers again", Duration::from_secs(30), || {
            (answered.load(Ordering::Relaxed) > before + 5).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        pid_of(&server, "greeter"),
        pid,
        "the same process serves on"
    );
}

#[test]
fn a_crashed_service_is_started_again() {
    let server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let pid = pid_of(&server, "greeter");
    kill(Pid::from_raw(pid.parse().expect("a pid")), Signal::SIGKILL)
        .expect("the service is there");
    let fresh = eventually("a new process", Duration::from_secs(30), || {
        let now = pid_of(&server, "greeter");
        (!now.is_empty() && now != pid).then_some(now)
    });
    assert_ne!(fresh, pid);
    eventually("it answers", Duration::from_secs(30), || {
        (server.curl("/greeter/Helloworld/Call?name=x", &[]).status == 200).then_some(())
    });
}

#[test]
fn everything_comes_back_after_a_restart_and_nothing_is_left_after_a_stop() {
    let mut server = Server::start().logged_in();
    run_echo(&server, "greeter");
    server
        .cli([
            "auth",
            "create",
            "account",
            "--secret",
            "pass-word",
            "--scopes",
            "guest",
            "guest",
        ])
        .ok();
    assert_eq!(server.stop(), 0, "{}", server.log());
    assert_eq!(server.leftovers(), Vec::<String>::new());

    server.launch();
    server
        .cli(["env", "add", "again", &server.address("proxy").to_string()])
        .ok();
    server.cli(["env", "set", "again"]).ok();
    eventually("the service answers", Duration::from_secs(30), || {
        (server.curl("/greeter/Helloworld/Call?name=x", &[]).status == 200).then_some(())
    });
    let out = server
        .cli(["login", "--username", "guest", "--password", "pass-word"])
        .ok();
    assert!(out.contains("Successfully logged in."), "{out}");
}

#[test]
fn instances_survive_the_death_of_the_supervisor_too() {
    let mut server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let pid = pid_of(&server, "greeter");
    kill(Pid::from_raw(server.supervisor()), Signal::SIGKILL).expect("ours");
    server.stop();
    assert!(
        std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "the instance runs on"
    );
    server.launch();
    server
        .cli(["env", "add", "again", &server.address("proxy").to_string()])
        .ok();
    server.cli(["env", "set", "again"]).ok();
    server
        .cli(["login", "--username", "admin", "--password", "micro"])
        .ok();
    assert_eq!(
        pid_of(&server, "greeter"),
        pid,
        "adopted, not started again"
    );
    assert_eq!(
        server.curl("/greeter/Helloworld/Call?name=x", &[]).status,
        200
    );
    assert_eq!(server.stop(), 0);
    assert_eq!(server.leftovers(), Vec::<String>::new());
}
