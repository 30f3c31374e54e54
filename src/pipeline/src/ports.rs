//! What the pipeline asks of others, and the small words it shares with the doors.

use std::{fmt, net::SocketAddr, sync::Arc};

use micro_core::{Account, Namespace};

/// Turns a token into the account it proves.
pub trait Identity: Send + Sync {
    /// The account behind `token`; `None` for a token that proves nothing (wrong, expired, foreign).
    /// Called on the path of every request: it must neither block nor wait.
    fn identify(&self, token: &str) -> Option<Arc<Account>>;
}

/// Decides who may call what.
pub trait Rules: Send + Sync {
    /// Whether `account` may call `endpoint` of `service` in `namespace`.
    /// Called on the path of every request: it must neither block nor wait.
    ///
    /// # Errors
    /// The refusal, without any detail that a stranger should not learn.
    fn verify(
        &self,
        account: Option<&Account>,
        namespace: &Namespace,
        service: &str,
        endpoint: &str,
    ) -> Result<(), Refusal>;
}

/// Why a call was refused by the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody in particular may do this: an account is needed.
    Unauthorized,
    /// This account may not do this.
    Forbidden,
}

/// Where a request came in. It decides how lenient identity is and how errors are worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// HTTP, for the world.
    Gateway,
    /// gRPC, for the CLI and other machines.
    Proxy,
    /// gRPC, for the services of this node.
    Mesh,
}

impl Door {
    /// All doors, in the order of their metrics.
    pub const ALL: [Self; 3] = [Self::Gateway, Self::Proxy, Self::Mesh];

    /// The word for it in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Proxy => "proxy",
            Self::Mesh => "mesh",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an instance speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC over HTTP/2 without TLS.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// Who is at the other end of the door's connection. The gateway puts it into the extensions of a
/// request; forwarding tells the instance in `X-Forwarded-For` and `X-Forwarded-Proto`.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The remote address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}
