//! Processes behind fences: the supervisor, the init of each instance, and the node's handle on both.
//!
//! ```text
//! micro server (supervisor) ─┬─ socket ── micro __node          Supervisor, Hello, Event
//!   root, one thread         │            unprivileged, tokio
//!                            └─ exec ──── micro __init ── service
//!                                         one per instance, outlives both
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `spec.rs` | what the node asks for: plain data |
//! | `client.rs` | the node's async handle |
//! | `wire.rs` | the frames between the two |
//! | `credentials.rs` | what systemd keeps for root, handed on to the node |
//! | `supervisor.rs` | sockets, state directory, instances; checks every request again (`supervisor/policy.rs`) |
//! | `plan.rs` | what the supervisor decided for one instance |
//! | `init.rs` | the parent of one instance: logs, exit record, control socket |
//! | `isolation.rs` | the list of steps into the sandbox |
//! | `seccomp.rs` | which system calls there are inside, as a reviewed table |
//! | `cgroup.rs` | limits on memory, processes and CPU |
//! | `tree.rs` | directories that somebody else writes to |
//! | `sys.rs` | all `unsafe` code of Micro |
//!
//! The network inside is the host's: what a service may reach there is the business of the doors.

mod cgroup;
pub mod client;
mod credentials;
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
pub use credentials::Credentials;
pub use error::Error;
pub use spec::{Event, Exit, Limits, Mount, Running, Source, Spec, SpecKind, Toolchain};
pub use sys::settle;
