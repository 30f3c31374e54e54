//! Rows that are committed and not yet in the index: an ordered map in memory.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::Revision;

/// What an entry costs beyond its bytes: the node of the map, the handles, the allocations.
const OVERHEAD: u64 = 160;

/// Rows by full key. A row that was deleted stays as a mark, because the index may still have it.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    rows: BTreeMap<Bytes, Slot>,
    weight: u64,
}

/// The last that happened to a row.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// `None` when it was deleted.
    pub(crate) value: Option<Bytes>,
    pub(crate) revision: Revision,
}

impl Memtable {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.rows.get(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes that were written since it was empty. Rows are slices of whole records, which stay as
    /// long as any row in them does; so what was overwritten counts too, and the sum bounds the
    /// memory as well as the part of the log that recovery reads.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Counts an entry of a topic, which lies elsewhere, but leaves memory at the same moment.
    pub(crate) fn weigh_entry(&mut self, bytes: usize) {
        self.weight = self.weight.saturating_add(bytes as u64 + OVERHEAD);
    }

    /// Gives what was there.
    pub(crate) fn set(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        revision: Revision,
    ) -> Option<Slot> {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        self.weight = self.weight.saturating_add(bytes as u64 + OVERHEAD);
        self.rows.insert(key, Slot { value, revision })
    }

    /// In the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Slot)> {
        self.rows.iter()
    }

    /// The part between two keys; the caller has made sure that they are in order.
    pub(crate) fn range<'a>(
        &'a self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Slot)> + use<'a> {
        self.rows.range::<[u8], _>(bounds)
    }
}
