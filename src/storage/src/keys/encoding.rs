//! How keys and values look in redb. Pure.

use micro_core::Namespace;

use crate::Error;

/// The only format so far: the value follows as it is.
const FORMAT: u8 = 1;

/// What all keys of `namespace` start with. The length comes first, so that no namespace's range
/// contains another's (`a` and `ab`).
pub(super) fn prefix(namespace: &Namespace) -> Vec<u8> {
    let text = namespace.as_str().as_bytes();
    // A namespace has at most 40 bytes.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut key = Vec::with_capacity(text.len() + 1);
    key.push(length);
    key.extend_from_slice(text);
    key
}

/// The namespace of a full key.
pub(super) fn namespace(key: &[u8]) -> Option<Namespace> {
    let (length, rest) = key.split_first()?;
    let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
    Namespace::parse(text).ok()
}

/// The first key behind all that start with `prefix`; `None` when there is none.
pub(super) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if let Some(last) = last.checked_add(1) {
            next.push(last);
            return Some(next);
        }
    }
    None
}

/// Value to bytes.
pub(super) fn envelope(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 1);
    bytes.push(FORMAT);
    bytes.extend_from_slice(value);
    bytes
}

/// Bytes to value.
pub(super) fn value(table: &'static str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    match bytes.split_first() {
        Some((&FORMAT, value)) => Ok(value.to_vec()),
        other => Err(Error::Format {
            table,
            format: other.map_or(0, |(format, _)| *format),
        }),
    }
}
