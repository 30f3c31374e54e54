//! Where things are: names of tables and keys of rows.
//!
//! ```text
//! RECORDS   table · 0 · key               → record
//! TABLES    table                         → what is known of the table
//! EXPIRY    deadline u64 · table · 0 · key → nothing
//! BLOBS     key                           → what is known of the blob
//! ```
//! Deadlines are big-endian milliseconds, so that the rows of `EXPIRY` are in the order of time.

use micro_core::Timestamp;

use crate::Error;

/// Storage's table of records.
pub(crate) const RECORDS: &str = "store";
/// Storage's table of our tables.
pub(crate) const TABLES: &str = "store.tables";
/// Storage's table of deadlines.
pub(crate) const EXPIRY: &str = "store.expiry";
/// Storage's table of blobs.
pub(crate) const BLOBS: &str = "store.blobs";

/// What a table is called when nobody says.
const DEFAULT_TABLE: &str = "micro";
/// The longest name of a table, in bytes.
const MAX_TABLE: usize = 255;
/// The longest key, in bytes: with table and deadline it must fit into a key of storage.
pub(crate) const MAX_KEY: usize = 3584;

/// Between table and key; no table has it in its name.
const END: u8 = 0;
const DEADLINE: usize = size_of::<u64>();

/// The name of a table, checked.
pub(crate) fn table(name: &str) -> Result<&str, Error> {
    if name.is_empty() {
        return Ok(DEFAULT_TABLE);
    }
    if name.len() > MAX_TABLE || name.chars().any(char::is_control) {
        return Err(Error::Table {
            name: name.chars().take(80).collect(),
            limit: MAX_TABLE,
        });
    }
    Ok(name)
}

/// The row of a record in `table`, which is checked already.
pub(crate) fn record(table: &str, key: &str) -> Result<Vec<u8>, Error> {
    if key.is_empty() {
        return Err(Error::MissingKey);
    }
    if key.len() > MAX_KEY {
        return Err(Error::Key {
            size: key.len(),
            limit: MAX_KEY,
        });
    }
    Ok(prefix(table, key))
}

/// What the rows of records begin with whose keys begin with `key`.
pub(crate) fn prefix(table: &str, key: &str) -> Vec<u8> {
    let mut place = Vec::with_capacity(table.len() + 1 + key.len());
    place.extend_from_slice(table.as_bytes());
    place.push(END);
    place.extend_from_slice(key.as_bytes());
    place
}

/// Takes the row of a record apart: table and key.
pub(crate) fn parts(place: &[u8]) -> Option<(&str, &str)> {
    let end = place.iter().position(|byte| *byte == END)?;
    let (table, rest) = place.split_at_checked(end)?;
    Some((
        std::str::from_utf8(table).ok()?,
        std::str::from_utf8(rest.get(1..)?).ok()?,
    ))
}

/// The row that says that the record at `place` ends at `deadline`.
pub(crate) fn expiry(deadline: Timestamp, place: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(DEADLINE + place.len());
    let deadline = u64::try_from(deadline.0).unwrap_or(0);
    row.extend_from_slice(&deadline.to_be_bytes());
    row.extend_from_slice(place);
    row
}

/// Takes a row of deadlines apart.
pub(crate) fn expiry_parts(row: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (deadline, place) = row.split_first_chunk::<DEADLINE>()?;
    let deadline = i64::try_from(u64::from_be_bytes(*deadline)).ok()?;
    Some((Timestamp(deadline), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_apart_as_it_was_put_together() {
        let place = record("users", "a\0b/ü").unwrap();
        assert_eq!(parts(&place), Some(("users", "a\0b/ü")));
        let row = expiry(Timestamp(1_700_000_000_123), &place);
        assert_eq!(
            expiry_parts(&row),
            Some((Timestamp(1_700_000_000_123), place.as_slice()))
        );
        assert!(row < expiry(Timestamp(1_700_000_000_124), b""));
        assert_eq!(expiry_parts(b"short"), None);
    }

    #[test]
    fn names_that_could_run_into_each_other_are_refused() {
        assert_eq!(table("").unwrap(), "micro");
        assert_eq!(table("any name / at all").unwrap(), "any name / at all");
        assert!(table("a\0b").is_err());
        assert!(table(&"a".repeat(256)).is_err());
        assert!(record("t", "").is_err());
        assert!(record("t", &"k".repeat(MAX_KEY)).is_ok());
        assert!(record("t", &"k".repeat(MAX_KEY + 1)).is_err());
        // The longest row of all fits into a key of storage.
        let longest = expiry(
            Timestamp(1),
            &prefix(&"t".repeat(255), &"k".repeat(MAX_KEY)),
        );
        assert!(longest.len() <= 4096);
    }
}
