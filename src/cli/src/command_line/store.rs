//! Flags and arguments of `micro store`; names and letters are Micro's where Micro has the command.

use std::ffi::OsString;

use clap::{Args, Subcommand, ValueEnum};

/// `micro store`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Store {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

/// Below `micro store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Print the value of a record
    Read(StoreRead),
    /// Write a record
    Write(StoreWrite),
    /// List the keys of a table
    List(StoreList),
    /// Delete a record
    Delete(StoreDelete),
    /// Print changes of records as they are made
    Watch(StoreWatch),
    /// List the databases
    Databases(StoreDatabases),
    /// List the tables of a database
    Tables(StoreTables),
}

/// Where records are.
#[derive(Debug, Args)]
pub(crate) struct Table {
    /// Database; the namespace in force if not given
    #[arg(long, short, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Table; services use one of their own name
    #[arg(long, short, value_name = "NAME", default_value = "micro")]
    pub(crate) table: String,
}

/// Which of several, and in which order.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// At most so many
    #[arg(
        long,
        short,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) limit: u64,
    /// Leave out so many at the beginning
    #[arg(long, short = 'o', value_name = "NUMBER", value_parser = offset, default_value_t = 0, hide_default_value = true)]
    pub(crate) offset: u64,
    /// Order of the keys
    #[arg(long, value_name = "ORDER")]
    pub(crate) order: Option<Order>,
}

/// Orders of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    // The words are the wire's.
    Asc,
    Desc,
}

impl Order {
    /// The word on the wire.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// `micro store read`
#[derive(Debug, Args)]
pub(crate) struct StoreRead {
    /// Key, or the part of keys that --prefix and --suffix speak of
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) table: Table,
    /// Every record whose key begins with KEY
    #[arg(long, short)]
    pub(crate) prefix: bool,
    /// Every record whose key ends with KEY
    #[arg(long, short)]
    pub(crate) suffix: bool,
    #[command(flatten)]
    pub(crate) page: Page,
    /// Show keys and expiry too
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// `micro store list`
#[derive(Debug, Args)]
pub(crate) struct StoreList {
    /// The part of keys that --prefix and --suffix speak of
    #[arg(value_name = "PART")]
    pub(crate) part: Option<String>,
    #[command(flatten)]
    pub(crate) table: Table,
    /// Only keys that begin with PART
    #[arg(long, short, requires = "part")]
    pub(crate) prefix: bool,
    /// Only keys that end with PART
    #[arg(long, short, requires = "part")]
    pub(crate) suffix: bool,
    #[command(flatten)]
    pub(crate) page: Page,
}

/// `micro store write`
#[derive(Debug, Args)]
pub(crate) struct StoreWrite {
    /// Key
    pub(crate) key: Option<String>,
    /// Value; - reads it from stdin as it is
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: Vec<OsString>,
    #[command(flatten)]
    pub(crate) table: Table,
    /// When the record is gone again, such as 30s, 1h30m or 7d
    #[arg(long, short = 'e', value_name = "TIME")]
    pub(crate) expiry: Option<String>,
}

/// `micro store delete`
#[derive(Debug, Args)]
pub(crate) struct StoreDelete {
    /// Key
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) table: Table,
}

/// `micro store watch`
#[derive(Debug, Args)]
pub(crate) struct StoreWatch {
    /// Only keys that begin with this
    #[arg(
        long,
        short,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) prefix: String,
    /// Print the records as they are first
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) table: Table,
}

/// `micro store databases`
#[derive(Debug, Args)]
pub(crate) struct StoreDatabases {
    /// Micro could call another service; here there is one
    #[arg(long, value_parser = ["store"], hide = true)]
    pub(crate) store: Option<String>,
}

/// `micro store tables`
#[derive(Debug, Args)]
pub(crate) struct StoreTables {
    /// Database; the namespace in force if not given
    #[arg(long, short, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Micro could call another service; here there is one
    #[arg(long, value_parser = ["store"], hide = true)]
    pub(crate) store: Option<String>,
}

/// Everywhere else `-o` is `--output`, so people will write it here too.
fn offset(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        if ["json", "text", "table", "raw"].contains(&text) {
            format!("-o is --offset here, as in Micro; write --output {text}")
        } else {
            "it is no number".into()
        }
    })
}
