//! Any value as one line of text, for output that other programs read line by line.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::json;

/// Bytes of a binary value that a table shows.
const SHORT: usize = 20;
/// Characters of a text that a table shows.
const CELL: usize = 60;

/// The whole value: text as it is, JSON without its line breaks, other line breaks as `\n`, and what
/// is no text in hexadecimal.
pub(crate) fn whole(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return hex(bytes);
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    if !text.contains(['\n', '\r']) {
        return text.into();
    }
    if json::is_valid(text.as_bytes()) {
        return unbroken(text);
    }
    escaped(text)
}

/// The value for a cell of a table; what is no text is cut, as Micro cuts it.
pub(crate) fn cell(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => escaped(text),
        Err(_) => hex(bytes.get(..SHORT).unwrap_or(bytes)),
    }
}

/// The beginning of a text for a cell of a table, or `n/a` when there is none.
pub(crate) fn short(text: &str) -> String {
    if text.is_empty() {
        return "n/a".into();
    }
    let text = escaped(text);
    match text.char_indices().nth(CELL) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or(&text)),
        None => text,
    }
}

/// A JSON object on one line. JSON that is put into it stays as it was written, numbers that nobody
/// can hold included.
#[derive(Debug)]
pub(crate) struct Object(String);

impl Object {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self("{".into())
    }

    /// Adds a value.
    #[must_use]
    pub(crate) fn with(self, name: &str, value: impl Serialize) -> Self {
        let text = serde_json::to_string(&value).unwrap_or_else(|_| "null".into());
        self.with_json(name, &text)
    }

    /// Adds a value that is JSON.
    #[must_use]
    pub(crate) fn with_json(mut self, name: &str, json: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to a string cannot fail.
        let _ = write!(self.0, "\"{name}\":{}", unbroken(json));
        self
    }

    /// Adds what may be JSON, or else a text, under `name`; what is neither is `name_base64`.
    #[must_use]
    pub(crate) fn with_bytes(self, name: &str, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if json::is_valid(bytes) => self.with_json(name, text),
            Ok(text) => self.with(name, text),
            Err(_) => self.with(&format!("{name}_base64"), STANDARD.encode(bytes)),
        }
    }

    /// The line.
    pub(crate) fn finish(self) -> String {
        self.0 + "}"
    }
}

/// JSON without its line breaks, which are never inside of a text.
fn unbroken(json: &str) -> String {
    json.split(['\n', '\r']).map(str::trim_start).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\t', "\\t")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::from("0x");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_become_one_line() {
        for (value, line) in [
            (&b"plain text"[..], "plain text"),
            (b"tab\tstays", "tab\tstays"),
            (b"line\n", "line"),
            (
                b"{\n\t\"a\": 1,\n\t\"b\": \"x y\"\n}\n",
                "{\"a\": 1,\"b\": \"x y\"}",
            ),
            (b"two\nlines", "two\\nlines"),
            (b"\xff\x00", "0xff00"),
            (b"", ""),
        ] {
            assert_eq!(whole(value), line);
        }
        assert_eq!(cell(b"a\tb"), "a\\tb");
        assert_eq!(cell(&[0xff; 30]).len(), 2 + 2 * SHORT);
        assert_eq!(short(""), "n/a");
        assert_eq!(short(&"x".repeat(100)).len(), CELL + 3);
    }

    #[test]
    fn objects_hold_what_the_value_is() {
        let object = Object::new()
            .with("number", 7)
            .with_bytes("json", b"{\n  \"a\": 1e999\n}")
            .with_bytes("text", b"hello")
            .with_bytes("binary", b"\xff");
        assert_eq!(
            object.finish(),
            r#"{"number":7,"json":{"a": 1e999},"text":"hello","binary_base64":"/w=="}"#
        );
        assert_eq!(Object::new().finish(), "{}");
    }

    proptest! {
        #[test]
        fn a_line_never_breaks(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!whole(&bytes).contains(['\n', '\r']));
            prop_assert!(!cell(&bytes).contains(['\n', '\r', '\t']));
        }
    }
}
