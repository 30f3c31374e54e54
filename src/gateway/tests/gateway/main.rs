//! The gateway from outside: real connections, the real pipeline, real services behind it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod backend;
mod blobs;
mod calls;
mod edge;
mod node;
mod plain;
mod streams;
