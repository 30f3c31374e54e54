//! The fences, tested from both sides: a server is started for each test, its node runs a scenario
//! (`scenarios.rs`), and what runs in the sandbox tries to get out (`inside.rs`).
//!
//! Not a `#[test]` harness, because the supervisor executes its own binary again: as the node and as the
//! init of each instance. `cargo test -p micro-sandbox --test fences [name]`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, though the compiler does not see that without the harness"
)]

mod inside;
mod scenarios;
mod server;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use server::{As, Server};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("__init") => micro_sandbox::init::main(),
        Some("__node") => scenarios::node(),
        Some("supervise") => server::supervise(),
        Some("inside") => inside::main(&args[2..]),
        _ => run(&args[1..]),
    }
}

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("a_service_sees_only_what_it_was_given", || alone("view")),
    ("the_kernel_refuses_what_the_table_says", || {
        alone("refused")
    }),
    ("too_much_memory_ends_the_service_and_says_so", || {
        alone("memory")
    }),
    ("a_fork_bomb_stays_small_and_is_stopped_whole", || {
        alone("bomb")
    }),
    ("cpu_is_bounded", || alone("cpu")),
    ("exit_codes_and_signals_are_told_apart", || alone("exits")),
    ("a_stop_waits_for_its_grace_and_no_longer", || {
        alone("grace")
    }),
    ("output_is_kept_in_three_files", || alone("logs")),
    ("a_build_leaves_its_scratch_to_the_node", || alone("trees")),
    ("toolchains_work_inside", || alone("toolchains")),
    ("a_node_of_another_user_owns_only_its_own", another_user),
    (
        "an_instance_outlives_the_node",
        an_instance_outlives_the_node,
    ),
    (
        "an_instance_outlives_the_supervisor",
        an_instance_outlives_the_supervisor,
    ),
    ("an_exit_nobody_saw_is_found", an_exit_nobody_saw_is_found),
    (
        "stopping_ends_services_and_tells_the_service_manager",
        stopping,
    ),
    (
        "a_second_signal_does_not_wait",
        a_second_signal_does_not_wait,
    ),
    ("two_servers_do_not_share", two_servers_do_not_share),
    ("an_ordinary_user_gets_most_fences", rootless),
    ("required_isolation_refuses_to_go_without", required),
    ("without_namespaces_what_is_left_still_holds", plain),
];

fn run(args: &[String]) -> ExitCode {
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let tests = TESTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(*w)));
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: the fences are tested as root only");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, test) in tests {
        let begin = Instant::now();
        let fine = catch_unwind(AssertUnwindSafe(test)).is_ok();
        failed += u32::from(!fine);
        let word = if fine { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({} ms)",
            begin.elapsed().as_millis()
        );
    }
    println!("{failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// A scenario that needs nothing from outside.
fn alone(scenario: &str) {
    let mut server = Server::start(scenario, As::Root);
    server.passes();
    server.stop();
}

fn another_user() {
    let mut server = Server::start_with("another_user", As::Root, |settings| {
        settings.server.user = "nobody".into();
    });
    server.passes();
    server.stop();
}

fn an_instance_outlives_the_node() {
    let mut server = Server::start("outlive_node", As::Root);
    server.passes();
    server.stop();
}

fn an_instance_outlives_the_supervisor() {
    let mut server = Server::start("leave_running", As::Root);
    server.passes();
    server.kill_supervisor();
    let mut server = server.again("find_running");
    server.passes();
    server.stop();
}

fn an_exit_nobody_saw_is_found() {
    let mut server = Server::start("leave_running", As::Root);
    server.passes();
    server.kill_supervisor();
    // What the service waits for.
    std::fs::write(server.state().join("data/foo/blog/end"), "").unwrap();
    server.until("its exit is on disk", |state| {
        std::fs::read_dir(state.join("run/instances"))
            .unwrap()
            .flatten()
            .all(|dir| dir.path().join("exit.json").exists())
    });
    let mut server = server.again("find_ended");
    server.passes();
    server.stop();
}

fn stopping() {
    let mut server = Server::start("leave_running", As::Root);
    server.passes();
    let said = server.stop();
    assert_eq!(said, ["READY=1", "STOPPING=1"]);
    assert!(
        server.state().join("data/foo/blog/stopped").exists(),
        "it was asked to end"
    );
}

fn a_second_signal_does_not_wait() {
    let mut server = Server::start("leave_stubborn", As::Root);
    server.passes();
    let begin = Instant::now();
    server.signal();
    server.until("the node has ended", |state| {
        // The stubborn one is being asked now.
        std::fs::read_to_string(state.join("data/foo/blog/asked")).is_ok()
    });
    server.signal();
    assert_eq!(server.ends(), Some(130));
    assert!(
        begin.elapsed().as_secs() < 8,
        "it did not wait for the grace"
    );
    server.nothing_is_left();
}

fn two_servers_do_not_share() {
    let mut server = Server::start("idle", As::Root);
    server.passes();
    let lock = server.rival(|_| {});
    assert!(
        lock.contains("another micro server") && lock.contains(&server.pid()),
        "{lock}"
    );
    let address = std::fs::read_to_string(server.state().join("gateway")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let port = server.rival(|settings| {
        settings.server.state_dir = elsewhere.path().into();
        settings.server.gateway_address = address.parse().unwrap();
    });
    assert!(
        port.contains("gateway") && port.contains(&address),
        "{port}"
    );
    server.stop();
}

fn rootless() {
    let mut server = Server::start("rootless", As::Nobody);
    server.passes();
    server.stop();
}

fn required() {
    let mut server = Server::start_with("required", As::Nobody, |settings| {
        settings.server.isolation = micro_core::settings::Isolation::Required;
    });
    server.passes();
    server.stop();
}

fn plain() {
    for who in [As::RootWithoutNamespaces, As::NobodyWithoutNamespaces] {
        let mut server = Server::start("plain", who);
        server.passes();
        server.stop();
    }
}
