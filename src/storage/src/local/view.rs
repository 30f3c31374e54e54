//! All rows at one moment: the active memtable over the frozen one over the index.

use std::{
    iter::Peekable,
    ops::Bound,
    sync::{Arc, RwLock},
};

use bytes::Bytes;

use super::{
    index::{self, Point, Rows},
    memtable::{Memtable, Slot},
};
use crate::{Error, Revision};

/// What readers see. The committer and the checkpoint change it in one step each.
pub(crate) struct View {
    /// Takes what is committed.
    pub(crate) active: Memtable,
    /// On its way into the index.
    pub(crate) frozen: Option<Arc<Memtable>>,
    /// `None` while the file cannot be opened.
    pub(crate) index: Option<Arc<Rows>>,
    /// How far `active` reaches.
    pub(crate) point: Point,
}

/// A row that was found, under its full key.
pub(crate) struct Found {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) revision: Revision,
}

/// A part of the key space.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// From this key on.
    pub(crate) from: Bound<Vec<u8>>,
    /// To before this one; `None` for the end.
    pub(crate) to: Option<Vec<u8>>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
    pub(crate) keys_only: bool,
}

impl View {
    /// The row as the memtables have it: `Some(None)` when they know that it was deleted.
    pub(crate) fn recent(&self, key: &[u8]) -> Option<Option<(Revision, &Bytes)>> {
        let slot = self
            .active
            .get(key)
            .or_else(|| self.frozen.as_ref()?.get(key))?;
        Some(slot.value.as_ref().map(|value| (slot.revision, value)))
    }
}

/// One row.
pub(crate) fn get(view: &RwLock<View>, key: &[u8]) -> Result<Option<(Revision, Bytes)>, Error> {
    let index = {
        let view = super::read(view);
        if let Some(known) = view.recent(key) {
            return Ok(known.map(|(revision, value)| (revision, value.clone())));
        }
        view.index.clone()
    };
    // Files are read without the lock: the committer never waits for one.
    let stored = index.ok_or(Error::Unreadable)?;
    match stored.get(key).map_err(Error::index)? {
        Some(row) => index::decode(row.value()).map(Some),
        None => Ok(None),
    }
}

/// The revision of one row; spares the copy of its value.
pub(crate) fn revision(view: &RwLock<View>, key: &[u8]) -> Result<Option<Revision>, Error> {
    let index = {
        let view = super::read(view);
        if let Some(known) = view.recent(key) {
            return Ok(known.map(|(revision, _)| revision));
        }
        view.index.clone()
    };
    let stored = index.ok_or(Error::Unreadable)?;
    match stored.get(key).map_err(Error::index)? {
        Some(row) => index::decode_ref(row.value()).map(|(revision, _)| Some(revision)),
        None => Ok(None),
    }
}

/// Rows in the order of their keys, as of one moment.
pub(crate) fn scan(view: &RwLock<View>, span: &Span) -> Result<Vec<Found>, Error> {
    if span.limit == 0 || span.is_empty() {
        return Ok(Vec::new());
    }
    let (active, frozen, index) = {
        let view = super::read(view);
        // The index as it is now, together with the memtables as they are now, is one moment. Of the
        // active one no more is taken than can be given: every row in it that lives is one to give.
        (
            span.take(&view.active),
            view.frozen.clone(),
            view.index.clone(),
        )
    };
    let index = index.ok_or(Error::Unreadable)?;
    let stored = index.range::<&[u8]>(span.bounds()).map_err(Error::index)?;
    let mut stored = Stored {
        range: stored,
        reverse: span.reverse,
        head: None,
    };
    stored.advance()?;
    let mut active = active.into_iter().peekable();
    let mut frozen = frozen
        .iter()
        .flat_map(|memtable| directed(memtable.range(span.bounds()), span.reverse))
        .peekable();
    let mut found = Vec::new();
    while found.len() < span.limit {
        let Some(next) = nearest(&mut active, &mut frozen, &stored, span.reverse) else {
            break;
        };
        // The first source that has the key is the newest; the others only move on.
        let mut row = None;
        if let Some((key, slot)) = active.next_if(|(key, _)| *key == next) {
            row = Some((key, slot));
        }
        if let Some((key, slot)) = frozen.next_if(|(key, _)| **key == next) {
            row.get_or_insert_with(|| (key.clone(), slot.clone()));
        }
        if stored
            .head
            .as_ref()
            .is_some_and(|(key, _)| key.value() == &next[..])
        {
            let head = stored.head.take();
            if row.is_none()
                && let Some((_, value)) = head
            {
                let (revision, value) = index::decode_ref(value.value())?;
                let value = if span.keys_only {
                    Bytes::new()
                } else {
                    Bytes::copy_from_slice(value)
                };
                found.push(Found {
                    key: next,
                    value,
                    revision,
                });
            }
            stored.advance()?;
        }
        if let Some((key, slot)) = row
            && let Some(value) = slot.value
        {
            let value = if span.keys_only { Bytes::new() } else { value };
            found.push(Found {
                key,
                value,
                revision: slot.revision,
            });
        }
    }
    Ok(found)
}

/// The index's part of a scan, with the next row in hand.
struct Stored {
    range: redb::Range<'static, &'static [u8], &'static [u8]>,
    reverse: bool,
    head: Option<(Guard, Guard)>,
}

type Guard = redb::AccessGuard<'static, &'static [u8]>;

impl Stored {
    fn advance(&mut self) -> Result<(), Error> {
        let next = if self.reverse {
            self.range.next_back()
        } else {
            self.range.next()
        };
        self.head = next.transpose().map_err(Error::index)?;
        Ok(())
    }
}

impl Span {
    /// Everything that starts with `prefix`, behind `after` (a full key) in the direction asked for.
    pub(crate) fn new(prefix: Vec<u8>, after: Option<Vec<u8>>, reverse: bool) -> Self {
        let end = crate::record::after(&prefix);
        let (from, to) = match after {
            None => (Bound::Included(prefix), end),
            Some(after) if reverse => {
                let to = match end {
                    Some(end) if end <= after => end,
                    _ => after,
                };
                (Bound::Included(prefix), Some(to))
            }
            Some(after) if after < prefix => (Bound::Included(prefix), end),
            Some(after) => (Bound::Excluded(after), end),
        };
        Self {
            from,
            to,
            reverse,
            limit: usize::MAX,
            keys_only: false,
        }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = match &self.to {
            Some(to) => Bound::Excluded(to.as_slice()),
            None => Bound::Unbounded,
        };
        (self.from.as_ref().map(Vec::as_slice), to)
    }

    /// Maps panic when their bounds are the wrong way round.
    fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from) | Bound::Excluded(from), Some(to)) => from >= to,
            _ => false,
        }
    }

    /// The part of a memtable that this may give: up to `limit` rows that live, with all marks of
    /// deleted ones between.
    fn take(&self, memtable: &Memtable) -> Vec<(Bytes, Slot)> {
        let mut taken = Vec::new();
        let mut live = 0;
        for (key, slot) in directed(memtable.range(self.bounds()), self.reverse) {
            if live == self.limit {
                break;
            }
            live += usize::from(slot.value.is_some());
            taken.push((key.clone(), slot.clone()));
        }
        taken
    }
}

/// The next key of all sources.
fn nearest<'a>(
    active: &mut Peekable<impl Iterator<Item = (Bytes, Slot)>>,
    frozen: &mut Peekable<impl Iterator<Item = (&'a Bytes, &'a Slot)>>,
    stored: &Stored,
    reverse: bool,
) -> Option<Bytes> {
    let before = |a: &[u8], b: &[u8]| if reverse { a > b } else { a < b };
    let mut nearest = active.peek().map(|(key, _)| key.clone());
    if let Some((key, _)) = frozen.peek()
        && nearest.as_ref().is_none_or(|n| before(key, n))
    {
        nearest = Some(Bytes::clone(key));
    }
    if let Some((key, _)) = &stored.head
        && nearest.as_ref().is_none_or(|n| before(key.value(), n))
    {
        nearest = Some(Bytes::copy_from_slice(key.value()));
    }
    nearest
}

fn directed<'a, T: 'a>(
    range: impl DoubleEndedIterator<Item = T> + 'a,
    reverse: bool,
) -> Box<dyn Iterator<Item = T> + 'a> {
    if reverse {
        Box::new(range.rev())
    } else {
        Box::new(range)
    }
}
