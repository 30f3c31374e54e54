//! From a parsed command line to what it does. A runtime is made only for commands that talk to a
//! server, and files are read only by commands that need them.

use std::{future::Future, process::ExitCode};

use clap::ArgMatches;

use crate::{
    Daemon, VERSION,
    command_line::{Command, CommandLine},
    context::Context,
    dynamic,
    error::{Error, Result},
    printer::Printer,
    project,
};

mod accounts;
mod auth;
mod blob;
pub(crate) mod call;
mod config;
mod env;
mod events;
mod get;
mod kill;
mod login;
mod logs;
mod run;
mod server;
mod services;
mod status;
mod store;
mod user;

/// Runs a command.
///
/// # Errors
/// Whatever the command could not do.
pub(crate) fn run(
    line: CommandLine,
    matches: &ArgMatches,
    printer: Printer,
    daemon: Daemon,
) -> Result<ExitCode> {
    if line.version {
        return version(printer);
    }
    let Some(command) = line.command else {
        return Err(Error::usage(
            "No command provided to micro. Please refer to 'micro --help'",
        ));
    };
    let load = || Context::load(printer, line.config.as_deref(), line.env, line.namespace);
    match command {
        Command::Version => return version(printer),
        Command::Server(args) => {
            let flags = matches.subcommand_matches("server");
            return server::run(printer, &args, flags, daemon);
        }
        Command::New(args) => project::create(printer, &args)?,
        Command::Env(args) => env::run(load()?, args)?,
        Command::Logout => login::logout(&mut load()?)?,
        Command::Login(args) => block_on(login::login(load()?, args))?,
        Command::User(args) => user::run(load()?, args)?,
        Command::Auth(args) => block_on(auth::run(&load()?, args.command))?,
        Command::Run(args) => block_on(run::run(&load()?, &args))?,
        Command::Update(args) => block_on(run::update(&load()?, &args))?,
        Command::Kill(args) => block_on(kill::run(&load()?, args))?,
        Command::Status(args) => block_on(status::run(&load()?, &args))?,
        Command::Logs(args) => block_on(logs::run(&load()?, &args))?,
        Command::Services => block_on(services::run(&load()?))?,
        Command::Get(args) => block_on(get::run(&load()?, &args.what))?,
        Command::Call(args) => block_on(call::call(&load()?, &args))?,
        Command::Stream(args) => block_on(call::stream(&load()?, &args))?,
        Command::Store(args) => block_on(store::run(&load()?, args.command))?,
        Command::Blob(args) => block_on(blob::run(&load()?, args.command))?,
        Command::Config(args) => block_on(config::run(&load()?, args.command))?,
        Command::Events(args) => block_on(events::run(&load()?, args.command))?,
        Command::Service(words) => block_on(dynamic::run(&load()?, words))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn version(printer: Printer) -> Result<ExitCode> {
    if printer.is_json() {
        printer.json(&serde_json::json!({ "version": VERSION }))?;
    } else {
        printer.line(&format!("micro version {VERSION}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One thread is enough for a client and starts in no time.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(Box::pin(work));
    // A thread that still reads stdin or packs files must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Prints the help of a command whose arguments are missing; that is no failure in Micro.
fn print_help(path: &str) -> Result<()> {
    let mut command = crate::command_line::command();
    command.build();
    let mut at = &mut command;
    for word in path.split(' ') {
        let Some(next) = at.find_subcommand_mut(word) else {
            return Ok(());
        };
        at = next;
    }
    at.print_help()?;
    Ok(())
}

/// `name` and `name@version`.
fn name_and_version(text: &str) -> (&str, Option<&str>) {
    text.split_once('@')
        .map_or((text, None), |(name, version)| (name, Some(version)))
}
