//! Settings that services read and people change while everything runs: one JSON document for each
//! namespace, with secrets in it that are encrypted on the disk.
//!
//! - A change is durable when it is answered, raises the version of the document by one, and leaves
//!   an entry in the history from which the document before it can be made again.
//! - A secret is encrypted leaf by leaf, before it comes near storage, with a key that is not in
//!   the database. Documents, history and log hold ciphertext only.
//! - Readers of an unchanged document parse nothing: it is kept in memory, under the revision that
//!   it has on the disk.
//!
//! | file | owns |
//! |---|---|
//! | `path.rs` | dotted paths |
//! | `document.rs` | the tree: merge, remove, write as JSON, differences. Pure |
//! | `record.rs` | the tree and the history as bytes |
//! | `secrets.rs` | a key and what is encrypted with it |
//! | `keys.rs` | where keys come from, and the file that holds them while they change |
//! | `service.rs` | [`Service`] and [`Handle`]: reads and changes |
//! | `history.rs` | who changed what, and the way back |
//! | `rotation.rs` | a new key for everything |
//! | `watch.rs` | a value, and each time it changes |
//! | `grpc.rs` | `config.Config` for Micro's clients |

mod document;
mod error;
mod grpc;
mod history;
mod keys;
mod path;
mod record;
mod rotation;
mod secrets;
mod service;
mod watch;

pub use error::Error;
pub use grpc::Rpc;
pub use history::{Action, Entry};
pub use keys::KeySource;
pub use service::{Handle, Secrets, Service};
pub use watch::{Seen, Watch};
