//! Dotted paths: `db.pool.size` is the member `size` of the member `pool` of the member `db`.
//!
//! A member whose own name has a dot is kept as it was written, and reached through the object
//! around it.

use std::fmt;

use crate::Error;

/// How deep objects and arrays may lie in each other, the document itself included.
pub(crate) const DEPTH: usize = 32;
/// Bytes of a path.
const LENGTH: usize = 4096;

/// Members from the document down; empty for the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Path(Vec<Box<str>>);

impl Path {
    /// Reads a path as clients write it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Path {
            path: text.chars().take(80).collect(),
            reason,
        };
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > LENGTH {
            return Err(wrong("it is longer than 4096 bytes"));
        }
        let segments: Vec<Box<str>> = text.split('.').map(Into::into).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(wrong("there is nothing before, after or between two dots"));
        }
        if segments.len() > DEPTH {
            return Err(wrong("it is deeper than 32 members"));
        }
        Ok(Self(segments))
    }

    pub(crate) fn segments(&self) -> &[Box<str>] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_names_between_its_dots() {
        assert!(Path::parse("").unwrap().is_root());
        assert_eq!(Path::parse("a.b c.ä").unwrap().segments().len(), 3);
        assert_eq!(Path::parse("a.b").unwrap().to_string(), "a.b");
        for bad in [".", "a.", ".a", "a..b"] {
            assert!(Path::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Path::parse(&["a"; 32].join(".")).is_ok());
        assert!(Path::parse(&["a"; 33].join(".")).is_err());
        assert!(Path::parse(&"a".repeat(5000)).is_err());
    }
}
