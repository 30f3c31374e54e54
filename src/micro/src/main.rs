//! The binary. Everything is a command of the CLI; `__node` and `__init` are how the supervisor
//! re-executes this same file as the node and as PID 1 of an instance.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAEMON: micro_cli::Daemon = micro_cli::Daemon {
    start: micro_server::run,
    check_data: micro_server::check_data,
};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("__node") => micro_server::node(),
        Some("__init") => micro_sandbox::init::main(),
        Some("server") => {
            modest_memory(&args);
            micro_cli::main(args, DAEMON)
        }
        _ => micro_cli::main(args, DAEMON),
    }
}

/// What makes the allocator give memory back soon: huge pages alone held 15 MB of an idle daemon.
/// Giving back at once (a delay of 0) would save 5 MB more and cost a quarter of the CPU per call.
/// The allocator reads them before `main`, hence the second execution; the node inherits them.
const ALLOCATOR_SETTINGS: [(&str, &str); 2] =
    [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "10")];

/// Executes this program once more with [`ALLOCATOR_SETTINGS`], unless somebody has set them.
fn modest_memory(args: &[OsString]) {
    if ALLOCATOR_SETTINGS
        .iter()
        .any(|(name, _)| std::env::var_os(name).is_some())
    {
        return;
    }
    let (Some(name), Ok(program)) = (args.first(), std::env::current_exe()) else {
        return;
    };
    // Returns only when it failed, and then we go on as we are.
    let _ = Command::new(program)
        .arg0(name)
        .args(args.iter().skip(1))
        .envs(ALLOCATOR_SETTINGS)
        .exec();
}
