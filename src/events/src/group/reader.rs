//! Reading a topic for a group: a page of new events, or events that are to be delivered again.

use micro_storage::{Entry, Topic};
use tokio::task::JoinHandle;

use crate::Error;

/// Bytes of one page, about.
const PAGE: usize = 512 << 10;

/// A page that is being read by another thread.
pub(super) type Reading = JoinHandle<Result<Page, Error>>;

/// What to read.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    /// These, again.
    Again(Vec<u64>),
    /// So many from there on.
    Fresh(u64, usize),
}

/// What was read.
#[derive(Debug)]
pub(super) enum Page {
    /// `None` for one that the topic does not keep any more.
    Again(Vec<(u64, Option<Entry>)>),
    /// Asked from that offset on. Empty only when nothing is kept from there on.
    Fresh(u64, Vec<Entry>),
}

impl Plan {
    /// Whether it needs no file.
    pub(super) fn is_recent(&self, topic: &Topic) -> bool {
        match self {
            Self::Again(offsets) => offsets.first().is_none_or(|from| topic.is_recent(*from)),
            Self::Fresh(from, _) => topic.is_recent(*from),
        }
    }

    pub(super) fn read(self, topic: &Topic) -> Result<Page, Error> {
        match self {
            Self::Fresh(from, entries) => Ok(Page::Fresh(from, topic.read(from, entries, PAGE)?)),
            Self::Again(offsets) => {
                let mut found = Vec::with_capacity(offsets.len());
                let mut bytes = 0;
                for offset in offsets {
                    let entry = one(topic, offset)?;
                    bytes += entry.as_ref().map_or(0, |entry| entry.value.len());
                    found.push((offset, entry));
                    if bytes >= PAGE {
                        break;
                    }
                }
                Ok(Page::Again(found))
            }
        }
    }
}

/// The entry at `offset`, if it is kept.
pub(super) fn one(topic: &Topic, offset: u64) -> Result<Option<Entry>, Error> {
    let entry = topic.read(offset, 1, 1)?.into_iter().next();
    Ok(entry.filter(|entry| entry.offset == offset))
}

/// The end of the reading under way; never without one.
pub(super) async fn ended(reading: &mut Option<Reading>) -> Result<Page, Error> {
    match reading {
        Some(reading) => reading.await.unwrap_or(Err(Error::Stopping)),
        None => std::future::pending().await,
    }
}
