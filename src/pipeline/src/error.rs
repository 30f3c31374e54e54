//! What can go wrong between a door and an instance.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use micro_core::{Fault, Kind, WireError};

/// The speaker of errors that forwarding itself makes, as in Micro (contract §3.4).
pub(crate) const SPEAKER: &str = "go.micro.client";

/// A failure of forwarding, as opposed to an answer of the service.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The service is known but nothing of it runs.
    #[error("service {service}: no instance is running")]
    NoInstance {
        /// The service.
        service: String,
    },
    /// No instance took the connection. The words `connection refused` make Micro's clients try again.
    #[error("service {service}: cannot reach {address}: {reason}")]
    Unreachable {
        /// The service.
        service: String,
        /// The instance that was tried last.
        address: SocketAddr,
        /// What the system said.
        reason: Arc<str>,
    },
    /// The connection broke after the request was sent, so nobody knows what became of it.
    #[error("service {service}: the connection to {address} broke before the answer: {reason}")]
    Broken {
        /// The service.
        service: String,
        /// The instance.
        address: SocketAddr,
        /// What the protocol said.
        reason: Arc<str>,
    },
    /// The instance ended the stream itself.
    #[error("service {service}: {address} reset the stream: {reason}")]
    Reset {
        /// The service.
        service: String,
        /// The instance.
        address: SocketAddr,
        /// The HTTP/2 reason.
        reason: Arc<str>,
        /// What kind of failure that reason means to gRPC.
        kind: Kind,
    },
    /// The answer is no gRPC, or gRPC that breaks off.
    #[error("service {service}: the answer is not complete gRPC: {reason}")]
    NotGrpc {
        /// The service.
        service: String,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The caller's time was up.
    #[error("service {service}: no answer within {}", span(*.after))]
    Timeout {
        /// The service.
        service: String,
        /// How long was waited.
        after: Duration,
    },
    /// A single message above the limit.
    #[error("a message of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// What was announced.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A message that cannot be translated.
    #[error("cannot translate the {what} of {endpoint}: {reason}")]
    Translate {
        /// `request` or `response`.
        what: &'static str,
        /// The endpoint.
        endpoint: String,
        /// The schema's words.
        reason: String,
        /// Whose fault it is.
        kind: Kind,
    },
    /// A compressed message where it has to be translated.
    #[error("a compressed message cannot be translated between JSON and protobuf")]
    Compressed,
    /// The caller's own body broke off.
    #[error("the request broke off: {reason}")]
    Caller {
        /// What happened to it.
        reason: Arc<str>,
    },
    /// A gRPC call to a service that speaks HTTP, or the other way round.
    #[error("service {service} speaks {speaks}, not {asked}")]
    Protocol {
        /// The service.
        service: String,
        /// What it speaks.
        speaks: &'static str,
        /// What it was asked in.
        asked: &'static str,
    },
}

fn span(after: Duration) -> String {
    if after.subsec_millis() == 0 {
        format!("{} s", after.as_secs())
    } else {
        format!("{} ms", after.as_millis())
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NoInstance { .. } | Self::Unreachable { .. } | Self::Broken { .. } => {
                Kind::Unavailable
            }
            Self::Reset { kind, .. } | Self::Translate { kind, .. } => *kind,
            Self::NotGrpc { .. } => Kind::Internal,
            Self::Timeout { .. } => Kind::Timeout,
            Self::TooLarge { .. } => Kind::Exhausted,
            Self::Compressed | Self::Protocol { .. } => Kind::Unimplemented,
            Self::Caller { .. } => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoInstance { service } => Some(format!(
                "`micro status {service}` shows why, `micro logs {service}` what it said last"
            )),
            Self::Compressed => Some("send it uncompressed".into()),
            Self::Protocol { speaks: "HTTP", .. } => {
                Some("call it through the HTTP gateway".into())
            }
            _ => None,
        }
    }
}

impl Error {
    /// The error as Micro writes it.
    pub fn to_wire(&self) -> WireError {
        WireError::of(SPEAKER, self)
    }
}
