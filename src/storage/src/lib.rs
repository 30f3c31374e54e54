//! Durable state. The only crate that opens databases; everyone else asks it.
//!
//! Two engines, each for what it does well, and one helper for small files:
//!
//! | file | owns |
//! |---|---|
//! | `sqlite.rs` | [`Sqlite`]: what is queried (accounts, rules, releases); one writer, WAL |
//! | `keys.rs` | [`Keys`]: what is read by key or prefix (registrations); redb, group commit |
//! | `file.rs` | [`write_atomic`]: a small file that is either old or new, never half |
//! | `error.rs` | what can go wrong |
//! | `wait.rs` | waiting for an answer on a thread without a runtime |
//!
//! One promise holds everywhere: **a write that was acknowledged has been synced**. A crash of the
//! process or of the machine after the acknowledgement loses nothing.

mod disk;
mod error;
mod file;
mod keys;
mod log;
mod sqlite;
mod wait;

pub use error::Error;
pub use file::write_atomic;
pub use keys::{Change, Keys, Pair, Table};
pub use rusqlite;
pub use sqlite::Sqlite;
