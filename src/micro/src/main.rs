//! The binary. Everything is a command of the CLI; `__node` and `__init` are how the supervisor
//! re-executes this same file as the node and as PID 1 of an instance.

use std::{ffi::OsString, process::ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("__node") => micro_server::node(),
        Some("__init") => micro_sandbox::init::main(),
        _ => micro_cli::main(args, micro_server::run),
    }
}
