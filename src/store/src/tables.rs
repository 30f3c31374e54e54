//! The tables that there are. A table is noted with the first write to it, in the same batch; what is
//! noted is remembered here, so that later writes neither read nor write it again.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use micro_core::Namespace;
use micro_storage::{Range, Space};

use crate::{Error, place::TABLES};

/// Tables that are remembered; more are looked up each time.
const REMEMBERED: usize = 50_000;
const FORMAT: u8 = 1;
const EXPIRING: u8 = 1;
const PAGE: usize = 1024;

/// What is remembered of the tables of all namespaces.
#[derive(Default)]
pub(crate) struct Tables {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Whether records of the table have deadlines, or had.
    expiring: HashMap<Namespace, HashMap<Box<str>, bool>>,
    count: usize,
}

impl Tables {
    /// Whether records of `table` may have deadlines; `None` when there is no such table.
    pub(crate) fn is_expiring(&self, space: &Space, table: &str) -> Result<Option<bool>, Error> {
        if let Some(expiring) = self.remembered(space.namespace(), table) {
            return Ok(Some(expiring));
        }
        let Some(row) = space.get(TABLES, table.as_bytes())? else {
            return Ok(None);
        };
        let expiring = match *row.value {
            [FORMAT, flags] => flags & EXPIRING != 0,
            [format, ..] => {
                return Err(micro_storage::Error::Format {
                    table: TABLES,
                    format,
                }
                .into());
            }
            [] => return Err(Error::Broken),
        };
        self.learn(space.namespace(), table, expiring);
        Ok(Some(expiring))
    }

    fn remembered(&self, namespace: &Namespace, table: &str) -> Option<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.expiring.get(namespace)?.get(table).copied()
    }

    /// Remembers what is on disk. A table that has had deadlines keeps that mark for ever, so what is
    /// learned late does no harm.
    pub(crate) fn learn(&self, namespace: &Namespace, table: &str, expiring: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let is_full = known.count >= REMEMBERED;
        let Known {
            expiring: all,
            count,
        } = &mut *known;
        if let Some(known) = all.get_mut(namespace).and_then(|n| n.get_mut(table)) {
            *known |= expiring;
        } else if !is_full {
            let tables = all.entry(namespace.clone()).or_default();
            tables.insert(table.into(), expiring);
            *count += 1;
        }
    }
}

/// What is noted of a table.
pub(crate) const fn note(expiring: bool) -> [u8; 2] {
    [FORMAT, if expiring { EXPIRING } else { 0 }]
}

/// The names of the tables of a namespace, in order.
pub(crate) fn names(space: &Space) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut last: Option<Bytes> = None;
    loop {
        let mut range = Range::all().limit(PAGE).keys_only();
        if let Some(last) = &last {
            range = range.after(last);
        }
        let page = space.scan(TABLES, range)?;
        let is_last = page.len() < PAGE;
        last = page.last().map(|row| row.key.clone());
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        names.extend(page.iter().map(|row| text(&row.key)));
        if is_last {
            return Ok(names);
        }
    }
}
