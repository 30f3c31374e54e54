//! Config on a real disk: as clients see it, and what becomes of its keys and its history.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod grpc;
mod history;
mod node;
mod rotation;
