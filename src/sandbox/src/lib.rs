//! Processes behind fences: the supervisor, the init of each instance, and the node's handle on both.
mod cgroup;
pub mod client;
mod error;
pub mod init;
mod isolation;
mod plan;
mod seccomp;
mod spec;
pub mod supervisor;
mod sys;
mod tree;
mod wire;

pub use client::{Hello, Supervisor};
pub use error::Error;
pub use spec::{Event, Exit, Limits, Mount, Running, Source, Spec, SpecKind, Toolchain};
