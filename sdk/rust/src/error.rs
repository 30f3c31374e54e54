//! What can go wrong with a service as a whole. (What goes wrong with one call is a
//! [`Status`](tonic::Status).)

use std::fmt;

/// Why a service could not start or had to stop.
///
/// `Debug` prints the same sentences as `Display`, because `fn main() -> Result<(), Error>` shows
/// that one to people.
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
            Self::Port { .. } => None,
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
