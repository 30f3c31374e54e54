//! The gRPC doors: the identity proxy for people and machines, and the mesh for services. They
//! accept HTTP/2 without TLS, take a request's path apart and leave the rest to the pipeline.
//!
//! | file | owns |
//! |---|---|
//! | `accept.rs` | [`serve`]: the accept loop and the end of it |
//! | `connection.rs` | one connection: what it speaks, its limits, its goodbye |
//! | `call.rs` | one call: path → admission → forwarding |

mod accept;
mod call;
mod connection;

pub use accept::serve;
