//! What can go wrong for the person at the terminal, and the one place where it becomes a message, a
//! hint and an exit code. Messages and codes of failed calls are those Micro's users script against.

use std::{io, path::PathBuf, process::ExitCode};

use micro_core::{Fault, Kind, WireError};
use tonic::{Code, Status};

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The operation failed for a reason that the message names.
    #[error("{message}")]
    Failed {
        /// What could not be done.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// The exit code.
        exit: u8,
    },
    /// Nobody answers at the address of the environment.
    #[error("Failed to connect to micro server at {address}")]
    Connect {
        /// The address.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The call needs an account, or another one.
    #[error("Not authorized to perform this request")]
    NotAuthorized {
        /// What to do about it.
        hint: String,
    },
    /// No service of this name runs.
    #[error("Service {0:?} not found")]
    NoService(String),
    /// The service has no such method.
    #[error("Service method {0:?} not found")]
    NoMethod(String),
    /// A method that is not `Struct.Method`.
    #[error("Method name {0:?} invalid format. Expecting service.endpoint")]
    MethodFormat(String),
    /// The answer did not come in time.
    #[error("Request timed out")]
    TimedOut,
    /// A service refused, in Micro's own words.
    #[error("{}", .0.detail)]
    Refused(WireError),
    /// A service refused, in words of its own.
    #[error("{0}")]
    Foreign(String),
    /// A file or folder.
    #[error("cannot {doing} {}: {}", path.display(), plain(source))]
    File {
        /// What was to be done with it, such as `read`.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of ours that does not hold what it should.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The terminal or pipe that reads our output.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Result of everything in this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A wrong command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// A failure with exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            hint: None,
            exit: 1,
        }
    }

    /// The same with something to do about it.
    #[must_use]
    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        let hint = Some(text.into());
        match self {
            Self::Usage { message, .. } => Self::Usage { message, hint },
            Self::Failed { message, exit, .. } => Self::Failed {
                message,
                hint,
                exit,
            },
            other => Self::Failed {
                message: other.to_string(),
                hint,
                exit: other.exit(),
            },
        }
    }

    /// The same with another exit code.
    #[must_use]
    pub(crate) fn with_exit(self, exit: u8) -> Self {
        let hint = self.hint();
        Self::Failed {
            message: self.to_string(),
            hint,
            exit,
        }
    }

    /// For commands about accounts, which Micro reports in plain words with exit code 1.
    #[must_use]
    pub(crate) fn plainly(self) -> Self {
        match self {
            Self::Refused(wire) => Self::failed(capitalised(&wire.detail)),
            other => other,
        }
    }

    /// For [`std::result::Result::map_err`] on file operations.
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Failed { exit, .. } => *exit,
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage { .. }
            | Self::TimedOut
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::Output(_) => 1,
            Self::NotAuthorized { .. } => 2,
            Self::MethodFormat(_) => 3,
            Self::Connect { .. } | Self::NoService(_) => 4,
            Self::NoMethod(_) => 5,
            Self::Refused(_) => 127,
            Self::Foreign(_) => 128,
        }
    }

    /// Whether there is anything to say: a reader that went away needs no message.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code for the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit())
    }

    /// Whether the server said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(wire) if wire.code == 404)
            || matches!(self, Self::NoService(_))
    }

    /// Whether the same may work in a while, because the server restarts or is too busy.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TimedOut | Self::Foreign(_) => true,
            Self::Refused(wire) => matches!(wire.code, 429 | 502 | 503),
            _ => false,
        }
    }

    /// Whether the server wants another account.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::NotAuthorized { .. })
            || matches!(self, Self::Refused(wire) if wire.code == 403)
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Usage { .. } | Self::MethodFormat(_) => Kind::Invalid,
            Self::Connect { .. } => Kind::Unavailable,
            Self::NotAuthorized { .. } => Kind::Unauthenticated,
            Self::NoService(_) | Self::NoMethod(_) => Kind::NotFound,
            Self::TimedOut => Kind::Timeout,
            Self::Failed { .. }
            | Self::Refused(_)
            | Self::Foreign(_)
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::Output(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::NotAuthorized { hint } => Some(hint.clone()),
            Self::Connect { reason, .. } => Some(format!(
                "{reason}; start a server with `micro server`, or choose another one: `micro env` lists them"
            )),
            Self::NoService(_) => Some("`micro services` lists what runs in this namespace".into()),
            Self::NoMethod(name) => {
                let service = name.split('.').next().unwrap_or(name).to_lowercase();
                Some(format!("`micro {service} --help` lists its commands"))
            }
            Self::TimedOut => Some("give it longer with --request_timeout 60s".into()),
            Self::Damaged { path, .. } => Some(format!(
                "correct it, or move it away and log in again: mv {0} {0}.bad",
                path.display()
            )),
            _ => None,
        }
    }
}

/// Reads the status of a failed call (the order of the tests is part of the contract, §7.6).
///
/// `account` is who the caller is logged in as, for the hint.
pub(crate) fn of_status(status: &Status, address: &str, account: Option<&str>) -> Error {
    let text = status.message();
    let wire = WireError::parse(text);
    let said = wire.as_ref().map_or(text, |w| w.detail.as_str());
    if let Some(method) = after(said, "malformed method name: ") {
        return Error::MethodFormat(unquoted(method));
    }
    let routed = said.find(": route not found").and_then(|at| said.get(..at));
    if let Some(name) = routed.and_then(|head| after(head, "service ")) {
        return Error::NoService(name.trim().into());
    }
    if let Some(name) = after(said, "unknown service ") {
        let name: String = name
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
            .collect();
        let name = name.trim_end_matches('.').to_owned();
        return if name.contains('.') {
            Error::NoMethod(name)
        } else {
            Error::NoService(name)
        };
    }
    // grpc-go has written this with and without a colon after "dialing".
    if let Some(rest) = after(said, "Error while dialing") {
        let dialled = after(rest, "dial tcp ").unwrap_or(rest);
        let at = dialled.find(": ").and_then(|i| dialled.get(..i));
        return Error::Connect {
            address: at.unwrap_or(dialled).trim().into(),
            reason: "the connection was refused".into(),
        };
    }
    if is_transport(status) {
        return Error::Connect {
            address: address.into(),
            reason: innermost(status),
        };
    }
    match wire {
        Some(wire) => of_wire(wire, account),
        None => match status.code() {
            Code::DeadlineExceeded => Error::TimedOut,
            Code::Cancelled if text == "Timeout expired" => Error::TimedOut,
            Code::Unauthenticated => not_authorized(account),
            Code::Unimplemented if text.is_empty() => {
                Error::failed("the server does not know this method")
                    .with_hint("`micro version` and the server's version may differ")
            }
            code if text.is_empty() => Error::Foreign(code.description().into()),
            _ => Error::Foreign(text.into()),
        },
    }
}

fn of_wire(wire: WireError, account: Option<&str>) -> Error {
    match wire.code {
        408 => Error::TimedOut,
        401 => not_authorized(account),
        _ => {
            let mut wire = wire;
            if wire.detail.is_empty() {
                wire.detail.clone_from(&wire.status);
            }
            Error::Refused(wire)
        }
    }
}

fn not_authorized(account: Option<&str>) -> Error {
    Error::NotAuthorized {
        hint: match account {
            None => "run `micro login`".into(),
            Some(name) => format!(
                "you are logged in as {name}, who may not do this; run `micro login` with another account"
            ),
        },
    }
}

fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|e| e.is::<tonic::transport::Error>())
}

/// The last reason in a chain of causes: the others only say that something failed.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        last = cause.to_string();
        next = cause.source();
    }
    plain_text(&last)
}

fn plain(error: &io::Error) -> String {
    plain_text(&error.to_string())
}

/// `Connection refused (os error 111)` without the number.
fn plain_text(text: &str) -> String {
    let text = text
        .find(" (os error")
        .and_then(|at| text.get(..at))
        .unwrap_or(text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).and_then(|at| text.get(at + mark.len()..))
}

fn unquoted(text: &str) -> String {
    text.trim()
        .trim_matches(|c| c == '"' || c == '\\')
        .to_owned()
}

/// The text with a capital first letter, as Micro prints plain errors.
pub(crate) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: Code, text: &str) -> Error {
        of_status(&Status::new(code, text), "127.0.0.1:8081", None)
    }

    fn wire(code: u16, detail: &str) -> String {
        WireError::with_code("go.micro.client", code, detail).to_json()
    }

    #[test]
    fn statuses_become_micros_messages_and_exit_codes() {
        let rows: [(Code, String, &str, u8); 11] = [
            (
                Code::Unimplemented,
                "malformed method name: \"Bar\"".into(),
                "Method name \"Bar\" invalid format. Expecting service.endpoint",
                3,
            ),
            (
                Code::Internal,
                wire(500, &wire(500, "service foo-bar: route not found")),
                "Service \"foo-bar\" not found",
                4,
            ),
            (
                Code::Unimplemented,
                "unknown service Helloworld.Foo".into(),
                "Service method \"Helloworld.Foo\" not found",
                5,
            ),
            (
                Code::Unimplemented,
                "unknown service Foo".into(),
                "Service \"Foo\" not found",
                4,
            ),
            (
                Code::Internal,
                wire(
                    500,
                    "connection error: desc = \"transport: Error while dialing dial tcp 127.0.0.1:1234: connect: connection refused\"",
                ),
                "Failed to connect to micro server at 127.0.0.1:1234",
                4,
            ),
            (
                Code::Internal,
                wire(
                    500,
                    "Error while dialing: dial tcp [::1]:1: connect: connection refused",
                ),
                "Failed to connect to micro server at [::1]:1",
                4,
            ),
            (
                Code::Internal,
                wire(408, "too slow"),
                "Request timed out",
                1,
            ),
            (
                Code::Unauthenticated,
                wire(401, "an account is required"),
                "Not authorized to perform this request",
                2,
            ),
            (
                Code::Internal,
                wire(403, "Forbidden call"),
                "Forbidden call",
                127,
            ),
            (Code::Unknown, "boom".into(), "boom", 128),
            (
                Code::DeadlineExceeded,
                String::new(),
                "Request timed out",
                1,
            ),
        ];
        for (code, text, message, exit) in rows {
            let error = read(code, &text);
            assert_eq!(error.to_string(), message, "{text}");
            assert_eq!(error.exit(), exit, "{text}");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(error.is_silent());
        assert_eq!(error.exit(), 0);
    }

    #[test]
    fn a_missing_login_says_what_to_run() {
        let error = read(Code::Unauthenticated, &wire(401, "x"));
        assert_eq!(error.hint().as_deref(), Some("run `micro login`"));
    }

    #[test]
    fn commands_about_accounts_speak_plainly() {
        let error = read(Code::InvalidArgument, &wire(400, "secret not correct")).plainly();
        assert_eq!(
            (error.to_string().as_str(), error.exit()),
            ("Secret not correct", 1)
        );
    }
}
