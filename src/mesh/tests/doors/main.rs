//! The gRPC doors with real sockets on both sides: a tonic backend behind them, a tonic or a bare
//! HTTP/2 client before them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

mod backend;
mod balance;
mod builtins;
mod calls;
mod connections;
mod fixture;
mod json;
mod permission;
mod raw;
