//! Flags and arguments of `micro blob`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `micro blob`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Blob {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: BlobCommand,
}

/// Below `micro blob`.
#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Store a file
    Write(BlobWrite),
    /// Get a file back
    Read(BlobRead),
    /// List what is stored
    List(BlobList),
    /// Delete what is stored
    Delete {
        /// Key
        key: String,
    },
}

/// `micro blob write`
#[derive(Debug, Args)]
pub(crate) struct BlobWrite {
    /// Key
    pub(crate) key: String,
    /// File to store; - reads stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Let everybody read it through the gateway, at /blob/NAMESPACE/KEY
    #[arg(long)]
    pub(crate) public: bool,
    /// What it is, such as image/png; the gateway tells it to browsers
    #[arg(
        long = "content-type",
        alias = "content_type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) content_type: String,
}

/// `micro blob read`
#[derive(Debug, Args)]
pub(crate) struct BlobRead {
    /// Key
    pub(crate) key: String,
    /// File to write it to; stdout if not given, or -
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// `micro blob list`
#[derive(Debug, Args)]
pub(crate) struct BlobList {
    /// Only keys that begin with this
    #[arg(
        long,
        short,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) prefix: String,
    /// Show size, type and time too
    #[arg(long, short)]
    pub(crate) verbose: bool,
}
