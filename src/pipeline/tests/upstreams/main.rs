//! What the gateway uses: calls that we make ourselves, and HTTP passed through, over real sockets.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod admission;
mod calls;
mod fixture;
mod http1;
