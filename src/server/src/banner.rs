//! What the person who starts a server reads, and the file in which programs read the same.

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode};

use micro_core::{Fault, StateDir};

/// The doors' addresses as chosen, by door name.
pub(crate) type Addresses = BTreeMap<&'static str, SocketAddr>;

/// Writes `addresses.json` for programs that were told to use port 0.
pub(crate) fn write_addresses(
    state: &StateDir,
    addresses: &Addresses,
) -> Result<(), micro_storage::Error> {
    let json = serde_json::to_vec(addresses).unwrap_or_default();
    micro_storage::write_atomic(&state.addresses(), &json, 0o644)
}

/// Who can log in at first.
pub(crate) enum FirstAccess {
    /// There are accounts already.
    None,
    /// The development account.
    Default,
    /// A one-time token.
    Token(String),
}

/// Tells where the doors are, how to log in, and which fences this host lacks.
#[expect(clippy::print_stdout, reason = "this is the output of `micro server`")]
pub(crate) fn greet(
    version: &str,
    addresses: &Addresses,
    missing: &[String],
    access: &FirstAccess,
) {
    let at = |door: &str| {
        addresses
            .get(door)
            .map_or_else(String::new, ToString::to_string)
    };
    println!("micro {version} is ready");
    println!("  gateway  http://{}   services over HTTP", at("gateway"));
    println!("  proxy    {}          gRPC and the CLI", at("proxy"));
    println!("  admin    http://{}   /live /ready /metrics", at("admin"));
    match access {
        FirstAccess::None => {}
        FirstAccess::Default => {
            println!("  log in   micro login --username admin --password micro   (loopback only)")
        }
        FirstAccess::Token(token) => {
            println!("  log in   micro login {} --token {token}", at("proxy"));
            println!("           sets up the first account; works once, for 15 minutes");
        }
    }
    for fence in missing {
        println!("  missing  {fence}");
    }
}

/// Says why the server cannot run; exit status 1.
#[expect(clippy::print_stderr, reason = "the log may not be up yet")]
pub(crate) fn refuse(error: &(impl Fault + ?Sized)) -> ExitCode {
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  because: {cause}");
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        eprintln!("\nhint: {hint}");
    }
    ExitCode::FAILURE
}
