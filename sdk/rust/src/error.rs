//! What can go wrong: with a service as a whole, and with a call to the platform or to another
//! service.

use std::fmt;

use tonic::{Code, Status};

use crate::platform;

/// What kind of failure an [`Error`] is, which is what a program decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request or a value is wrong; repeating it will not help.
    Invalid,
    /// No identity, or one that is not known.
    Unauthenticated,
    /// A known identity that may not do this.
    Denied,
    /// There is no such thing.
    NotFound,
    /// There is one already, or somebody else changed it first.
    Conflict,
    /// The platform is not in the state that this needs.
    Precondition,
    /// A quota or a size limit.
    Exhausted,
    /// It took too long; it may have happened all the same.
    Timeout,
    /// Not offered there.
    Unimplemented,
    /// Nobody there to answer now; trying again may help.
    Unavailable,
    /// A fault of the other side.
    Internal,
}

impl Kind {
    /// The kind of a status: by the code in Micro's error object, because a proxy of Micro's puts
    /// its own in place of the status; else by the status.
    fn of(status: &Status) -> Self {
        match platform::code(status) {
            Some(400) => Self::Invalid,
            Some(401) => Self::Unauthenticated,
            Some(403) => Self::Denied,
            Some(404) => Self::NotFound,
            Some(408) => Self::Timeout,
            Some(409) => Self::Conflict,
            Some(412) => Self::Precondition,
            Some(429) => Self::Exhausted,
            Some(501) => Self::Unimplemented,
            Some(503) => Self::Unavailable,
            _ => match status.code() {
                Code::InvalidArgument | Code::OutOfRange => Self::Invalid,
                Code::Unauthenticated => Self::Unauthenticated,
                Code::PermissionDenied => Self::Denied,
                Code::NotFound => Self::NotFound,
                Code::AlreadyExists | Code::Aborted => Self::Conflict,
                Code::FailedPrecondition => Self::Precondition,
                Code::ResourceExhausted => Self::Exhausted,
                Code::DeadlineExceeded => Self::Timeout,
                Code::Unimplemented => Self::Unimplemented,
                Code::Unavailable | Code::Cancelled => Self::Unavailable,
                _ => Self::Internal,
            },
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::AlreadyExists,
            Self::Precondition => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Unimplemented => Code::Unimplemented,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

/// Why a service could not start or had to stop, or why a call failed.
///
/// `Debug` prints the same sentences as `Display`, because `fn main() -> Result<(), Error>` shows
/// that one to people. A method of a service passes it on with `?`: it becomes a
/// [`Status`] of the same kind.
///
/// ```no_run
/// # async fn example(notes: micro_sdk::store::Table<String>) -> Result<(), micro_sdk::Error> {
/// use micro_sdk::Kind;
///
/// match notes.create("a", &"first".to_owned()).await {
///     Err(error) if error.kind() == Kind::Conflict => println!("there is one already"),
///     other => println!("revision {}", other?),
/// }
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub enum Error {
    /// `$PORT` is not a port.
    Port {
        /// What it says.
        value: String,
    },
    /// The address cannot be listened on.
    Listen {
        /// The address, as the platform or the user gave it.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes given to [`Service::descriptors`](crate::Service::descriptors) are no descriptors.
    Descriptors {
        /// What is wrong with them.
        source: tonic_reflection::server::Error,
    },
    /// The signals that stop a service cannot be heard.
    Signals {
        /// What the system says.
        source: std::io::Error,
    },
    /// The server broke while it served.
    Serve {
        /// What it says.
        source: tonic::transport::Error,
    },
    /// A call to the platform or to another service failed.
    Call {
        /// What kind of failure it is.
        kind: Kind,
        /// What could not be done, and why.
        message: String,
    },
}

impl Error {
    /// What kind of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Port { .. } | Self::Descriptors { .. } => Kind::Invalid,
            Self::Listen { .. } => Kind::Unavailable,
            Self::Signals { .. } | Self::Serve { .. } => Kind::Internal,
            Self::Call { kind, .. } => *kind,
        }
    }

    /// Whether nobody was there to answer, so that trying again later may help.
    pub const fn is_temporary(&self) -> bool {
        matches!(self.kind(), Kind::Unavailable | Kind::Timeout)
    }

    /// The call to `what` (as in "cannot …") failed with `status`.
    pub(crate) fn call(what: impl fmt::Display, status: &Status) -> Self {
        Self::Call {
            kind: Kind::of(status),
            message: format!("cannot {what}: {}", platform::detail(status)),
        }
    }

    /// A value that is not what its type says.
    pub(crate) fn invalid(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Call {
            kind: Kind::Invalid,
            message: format!("cannot {what}: {why}"),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call {
            kind: Kind::of(&status),
            message: platform::detail(&status),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.kind().code(), error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { value } => write!(
                f,
                "cannot listen: PORT is {value:?}; set it to a number from 0 to 65535"
            ),
            Self::Listen { address, source } => write!(
                f,
                "cannot listen on {address}: {source}; choose another with PORT or MICRO_SERVICE_ADDRESS"
            ),
            Self::Descriptors { source } => write!(
                f,
                "cannot read the descriptors: {source}; pass the FILE_DESCRIPTOR_SET that include_proto! defines"
            ),
            Self::Signals { source } => write!(f, "cannot listen to SIGTERM and SIGINT: {source}"),
            Self::Serve { source } => {
                write!(f, "cannot go on serving: {}", Chain(source))
            }
            Self::Call { message, .. } => f.write_str(message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Port { .. } | Self::Call { .. } => None,
            Self::Listen { source, .. } | Self::Signals { source } => Some(source),
            Self::Descriptors { source } => Some(source),
            Self::Serve { source } => Some(source),
        }
    }
}

/// An error with all its causes on one line; a transport error alone says next to nothing.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Wrappers like to repeat what they wrap.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_object_decides_the_kind() {
        let text =
            r#"{"id":"store","code":409,"detail":"somebody was faster","status":"Conflict"}"#;
        let error = Error::call("write note a", &Status::internal(text));
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(
            error.to_string(),
            "cannot write note a: somebody was faster"
        );
        let status = Status::from(error);
        assert_eq!(status.code(), Code::AlreadyExists);
        assert_eq!(Error::from(status).kind(), Kind::Conflict);
    }

    #[test]
    fn a_status_without_an_object_decides_by_its_code() {
        let kind = |status: Status| Error::from(status).kind();
        assert_eq!(kind(Status::unavailable("away")), Kind::Unavailable);
        assert_eq!(kind(Status::permission_denied("no")), Kind::Denied);
        assert_eq!(kind(Status::unknown("h2 protocol error")), Kind::Internal);
        assert!(Error::from(Status::unavailable("away")).is_temporary());
    }
}
