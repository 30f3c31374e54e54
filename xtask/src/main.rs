//! Every chore of the repository, in Rust: `cargo xtask` lists them. Nothing lives only in CI.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value indexes to null, never to a panic"
)]

mod bench;
mod check;
mod demo;
mod generate;
mod layers;
mod shell;
mod test;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <task>

  demo [--keep]      install what is missing, build, start a server, deploy the examples and call
                     each by CLI and by curl; --keep leaves the server running
  test [FILTER]      install what the tests need, then run all of them
  check              formatting, lints, docs, layering, generated pages, dependencies
  ci                 check, then test
  layers             show which crate may use which, and fail on any other arrow
  generate [--check] write the generated reference pages, or fail if they differ
  bench gateway      the gateway and the mesh beside Envoy, HAProxy and nginx
  bench state [KEYS] [ROW]
                     durable puts, events and watches beside redis, etcd and NATS
  bench footprint    idle memory, binary size, time from upload to first answer
                     --no-build measures what was built before
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo", rest @ ..] => demo::run(rest),
        ["test", rest @ ..] => test::run(rest),
        ["check"] => check::run(),
        ["ci"] => check::run().and_then(|()| test::run(&[])),
        ["layers"] => layers::run(),
        ["generate", rest @ ..] => generate::run(rest.contains(&"--check")),
        ["bench", rest @ ..] => bench::run(rest),
        _ => {
            print!("{HELP}");
            return if words.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(2)
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
