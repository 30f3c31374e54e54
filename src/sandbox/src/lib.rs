//! Processes behind fences: the supervisor, the init of each instance, and the node's handle on both.
pub mod client;
mod error;
mod spec;
mod sys;
mod wire;

pub use client::{Hello, Supervisor};
pub use error::Error;
pub use spec::{Event, Exit, Limits, Mount, Running, Source, Spec, SpecKind, Toolchain};
