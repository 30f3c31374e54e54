//! Streams of events and the broker over real state in a temporary directory.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod broker;
mod grpc;
mod model;
mod node;
mod streams;
