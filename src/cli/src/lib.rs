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
//! | `feed.rs`, `patience.rs` | streams up, and streams that outlive a restart of the server |
//! | `error.rs` | messages, hints and exit codes |
//! | `input.rs`, `amount.rs` | values from stdin, and lengths of time as Go writes them |
//! | `printer.rs`, `table.rs`, `json.rs`, `line.rs` | output |

use std::{ffi::OsString, process::ExitCode};

use clap::{
    ArgMatches, FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
};
use micro_core::{Fault as _, settings::Loaded};

mod amount;
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
mod feed;
mod input;
mod json;
mod line;
mod nearest;
mod patience;
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

/// What the CLI starts and knows nothing about.
#[derive(Clone, Copy)]
pub struct Daemon {
    /// `micro server`.
    pub start: fn(Loaded) -> ExitCode,
    /// `micro server --check-data`.
    pub check_data: fn(Loaded) -> ExitCode,
}

/// Does what the command line says.
pub fn main(args: Vec<OsString>, daemon: Daemon) -> ExitCode {
    let command = command_line::command();
    let args = argv::normalise(args, &command);
    let asked = command_line::path_of(&args, &command);
    let parsed = command
        .try_get_matches_from(args)
        .and_then(|matches| Ok((CommandLine::from_arg_matches(&matches)?, matches)));
    match parsed {
        Ok((line, matches)) => dispatch(line, &matches, daemon),
        Err(e) if e.kind() == ErrorKind::InvalidSubcommand => {
            unrecognised(&e, &asked);
            ExitCode::FAILURE
        }
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

/// Says in Micro's words that a command has no such command below it.
fn unrecognised(error: &clap::Error, path: &str) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        // The nearest one is the last.
        Some(ContextValue::Strings(words)) => words.last().map(String::as_str),
        _ => None,
    };
    let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
    let hint = text(ContextKind::SuggestedSubcommand).map(|near| format!("did you mean {near}?"));
    Printer::new(Output::Text).failure(
        &format!("Unrecognized subcommand for {path}: {word}. Please refer to '{path} --help'"),
        hint.as_deref(),
    );
}

fn dispatch(line: CommandLine, matches: &ArgMatches, daemon: Daemon) -> ExitCode {
    let printer = Printer::new(match line.output {
        None | Some(Form::Text) => Output::Text,
        Some(Form::Json) => Output::Json,
        Some(Form::Raw) => Output::Raw,
    });
    match command::run(line, matches, printer, daemon) {
        Ok(code) => code,
        Err(e) => {
            if !e.is_silent() {
                printer.failure(&e.to_string(), e.hint().as_deref());
            }
            e.exit_code()
        }
    }
}
