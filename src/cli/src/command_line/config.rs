//! Flags and arguments of `micro config`; names and letters are Micro's where Micro has the command.

use clap::{Args, Subcommand};

/// `micro config`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Config {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// Below `micro config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a value
    Get(ConfigGet),
    /// Set a value; objects are merged into what is there
    Set(ConfigSet),
    /// Remove a value
    #[command(alias = "delete")]
    Del {
        /// Dotted path, such as helloworld.greeting
        path: Option<String>,
    },
    /// Print a value as it is, then again after each change
    Watch {
        /// Dotted path; everything if not given
        #[arg(default_value = "", hide_default_value = true)]
        path: String,
        /// Show secrets decrypted
        #[arg(long, short)]
        secret: bool,
    },
    /// Show who changed what and when, the newest first
    History {
        /// Dotted path; everything if not given
        #[arg(default_value = "", hide_default_value = true)]
        path: String,
        /// At most so many changes
        #[arg(
            long,
            short,
            value_name = "NUMBER",
            default_value_t = 0,
            hide_default_value = true
        )]
        limit: u64,
    },
    /// Make everything what it was after a version, as a new change
    Revert {
        /// Version, as history shows it
        version: u64,
    },
    /// Encrypt every secret of every namespace with a new key
    Rotate,
}

/// `micro config get`
#[derive(Debug, Args)]
pub(crate) struct ConfigGet {
    /// Dotted path, such as helloworld.greeting
    pub(crate) path: Option<String>,
    /// Show secrets decrypted
    #[arg(long, short)]
    pub(crate) secret: bool,
    /// Print everything
    #[arg(long)]
    pub(crate) all: bool,
}

/// `micro config set`
#[derive(Debug, Args)]
pub(crate) struct ConfigSet {
    /// Dotted path, such as helloworld.greeting
    pub(crate) path: Option<String>,
    /// Value: JSON, or else a text; - reads it from stdin
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
    /// Keep it encrypted, and show it only to those who ask with --secret
    #[arg(long, short)]
    pub(crate) secret: bool,
    /// Refuse a value that is not JSON
    #[arg(long, conflicts_with = "text")]
    pub(crate) json: bool,
    /// Take the value as a text, even if it looks like JSON
    #[arg(long)]
    pub(crate) text: bool,
}
