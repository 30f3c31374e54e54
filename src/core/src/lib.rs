//! The ground every other crate stands on: identifiers, callers, faults, time, sizes, settings and
//! the layout of the state directory. It knows no protocol and opens no service.
//!
//! | file | owns |
//! |---|---|
//! | `id.rs` | checked names: [`Namespace`], [`ServiceName`], [`AccountId`], … |
//! | `caller.rs` | who is calling, and what that caller may administer |
//! | `fault.rs` | the one table from error kinds to gRPC, HTTP and exit codes |
//! | `clock.rs` | time that tests can move |
//! | `size.rs` | byte sizes and durations as people write them |
//! | `settings.rs` | `micro.toml` < environment < flags, with the origin of each value |
//! | `state_dir.rs` | where everything lives on disk |

pub mod caller;
pub mod clock;
pub mod fault;
pub mod id;
pub mod settings;
pub mod size;
pub mod state_dir;

pub use caller::{Account, Caller};
pub use clock::{Clock, Timestamp};
pub use fault::{Fault, Kind, WireError};
pub use id::{AccountId, InstanceId, Namespace, ServiceName, Version};
pub use settings::Settings;
pub use size::{ByteSize, Span};
pub use state_dir::StateDir;
