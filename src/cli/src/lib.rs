//! The command line of Micro: `micro server` starts the daemon by the function it is given; every
//! other command is a client of one, over the identity proxy.
//!
//! Data goes to stdout and everything else to stderr; messages, files and exit codes are those that
//! Micro's users script against.
//!
//! | file | owns |
//! |---|---|
//! | `argv.rs` | Micro's spelling of flags |
//! | `command_line.rs` | every flag and argument |
//! | `command.rs`, `command/` | what each command does |
//! | `dynamic.rs`, `dynamic/`, `nearest.rs` | services as commands |
//! | `deploy/` | from a source on this machine to a deployment |
//! | `project/` | what `micro new` writes |
//! | `context.rs`, `config_file.rs`, `tokens.rs`, `environment.rs`, `private_file.rs` | the user's files |
//! | `session.rs`, `door.rs`, `codec.rs` | calls through the proxy |
//! | `error.rs` | messages, hints and exit codes |
//! | `printer.rs`, `table.rs`, `json.rs` | output |

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgMatches, FromArgMatches as _, error::ErrorKind};
use micro_core::{Fault as _, settings::Loaded};

mod argv;
mod codec;
mod command;
mod command_line;
mod config_file;
mod context;
mod deploy;
mod door;
mod dynamic;
mod environment;
mod error;
mod json;
mod nearest;
mod printer;
mod private_file;
mod project;
mod prompt;
mod session;
mod table;
mod tokens;

use command_line::{CommandLine, Form};
use printer::{Output, Printer};

/// The version of this program.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Does what the command line says; `server` runs the daemon.
pub fn main(args: Vec<OsString>, server: fn(Loaded) -> ExitCode) -> ExitCode {
    let command = command_line::command();
    let args = argv::normalise(args, &command);
    let parsed = command
        .try_get_matches_from(args)
        .and_then(|matches| Ok((CommandLine::from_arg_matches(&matches)?, matches)));
    match parsed {
        Ok((line, matches)) => dispatch(line, &matches, server),
        Err(e) => {
            // A reader that went away is no failure of ours.
            let _ = e.print();
            match e.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(line: CommandLine, matches: &ArgMatches, server: fn(Loaded) -> ExitCode) -> ExitCode {
    let printer = Printer::new(match line.output {
        None | Some(Form::Text) => Output::Text,
        Some(Form::Json) => Output::Json,
        Some(Form::Raw) => Output::Raw,
    });
    match command::run(line, matches, printer, server) {
        Ok(code) => code,
        Err(e) => {
            if !e.is_silent() {
                printer.failure(&e.to_string(), e.hint().as_deref());
            }
            e.exit_code()
        }
    }
}
