//! Flags and arguments of `micro auth`.

use clap::{Args, Subcommand};

/// `micro auth`
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Auth {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: AuthCommand,
}

/// Below `micro auth`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// List accounts or rules
    List {
        /// Which.
        #[command(subcommand)]
        what: AuthList,
    },
    /// Make an account, a rule or a token
    Create {
        /// Which.
        #[command(subcommand)]
        what: AuthCreate,
    },
    /// Remove an account or a rule
    Delete {
        /// Which.
        #[command(subcommand)]
        what: AuthDelete,
    },
    /// Change an account
    Update {
        /// What of it.
        #[command(subcommand)]
        what: AuthUpdate,
    },
}

/// Below `micro auth list`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum AuthList {
    /// The accounts of the namespace
    Accounts,
    /// The rules of the namespace
    Rules,
}

/// Below `micro auth create`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCreate {
    /// Allow or deny calls
    Rule {
        /// Name of the rule
        id: String,
        /// Who: empty for everybody, * for any account of the namespace, + for any account, else the accounts with this scope
        #[arg(long, default_value = "")]
        scope: String,
        /// What, as type:name:endpoint
        #[arg(long, default_value = "*:*:*")]
        resource: String,
        /// granted or denied
        #[arg(long, default_value = "granted")]
        access: String,
        /// Rules with a higher number are looked at first
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
    },
    /// Make an account
    Account {
        /// Its name
        id: String,
        /// Its password; made up if not given
        #[arg(long, value_name = "TEXT")]
        secret: Option<String>,
        /// What rules look at; admin makes an administrator of the namespace
        #[arg(long, value_delimiter = ',', value_name = "SCOPE,...")]
        scopes: Vec<String>,
        /// user or service
        #[arg(long = "type", default_value = "user")]
        kind: String,
    },
    /// Make an access token
    Token {
        /// Account
        #[arg(long)]
        id: String,
        /// Its password
        #[arg(long, value_name = "TEXT")]
        secret: Option<String>,
        /// How long it is good for, in seconds
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        expiry: i64,
    },
}

/// Below `micro auth delete`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthDelete {
    /// Remove a rule
    Rule {
        /// Its name
        id: String,
    },
    /// Remove an account
    Account {
        /// Its name
        id: String,
    },
}

/// Below `micro auth update`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthUpdate {
    /// Change the password of an account
    Secret {
        /// Account
        id: String,
        /// The password as it is; an administrator may leave it out
        #[arg(long = "old_secret", alias = "old-secret", value_name = "TEXT")]
        old_secret: Option<String>,
        /// The password as it shall be; asked for if not given
        #[arg(long = "new_secret", alias = "new-secret", value_name = "TEXT")]
        new_secret: Option<String>,
    },
}
