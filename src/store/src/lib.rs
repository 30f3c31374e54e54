//! Records by key, and blobs: what a service keeps.
//!
//! **A database is a namespace.** The name of a database is the name of the namespace whose records
//! it holds, and there is one per namespace. Who may administer the namespace may use the database,
//! nobody else (`Caller::target_admin`): a service that says `micro`, as Micro's library does, or
//! nothing, means its own; the operator reaches the records of `foo` as the database `foo`. A name
//! that no namespace can have is refused. Services divide their records by *tables*, which may have
//! any name and come into being with the first write.
//!
//! A record may have a deadline. From then on it is not there, for any reader; its space is taken
//! back a little later, when watchers are told that it is gone.
//!
//! ```text
//! grpc ─► Handle ─► Database ─┬─► read, records, keys
//!                             ├─► Draft ─► one batch of storage
//!                             └─► Watching
//!                └► Bucket ─► rows of storage, and files
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `service.rs` | [`Service`] and [`Handle`] |
//! | `database.rs` | [`Database`]: reads and single changes |
//! | `query.rs` | [`Query`]: many records by prefix and suffix |
//! | `commit.rs` | [`Operation`]s that happen together, on conditions |
//! | `draft.rs` | changes of records → changes of rows |
//! | `watch.rs` | [`Watching`]: records as they are, then as they change |
//! | `expiry.rs` | taking back the space of what has expired |
//! | `record.rs`, `place.rs` | the bytes of a record and of its keys |
//! | `tables.rs` | the tables that there are |
//! | `blobs.rs` | [`Bucket`]: the blobs of a namespace |
//! | `grpc.rs`, `grpc/` | `store.Store` and `store.BlobStore` for Micro's clients |

mod blobs;
mod commit;
mod database;
mod draft;
mod error;
mod expiry;
mod grpc;
mod place;
mod query;
mod record;
mod service;
mod tables;
mod watch;

pub use blobs::{BlobInfo, BlobOptions, Bucket, Upload};
pub use commit::{Change, Condition, Operation};
pub use database::{Database, Write};
pub use error::Error;
pub use grpc::{BlobRpc, Rpc};
pub use query::Query;
pub use record::{Field, Metadata, Record};
pub use service::{Handle, Service, Settings};
pub use watch::{Event, Watching};
