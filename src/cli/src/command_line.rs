//! Every flag and argument of the built-in commands. What they do is in `command/`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Arg, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use micro_core::{Span, settings};

mod auth;
mod blob;
mod config;
mod events;
mod store;

pub(crate) use auth::{Auth, AuthCommand, AuthCreate, AuthDelete, AuthList, AuthUpdate};
pub(crate) use blob::{Blob, BlobCommand, BlobList, BlobRead, BlobWrite};
pub(crate) use config::{Config, ConfigCommand, ConfigGet, ConfigSet};
pub(crate) use events::{
    Events, EventsCommand, EventsConsume, EventsPublish, EventsRead, EventsRetention, Start,
};
pub(crate) use store::{
    Store, StoreCommand, StoreDelete, StoreList, StoreRead, StoreTables, StoreWatch, StoreWrite,
};

const GLOBAL: &str = "Global options";

/// From source to a running service in one command.
#[derive(Debug, Parser)]
#[command(
    name = "micro",
    bin_name = "micro",
    disable_version_flag = true,
    after_help = "A service that runs is a command too: `micro helloworld --help`, `micro helloworld --name=Alice`."
)]
pub(crate) struct CommandLine {
    /// Environment to talk to; `micro env` lists them
    #[arg(short, long, global = true, env = "MICRO_ENV", hide_env_values = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) env: Option<String>,
    /// Namespace to act in
    #[arg(long, global = true, env = "MICRO_NAMESPACE", hide_env_values = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) namespace: Option<String>,
    /// Where the user's settings are, instead of ~/.micro/config.json
    #[arg(short = 'c', long = "c", id = "config_file", alias = "config", global = true, env = "MICRO_CONFIG_FILE", hide_env_values = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) config: Option<PathBuf>,
    /// How to show data; raw is for call and stream
    #[arg(short, long, global = true, env = "MICRO_OUTPUT", hide_env_values = true, value_name = "FORM", help_heading = GLOBAL)]
    pub(crate) output: Option<Form>,
    /// Print the version
    #[arg(short = 'v', long)]
    pub(crate) version: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Forms of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    // No doc comments here: they would make every help text four lines longer.
    #[value(alias = "table", alias = "default")]
    Text,
    Json,
    Raw,
}

/// The built-in commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: gateway, proxy, registry, runtime and all
    Server(Server),
    /// Log in to an environment
    Login(Login),
    /// Log out of an environment
    Logout,
    /// Show or change who you are and where you work
    User(User),
    /// Show, choose, add or remove environments
    Env(Env),
    /// Manage accounts and the rules of who may call what
    Auth(Auth),
    /// Make a new service from a template
    New(New),
    /// Build and run a service from source
    Run(Run),
    /// Build a service again and put it in the place of the running one
    Update(Run),
    /// Stop and remove a service
    Kill(Kill),
    /// Show the services that were run
    Status(Status),
    /// Show what a service printed
    Logs(Logs),
    /// List the services that are registered
    Services,
    /// Show one thing in full
    Get(Get),
    /// Call an endpoint: micro call helloworld Helloworld.Call '{"name": "Alice"}'
    Call(Call),
    /// Call a streaming endpoint and print each message
    Stream(Call),
    /// Read and write the records of services
    Store(Store),
    /// Store files and get them back
    Blob(Blob),
    /// Read and change settings of services, secrets among them
    Config(Config),
    /// Publish and consume events
    Events(Events),
    /// Print the version
    Version,
    /// A service.
    #[command(external_subcommand)]
    Service(Vec<OsString>),
}

/// `micro server`; a flag for every setting comes with it, see [`command`].
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Settings file, instead of /etc/micro/micro.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Print every setting and where it came from, then exit
    #[arg(long)]
    pub(crate) print_settings: bool,
    /// Check the settings, then exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Read everything that is kept and say what is damaged, then exit; the server must not run
    #[arg(long)]
    pub(crate) check_data: bool,
}

/// `micro login`
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Address of the server's proxy; makes an environment for it and chooses it
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// Account to log in with; asked for if not given
    #[arg(long, alias = "email", value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Its password; better typed or piped in than given here, where other users can see it
    #[arg(long, value_name = "TEXT")]
    pub(crate) password: Option<String>,
    /// One-time token of a new server: sets up its first account
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

/// `micro user`
#[derive(Debug, Args)]
pub(crate) struct User {
    /// What to show or change.
    #[command(subcommand)]
    pub(crate) command: Option<UserCommand>,
}

/// Below `micro user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Show or change your settings
    Config(UserConfig),
    /// Print the access token, for use as `Authorization: Bearer ...`
    Token,
    /// Show or choose the namespace
    Namespace(UserNamespace),
    /// Change something of the account
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Set(UserSet),
}

/// `micro user config`
#[derive(Debug, Args)]
pub(crate) struct UserConfig {
    /// What to do with a setting.
    #[command(subcommand)]
    pub(crate) command: Option<UserConfigCommand>,
}

/// Below `micro user config`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserConfigCommand {
    /// Print one setting
    Get {
        /// Dotted path, such as git.baseurl
        key: String,
    },
    /// Change one setting
    Set {
        /// Dotted path, such as git.credentials.github
        key: String,
        /// Its value
        value: String,
    },
    /// Remove one setting
    #[command(alias = "del")]
    Delete {
        /// Dotted path
        key: String,
    },
}

/// `micro user namespace`
#[derive(Debug, Args)]
pub(crate) struct UserNamespace {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) command: Option<UserNamespaceCommand>,
}

/// Below `micro user namespace`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserNamespaceCommand {
    /// Choose the namespace to act in
    Set {
        /// Its name
        name: String,
    },
}

/// `micro user set`
#[derive(Debug, Args)]
pub(crate) struct UserSet {
    /// What to change.
    #[command(subcommand)]
    pub(crate) command: UserSetCommand,
}

/// Below `micro user set`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserSetCommand {
    /// Change the password of an account
    Password {
        /// Account; the one that is logged in if not given
        #[arg(long, alias = "username", value_name = "NAME")]
        email: Option<String>,
        /// The password as it is; asked for if not given
        #[arg(long, value_name = "TEXT")]
        old_password: Option<String>,
        /// The password as it shall be; asked for if not given
        #[arg(long, value_name = "TEXT")]
        new_password: Option<String>,
    },
}

/// `micro env`
#[derive(Debug, Args)]
pub(crate) struct Env {
    /// What to do with environments.
    #[command(subcommand)]
    pub(crate) command: Option<EnvCommand>,
}

/// Below `micro env`.
#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// Print the name of the one in force
    Get,
    /// Choose one
    Set {
        /// Its name
        name: String,
    },
    /// Add one
    Add {
        /// Its name
        name: String,
        /// Address of its proxy; a host name alone means TLS on port 443
        address: Option<String>,
    },
    /// Remove one
    #[command(alias = "delete")]
    Del {
        /// Its name
        name: String,
    },
}

/// `micro new`
#[derive(Debug, Args)]
pub(crate) struct New {
    /// Name of the service, and of the folder to make
    pub(crate) name: Option<String>,
}

/// `micro run` and `micro update`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A folder, an executable file, or a repository: github.com/org/repo/folder@ref
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// The same as a flag
    #[arg(
        long = "source",
        id = "source_flag",
        value_name = "SOURCE",
        conflicts_with = "source",
        hide = true
    )]
    pub(crate) source_flag: Option<String>,
    /// Name of the service; taken from the source if not given
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What to start instead of what the source says
    #[arg(long, value_name = "COMMAND")]
    pub(crate) command: Option<String>,
    /// Arguments for it
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) args: Option<String>,
    /// Environment variable of the service; may be repeated
    #[arg(
        long = "env_vars",
        visible_alias = "env-vars",
        value_name = "NAME=VALUE,..."
    )]
    pub(crate) env_vars: Vec<String>,
    /// How many copies to run
    #[arg(long, short, value_name = "NUMBER")]
    pub(crate) instances: Option<u32>,
    /// A note on the service; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) metadata: Vec<String>,
    /// Run it even if the same one runs already
    #[arg(long)]
    pub(crate) force: bool,
}

/// `micro kill`
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Services to stop: name or name@version
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// The same as a flag
    #[arg(long = "name", value_name = "NAME", hide = true)]
    pub(crate) name: Option<String>,
}

/// `micro status`
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this service
    pub(crate) name: Option<String>,
    /// Only this version of it
    pub(crate) version: Option<String>,
}

/// `micro logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Name of the service, or name@version
    pub(crate) name: Option<String>,
    /// Only this version
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Go on as the service prints more
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Lines from the end
    #[arg(
        long,
        short = 'n',
        default_value_t = 0,
        hide_default_value = true,
        value_name = "NUMBER"
    )]
    pub(crate) lines: i64,
    /// Only what is newer, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Span>,
}

/// `micro get`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Get {
    /// Which.
    #[command(subcommand)]
    pub(crate) what: GetCommand,
}

/// Below `micro get`.
#[derive(Debug, Subcommand)]
pub(crate) enum GetCommand {
    /// Nodes and endpoints of a service
    Service {
        /// Its name
        name: String,
    },
}

/// `micro call` and `micro stream`
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// Name of the service
    pub(crate) service: Option<String>,
    /// Endpoint, such as Helloworld.Call
    pub(crate) endpoint: Option<String>,
    /// The request as JSON
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) body: Vec<String>,
    /// Call the service at this address instead of through the proxy
    #[arg(long, env = "MICRO_ADDRESS", hide_env_values = true)]
    pub(crate) address: Option<String>,
    /// Header to send; may be repeated
    #[arg(
        long,
        env = "MICRO_METADATA",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "KEY=VALUE"
    )]
    pub(crate) metadata: Vec<String>,
    /// How long to wait for the answer, such as 500ms or 5s
    #[arg(
        long = "request_timeout",
        alias = "request-timeout",
        value_name = "TIME"
    )]
    pub(crate) request_timeout: Option<String>,
}

impl Call {
    /// The request's time limit, if one was given.
    ///
    /// # Errors
    /// The text that is no time.
    pub(crate) fn deadline(&self) -> Result<Option<Duration>, &str> {
        match self.request_timeout.as_deref() {
            None => Ok(None),
            Some(text) => text.parse::<Span>().map(|s| Some(s.0)).map_err(|_| text),
        }
    }
}

/// The whole command line: `micro server` with a flag for every setting, and `micro store` with the
/// letters that Micro gives to its flags.
pub(crate) fn command() -> clap::Command {
    let line = CommandLine::command();
    let [output, env] = ["output", "env"].map(|name| long_only(&line, name));
    line.mut_subcommand("store", |store| {
        store
            .mut_subcommand("read", |read| read.args(output.clone()))
            .mut_subcommand("list", |list| list.args(output))
            .mut_subcommand("write", |write| write.args(env))
    })
    .mut_subcommand("server", |server| {
        server.args(settings::KEYS.iter().map(|key| {
            let help = if key.default.is_empty() {
                key.doc.to_owned()
            } else {
                format!("{} [default: {}]", key.doc, key.default)
            };
            Arg::new(key.flag())
                .long(key.flag())
                .value_name("VALUE")
                .help(format!("{help} [env: {}]", key.env()))
                .help_heading("Settings")
        }))
    })
}

/// A global flag for a command that needs its letter: the one of the command is taken for it.
fn long_only(line: &clap::Command, name: &str) -> Option<Arg> {
    let global = line.get_arguments().find(|arg| arg.get_id() == name)?;
    Some(global.clone().short(None).global(false))
}

/// The longest command that `args` begin with, for messages about what follows it.
pub(crate) fn path_of(args: &[OsString], root: &clap::Command) -> String {
    let mut at = root;
    let mut path = root.get_name().to_owned();
    for word in args.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(next) = at.find_subcommand(word) {
            at = next;
            path.push(' ');
            path.push_str(next.get_name());
        }
    }
    path
}

#[cfg(test)]
mod tests;
