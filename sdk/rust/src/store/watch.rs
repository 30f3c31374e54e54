//! Records as they are, then as they change, across restarts of the platform.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};

use serde::de::DeserializeOwned;

use super::{Record, table::decode};
use crate::{
    Mesh, call,
    feed::{Feed, Items, Opening, Source, stream_of_feed},
    wire::store::{Kind, WatchRequest, WatchResponse},
};

/// What a [`Watch`] tells.
///
/// ```no_run
/// # fn example(change: micro_sdk::store::Change<u64>) {
/// use micro_sdk::store::Change;
///
/// match change {
///     Change::Written(record) => println!("{} is {}", record.key, record.value),
///     Change::Deleted { key } => println!("{key} is gone"),
///     Change::Current => println!("that is all there is now"),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<T> {
    /// A record as it is, or as it was just written.
    Written(Record<T>),
    /// A record was deleted, or has expired.
    Deleted {
        /// Its key.
        key: String,
    },
    /// Every record as it is has been told; what follows are changes. Told once.
    Current,
}

/// The records below a prefix as they are, then [`Change::Current`], then each change.
///
/// It survives restarts of the platform: it connects again and tells what became of the records
/// meanwhile, deleted ones included, so that whoever keeps a copy has the right one. Several changes
/// of one record during an outage may be one. For this it remembers the keys, not the values. A value
/// that is no `T` is an error of kind [`Invalid`](crate::Kind::Invalid), after which it goes on.
///
/// ```no_run
/// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
/// use micro_sdk::store::Change;
///
/// let mut copy = std::collections::BTreeMap::new();
/// let mut changes = counters.watch("");
/// while let Some(change) = changes.next().await {
///     match change? {
///         Change::Written(record) => drop(copy.insert(record.key, record.value)),
///         Change::Deleted { key } => drop(copy.remove(&key)),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Watch<T> {
    feed: Feed<Change<T>>,
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("store::Watch")
    }
}

impl<T: DeserializeOwned + Send + 'static> Watch<T> {
    pub(super) fn new(mesh: Mesh, table: &str, prefix: &str) -> Self {
        Self {
            feed: Feed::new(Watching {
                mesh,
                request: WatchRequest {
                    database: String::new(),
                    table: table.to_owned(),
                    prefix: prefix.to_owned(),
                    changes_only: false,
                },
                known: BTreeMap::new(),
                unseen: None,
                is_current: false,
                value: PhantomData,
            }),
        }
    }
}

stream_of_feed! {
    /// The next change. Can be dropped and asked again; nothing is lost by that.
    ///
    /// ```no_run
    /// # async fn example(mut watch: micro_sdk::store::Watch<u64>) {
    /// let change = watch.next().await;
    /// # }
    /// ```
    Watch<T> => Change<T>
}

struct Watching<T> {
    mesh: Mesh,
    request: WatchRequest,
    /// What the user was told: keys and revisions.
    known: BTreeMap<String, u64>,
    /// While records are read again: those that have not been seen, and so may be gone.
    unseen: Option<BTreeSet<String>>,
    /// The user was told [`Change::Current`].
    is_current: bool,
    value: PhantomData<fn() -> T>,
}

impl<T> Watching<T> {
    fn begin_again(&mut self) {
        self.unseen = Some(self.known.keys().cloned().collect());
    }
}

impl<T: DeserializeOwned + Send + 'static> Source for Watching<T> {
    type Message = WatchResponse;
    type Item = Change<T>;

    fn what(&self) -> String {
        format!("watch table {}", self.request.table)
    }

    fn open(&mut self) -> Opening<WatchResponse> {
        self.begin_again();
        let (mesh, request) = (self.mesh.clone(), self.request.clone());
        Box::pin(async move {
            let messages = call::stream(&mesh, "/store.Store/Watch", request).await?;
            Ok(Box::pin(messages) as _)
        })
    }

    fn take(&mut self, message: WatchResponse, items: &mut Items<Change<T>>) {
        let kind = message.kind();
        match (kind, message.record) {
            (Kind::Written, Some(record)) => {
                if let Some(unseen) = &mut self.unseen {
                    unseen.remove(&record.key);
                }
                let known = self.known.insert(record.key.clone(), record.revision);
                if known != Some(record.revision) {
                    let record = decode(&self.request.table, record);
                    items.push_back(record.map(Change::Written));
                }
            }
            (Kind::Deleted, Some(record)) => {
                if let Some(unseen) = &mut self.unseen {
                    unseen.remove(&record.key);
                }
                if self.known.remove(&record.key).is_some() {
                    items.push_back(Ok(Change::Deleted { key: record.key }));
                }
            }
            (Kind::Current, _) => {
                for key in self.unseen.take().unwrap_or_default() {
                    self.known.remove(&key);
                    items.push_back(Ok(Change::Deleted { key }));
                }
                if !self.is_current {
                    self.is_current = true;
                    items.push_back(Ok(Change::Current));
                }
            }
            (Kind::Reset, _) => self.begin_again(),
            (Kind::Written | Kind::Deleted, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::store;

    struct Told {
        watching: Watching<u32>,
    }

    impl Told {
        fn new() -> Self {
            let mut watching = Watching {
                mesh: crate::mesh(),
                request: WatchRequest::default(),
                known: BTreeMap::new(),
                unseen: None,
                is_current: false,
                value: PhantomData,
            };
            watching.begin_again();
            Self { watching }
        }

        /// What the user is told of a message, in short.
        fn of(&mut self, kind: Kind, key: &str, revision: u64) -> Vec<String> {
            let mut items = Items::new();
            let record = store::Record {
                key: key.to_owned(),
                value: "7".into(),
                expiry: 0,
                revision,
            };
            let message = WatchResponse {
                kind: kind.into(),
                record: Some(record),
            };
            self.watching.take(message, &mut items);
            let short = |change| match change {
                Change::Written(record) => format!("{}@{}", record.key, record.revision),
                Change::Deleted { key } => format!("-{key}"),
                Change::Current => "current".to_owned(),
            };
            items.into_iter().map(|item| short(item.unwrap())).collect()
        }
    }

    #[test]
    fn a_new_connection_tells_only_what_became_of_the_records_meanwhile() {
        let mut told = Told::new();
        assert_eq!(told.of(Kind::Written, "a", 1), ["a@1"]);
        assert_eq!(told.of(Kind::Written, "b", 2), ["b@2"]);
        assert_eq!(told.of(Kind::Written, "c", 3), ["c@3"]);
        assert_eq!(told.of(Kind::Current, "", 0), ["current"]);
        assert_eq!(told.of(Kind::Written, "a", 4), ["a@4"]);

        // The platform restarts: b was changed, c deleted, d is new.
        told.watching.begin_again();
        assert!(told.of(Kind::Written, "a", 4).is_empty());
        assert_eq!(told.of(Kind::Written, "b", 6), ["b@6"]);
        assert_eq!(told.of(Kind::Written, "d", 7), ["d@7"]);
        assert_eq!(told.of(Kind::Current, "", 0), ["-c"]);
        assert_eq!(told.of(Kind::Deleted, "b", 8), ["-b"]);
        assert!(told.of(Kind::Deleted, "b", 8).is_empty());
    }

    #[test]
    fn missed_changes_are_made_up_for() {
        let mut told = Told::new();
        told.of(Kind::Written, "a", 1);
        told.of(Kind::Current, "", 0);
        assert!(told.of(Kind::Reset, "", 0).is_empty());
        assert_eq!(told.of(Kind::Current, "", 0), ["-a"]);
    }
}
