//! The product in one command: a server, six examples in four languages, an answer from each.

use anyhow::{Result, bail};
use micro_tests::{Server, operator_settings};

use crate::{shell, tools};

/// Example, the programs its build needs, and what to ask it.
const EXAMPLES: &[(&str, &[&str], Ask)] = &[
    ("web-python", &["python3"], Ask::Page),
    ("web-node", &["node", "npm"], Ask::Page),
    ("helloworld-python", &["python3"], Ask::Hello),
    ("helloworld-node", &["node", "npm"], Ask::Hello),
    ("helloworld-go", &["go"], Ask::Hello),
    ("helloworld-rust", &["cargo"], Ask::Hello),
];

/// How an example is called.
#[derive(Clone, Copy, PartialEq)]
enum Ask {
    /// gRPC: `Helloworld.Call`.
    Hello,
    /// Plain HTTP.
    Page,
}

/// Runs the demo; `--keep` leaves the server running.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let keep = match args {
        [] => false,
        ["--keep"] => true,
        other => bail!("unknown arguments {other:?}; there is --keep"),
    };
    tools::install()?;
    shell::run(&mut shell::cargo(&["build", "--package", "micro"]))?;
    let binary = shell::target().join("debug/micro");
    let directory = shell::target().join("demo");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    println!(
        "\n== a server on free ports, everything in {}",
        directory.display()
    );
    let builder = Server::with()
        .binary(binary)
        .directory(directory.clone())
        .settings(&operator_settings());
    let server = builder.start().logged_in();
    print!("{}", server.log());

    let mut failed = Vec::new();
    for (name, needs, ask) in EXAMPLES {
        if let Some(missing) = needs.iter().find(|program| !shell::has(program)) {
            println!("\n== {name}: skipped, {missing} is not installed");
            continue;
        }
        if let Err(error) = deploy(&server, name, *ask) {
            println!("{error:#}");
            failed.push(*name);
        }
    }
    println!("\n== micro status");
    print!("{}", server.cli(["status"]).stdout);
    let gateway = server.address("gateway");
    let micro = format!(
        "HOME={}/home {}",
        directory.display(),
        server.binary().display()
    );
    if keep {
        println!(
            "\nThe server runs on (process {}). Look around:",
            server.supervisor()
        );
        println!("  {micro} status\n  {micro} helloworld-rust --help\n  {micro} logs web-node");
        println!(
            "  curl 'http://{gateway}/helloworld-rust/Helloworld/Call?name=Alice'\n  kill {}",
            server.supervisor()
        );
        server.leave_running();
    } else {
        println!("\nStopping the server; `cargo xtask demo --keep` leaves it running.");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

fn deploy(server: &Server, name: &str, ask: Ask) -> Result<()> {
    println!("\n== micro run examples/{name}");
    let path = shell::root().join("examples").join(name);
    let begun = std::time::Instant::now();
    let run = server.cli([std::ffi::OsStr::new("run"), path.as_os_str()]);
    if run.code != 0 {
        bail!("{}{}", run.stdout, run.stderr);
    }
    println!(
        "source to running in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    if ask == Ask::Hello {
        println!("$ micro {name} --name=Alice");
        let answer = server.cli([name, "--name=Alice"]);
        print!("{}", answer.stdout);
        if !answer.stdout.contains("Hello Alice") {
            bail!("no greeting: {answer:?}");
        }
    }
    let path = match ask {
        Ask::Hello => format!("/{name}/Helloworld/Call?name=Alice"),
        Ask::Page => format!("/{name}/"),
    };
    println!("$ curl http://{}{path}", server.address("gateway"));
    let reply = server.curl(&path, &[]);
    println!("{} {}", reply.status, reply.body.trim_end());
    if reply.status != 200 {
        bail!("no answer over HTTP");
    }
    Ok(())
}
