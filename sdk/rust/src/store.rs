//! Records by key, in tables: values of a type of yours, kept as JSON.
//!
//! ```no_run
//! use micro_sdk::{Kind, serde::{Deserialize, Serialize}, store::Table};
//!
//! #[derive(Serialize, Deserialize)]
//! # #[serde(crate = "micro_sdk::serde")]
//! struct Note {
//!     text: String,
//! }
//!
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! let notes: Table<Note> = micro_sdk::mesh().store().table("notes");
//! notes.put("a", &Note { text: "first".into() }).await?;
//!
//! // Change it only if nobody else did since it was read.
//! if let Some(mut note) = notes.get("a").await? {
//!     note.value.text.push_str(", longer");
//!     match notes.update("a", &note.value, note.revision).await {
//!         Err(error) if error.kind() == Kind::Conflict => { /* read it again, decide anew */ }
//!         result => println!("now at revision {}", result?),
//!     }
//! }
//! for note in notes.list().prefix("a").limit(20).records().await? {
//!     println!("{}: {}", note.key, note.value.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A write is on disk when it returns. Tables belong to the namespace and are shared by its
//! services; a name is at most 255 bytes, a key 3584. What is larger than a few MiB belongs into
//! [`blobs`](crate::blobs).

mod batch;
mod query;
mod table;
mod watch;

use serde::{Serialize, de::DeserializeOwned};

use crate::Mesh;

pub use self::{
    batch::Batch,
    query::Query,
    table::{Record, Table},
    watch::{Change, Watch},
};

/// The records of the service's namespace. Made by [`Mesh::store`]; clones are cheap.
///
/// ```no_run
/// let store = micro_sdk::mesh().store();
/// ```
#[derive(Debug, Clone)]
pub struct Store {
    mesh: Mesh,
}

impl Store {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// A table of values of one type. It need not be made first.
    ///
    /// ```no_run
    /// let counters = micro_sdk::mesh().store().table::<u64>("counters");
    /// ```
    pub fn table<T: Serialize + DeserializeOwned>(&self, name: impl Into<String>) -> Table<T> {
        Table::new(self.mesh.clone(), name.into())
    }

    /// Several changes, in any tables, that happen together or not at all.
    ///
    /// ```no_run
    /// # async fn example(store: micro_sdk::store::Store) -> Result<(), micro_sdk::Error> {
    /// let counters = store.table::<u64>("counters");
    /// let names = store.table::<String>("names");
    /// store
    ///     .batch()
    ///     .put(&counters, "notes", &1)
    ///     .create(&names, "notes", &"Notes".to_owned())
    ///     .commit()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch {
        Batch::new(self.mesh.clone())
    }
}
