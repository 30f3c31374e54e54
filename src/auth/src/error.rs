//! What can go wrong with identity.
//!
//! Texts without a hint are part of Micro's contract (§5.2, §5.3): clients compare them, so they stay
//! exactly as they are, and a hint would be appended to them on the wire.

use std::path::PathBuf;

use micro_core::{Fault, Kind, caller::NotAllowed, id::InvalidName};

/// A failure of identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A new account without an id.
    #[error("ID required")]
    IdRequired,
    /// The id is taken in this namespace.
    #[error("Account with this ID already exists")]
    AccountExists,
    /// The name is taken in this namespace.
    #[error("Account with this Name already exists")]
    NameExists,
    /// A token that is no token of ours, or none any more.
    #[error("invalid token provided")]
    InvalidToken,
    /// Neither an id with a secret nor a refresh token.
    #[error("Credentials or a refresh token required")]
    CredentialsRequired,
    /// No such account in this namespace.
    #[error("Account not found with this ID")]
    AccountNotFound,
    /// A wrong password.
    #[error("Secret not correct")]
    WrongSecret,
    /// Deleting nothing in particular.
    #[error("Missing ID")]
    MissingId,
    /// Deleting oneself.
    #[error("Can't delete your own account")]
    OwnAccount,
    /// An empty new secret.
    #[error("New secret should not be blank")]
    BlankSecret,
    /// A rule is missing in the request.
    #[error("Rule missing")]
    RuleMissing,
    /// A rule without an id.
    #[error("ID missing")]
    RuleIdMissing,
    /// A rule without a resource.
    #[error("Resource missing")]
    ResourceMissing,
    /// A rule that neither grants nor denies.
    #[error("Access missing")]
    AccessMissing,
    /// The id of the rule is taken in this namespace.
    #[error("A rule with this ID already exists")]
    RuleExists,
    /// Nobody could administer the node any more.
    #[error("cannot delete {0}: it is the last administrator of namespace micro")]
    LastAdministrator(String),
    /// Too many wrong secrets in a row.
    #[error("too many wrong secrets for this account; try again in {seconds} s")]
    Braked {
        /// How long to wait.
        seconds: u64,
    },
    /// More logins at once than the node takes.
    #[error("too many logins at the same time")]
    Busy,
    /// A text beyond its bound.
    #[error("the {what} is too long; the limit is {limit} bytes")]
    TooLong {
        /// Which one.
        what: &'static str,
        /// Its bound.
        limit: usize,
    },
    /// A namespace has as many of these as it may have.
    #[error("namespace {namespace} has {limit} {what} already, which is the limit")]
    Full {
        /// `accounts` or `rules`.
        what: &'static str,
        /// Whose.
        namespace: String,
        /// The bound.
        limit: u32,
    },
    /// The one-time login token does not fit.
    #[error(
        "this one-time login token is not valid: it was used, it is older than 15 minutes, or it is not the one of the last start"
    )]
    NotClaimable,
    /// The node has an administrator already.
    #[error("this node has an administrator already")]
    AlreadyClaimed,
    /// The first account needs a real secret.
    #[error("the secret is too short for an administrator; use at least {0} characters")]
    WeakSecret(usize),
    /// The caller may not do this.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A namespace or an id that breaks the rules for names.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The database refused.
    #[error(transparent)]
    Storage(#[from] micro_storage::Error),
    /// The key that signs tokens cannot be used.
    #[error("cannot use the token key {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The random generator, the hash or the signature failed.
    #[error("cannot {0}")]
    Crypto(&'static str),
    /// Our own code failed.
    #[error("the request was abandoned because of a fault inside micro")]
    Panicked,
    /// The runtime is ending.
    #[error("the node is shutting down")]
    Stopping,
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::IdRequired
            | Self::AccountExists
            | Self::NameExists
            | Self::InvalidToken
            | Self::CredentialsRequired
            | Self::AccountNotFound
            | Self::WrongSecret
            | Self::MissingId
            | Self::OwnAccount
            | Self::BlankSecret
            | Self::RuleMissing
            | Self::RuleIdMissing
            | Self::ResourceMissing
            | Self::AccessMissing
            | Self::RuleExists
            | Self::TooLong { .. }
            | Self::WeakSecret(_) => Kind::Invalid,
            Self::NotClaimable => Kind::Unauthenticated,
            Self::LastAdministrator(_) | Self::AlreadyClaimed => Kind::Precondition,
            Self::Braked { .. } | Self::Busy | Self::Full { .. } => Kind::Exhausted,
            Self::NotAllowed(e) => e.kind(),
            Self::Name(e) => e.kind(),
            Self::Storage(e) => e.kind(),
            Self::Key { .. } | Self::Crypto(_) | Self::Panicked => Kind::Internal,
            Self::Stopping => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::LastAdministrator(_) => Some(
                "create another administrator first: an account of type user with scope admin"
                    .into(),
            ),
            Self::Busy => Some("try again in a moment".into()),
            Self::NotClaimable => {
                Some("restart the server: it prints a new one while nobody can administer it".into())
            }
            Self::AlreadyClaimed => Some("log in with `micro login`".into()),
            Self::Key { .. } => Some(
                "restore the file from a backup; if it is lost, move it away and every token has to be issued again"
                    .into(),
            ),
            Self::Crypto(_) | Self::Panicked => Some("the log of the server says why".into()),
            Self::Storage(e) => e.hint(),
            _ => None,
        }
    }
}
