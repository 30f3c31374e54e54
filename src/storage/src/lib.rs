//! Durable state. The only crate that opens databases; everyone else asks it.
//!
//! | file | owns |
//! |---|---|
//! | `storage.rs` | [`Storage`]: the node's state, opened once; [`Options`] |
//! | `space.rs` | [`Space`]: what one namespace sees of it: rows, scans, leases, usage |
//! | `batch.rs` | [`Batch`]: changes that happen together, or not at all |
//! | `watch.rs` | [`Watch`]: the changes below a prefix, as they are committed |
//! | `topic.rs` | [`Topic`]: an ordered log of entries, read by offset |
//! | `engine.rs` | [`Engine`]: what the handles above need of whatever keeps the state |
//! | `local.rs` | the engine of one machine: log, memtable, redb, topic files |
//! | `log.rs` | the commit log: one write and one sync for all that waited |
//! | `disk.rs` | what the log and the topics ask of a file system, so that tests can take it away |
//! | `blobs.rs` | [`Blobs`]: large values, streamed into files of their own |
//! | `record.rs` | the bytes of a batch, as the log keeps them |
//! | `sqlite.rs` | [`Sqlite`]: what is queried (accounts, rules, releases); one writer, WAL |
//! | `file.rs` | [`write_atomic`]: a small file that is either old or new, never half |
//! | `error.rs` | what can go wrong |
//! | `wait.rs` | waiting for an answer on a thread without a runtime |
//!
//! One promise holds everywhere: **a write that was acknowledged has been synced**. A crash of the
//! process or of the machine after the acknowledgement loses nothing.

mod batch;
mod blobs;
mod disk;
mod engine;
mod error;
mod file;
mod local;
mod log;
mod record;
mod space;
mod sqlite;
mod storage;
mod topic;
mod topics;
mod wait;
mod watch;

pub use batch::{Batch, Expect, Receipt};
pub use blobs::{BlobId, BlobReader, BlobWriter, Blobs, InvalidBlobId};
pub use engine::{Answer, Engine, Usage};
pub use error::Error;
pub use file::write_atomic;
pub use record::{Expectation, Writes};
pub use rusqlite;
pub use space::{Range, Revision, Row, Space};
pub use sqlite::Sqlite;
pub use storage::{Options, Report, Storage};
pub use topic::{Bounds, Entry, Topic};
pub use watch::{Change, Watch, WatchEnd};
