//! Who runs where, and what they offer.
//!
//! Two kinds of registrations meet here. Instances that the platform runs are announced and
//! withdrawn by it and live in memory only, because the platform announces them again when it
//! starts. Services that register themselves (Micro's Go services, and services run by hand) renew
//! their registration before its time to live is over; they are kept on disk, so that a restart of
//! the node forgets nobody.
//!
//! Readers take a [`Snapshot`] or follow its changes; Micro's clients ask over gRPC.
//!
//! | file | owns |
//! |---|---|
//! | `model.rs` | [`Registration`], [`Snapshot`] and their parts |
//! | `state.rs` | the table in memory: what a registration, a departure or the time changes |
//! | `durable.rs` | self-registrations on disk |
//! | `service.rs` | [`Service`] and [`Handle`]: disk first, then memory, then whoever follows |
//! | `address.rs` | the address that a node says it has → the address that we dial |
//! | `grpc.rs`, `convert.rs` | `registry.Registry` for Micro's clients |

mod address;
mod convert;
mod durable;
mod error;
mod grpc;
mod model;
mod service;
mod state;

pub use error::Error;
pub use grpc::Rpc;
pub use model::{Entry, Node, Protocol, Registration, Snapshot};
pub use service::{Handle, Service};
