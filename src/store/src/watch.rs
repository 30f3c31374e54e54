//! Records as they are, then each change as it is made.
//!
//! The watch of storage begins before the records are read, so nothing is missed; what comes twice
//! through that is left out by looking at the record again: a change that is not the record's last
//! one is followed by a newer one, and that is the one to tell.

use std::collections::VecDeque;

use bytes::Bytes;
use micro_storage::{Change, Range, Revision, Watch, WatchEnd};

use crate::{
    Database, Error, Record,
    place::{self, RECORDS},
    record::{self, Stored},
};

/// Keys read ahead.
const PAGE: usize = 128;

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A record as it is, or as it was just written.
    Written(Record),
    /// A record was deleted, or has expired.
    Deleted {
        /// Its key.
        key: String,
        /// The commit that did it.
        revision: Revision,
    },
    /// Every record as it is has been told; what follows are changes.
    Current,
    /// Changes were missed. What follows is every record as it is, then [`Event::Current`].
    Reset,
}

/// The records below a prefix, watched.
#[derive(Debug)]
pub struct Watching {
    database: Database,
    prefix: Vec<u8>,
    watch: Watch,
    phase: Phase,
    /// Changes up to this one may be older than what was read.
    horizon: Revision,
}

#[derive(Debug)]
enum Phase {
    /// Changes were missed.
    Lost,
    /// Records are read.
    Reading {
        keys: VecDeque<Bytes>,
        last: Option<Bytes>,
        is_last: bool,
    },
    /// What was to be read has been told.
    Read,
    /// Changes are told.
    Following,
}

impl Phase {
    const fn reading() -> Self {
        Self::Reading {
            keys: VecDeque::new(),
            last: None,
            is_last: false,
        }
    }
}

impl Watching {
    pub(crate) fn new(database: Database, prefix: Vec<u8>, changes_only: bool) -> Self {
        Self {
            watch: database.space.watch(RECORDS, &prefix),
            database,
            prefix,
            phase: if changes_only {
                Phase::Read
            } else {
                Phase::reading()
            },
            horizon: Revision(0),
        }
    }

    /// What comes next. Can be dropped and asked again; nothing is lost by that.
    ///
    /// # Errors
    /// `Unavailable` when the server stops; `Internal` when a record cannot be read.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            match &mut self.phase {
                Phase::Lost => {
                    self.watch = self.database.space.watch(RECORDS, &self.prefix);
                    self.phase = Phase::reading();
                    return Ok(Event::Reset);
                }
                Phase::Reading { keys, is_last, .. } => {
                    if let Some(key) = keys.pop_front() {
                        if let Some(record) = self.read(&key)? {
                            self.horizon = self.horizon.max(record.revision);
                            return Ok(Event::Written(record));
                        }
                    } else if *is_last {
                        self.horizon = self.horizon.max(self.database.shared.storage.revision());
                        self.phase = Phase::Read;
                    } else {
                        self.read_ahead()?;
                        tokio::task::yield_now().await;
                    }
                }
                Phase::Read => {
                    self.phase = Phase::Following;
                    return Ok(Event::Current);
                }
                Phase::Following => {
                    if let Some(event) = self.follow().await? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    fn read(&self, place: &[u8]) -> Result<Option<Record>, Error> {
        match self.database.space.get(RECORDS, place)? {
            Some(row) => record::alive(row, self.database.shared.clock.now()),
            None => Ok(None),
        }
    }

    fn read_ahead(&mut self) -> Result<(), Error> {
        if let Phase::Reading {
            keys,
            last,
            is_last,
        } = &mut self.phase
        {
            let mut range = Range::prefix(&self.prefix).limit(PAGE).keys_only();
            if let Some(last) = last {
                range = range.after(last);
            }
            let page = self.database.space.scan(RECORDS, range)?;
            *is_last = page.len() < PAGE;
            keys.extend(page.into_iter().map(|row| row.key));
            *last = keys.back().cloned();
        }
        Ok(())
    }

    async fn follow(&mut self) -> Result<Option<Event>, Error> {
        let change = tokio::select! {
            biased;
            () = self.database.shared.stopped.cancelled() => return Err(Error::WatchEnded),
            change = self.watch.next() => change,
        };
        match change {
            Ok(change) if change.revision <= self.horizon && !self.is_last(&change)? => Ok(None),
            Ok(change) => self.event(change).map(Some),
            Err(WatchEnd::Lagged) => {
                self.phase = Phase::Lost;
                Ok(None)
            }
            Err(WatchEnd::Closed) => Err(Error::WatchEnded),
        }
    }

    /// Whether nothing has happened to the record since.
    fn is_last(&self, change: &Change) -> Result<bool, Error> {
        let row = self.database.space.get(RECORDS, &change.key)?;
        Ok(match (row, &change.value) {
            (Some(row), Some(_)) => row.revision == change.revision,
            (None, None) => true,
            _ => false,
        })
    }

    fn event(&self, change: Change) -> Result<Event, Error> {
        let now = self.database.shared.clock.now();
        if let Some(value) = change.value {
            let stored = Stored::decode(value)?;
            if !stored.is_over(now) {
                let record = stored.record(&change.key, change.revision)?;
                return Ok(Event::Written(record));
            }
        }
        let (_, key) = place::parts(&change.key).ok_or(Error::Broken)?;
        Ok(Event::Deleted {
            key: key.to_owned(),
            revision: change.revision,
        })
    }
}
