//! Why a message could not be translated, in words that name the field.

use micro_core::{Fault, Kind};

/// A failure to read descriptors, JSON or a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are no usable descriptor set.
    #[error("cannot read the service's descriptors: {0}")]
    Descriptors(String),
    /// A text that is no JSON, or JSON that no message of the type can be.
    #[error("cannot read the JSON for {message}: {reason}")]
    Json {
        /// The message type.
        message: String,
        /// What is wrong, with line and column where known.
        reason: String,
    },
    /// A field that the message does not have.
    #[error("{message} has no field `{field}`; {}", known_fields(.known))]
    UnknownField {
        /// The path of the field as it was given.
        field: String,
        /// The message type.
        message: String,
        /// The fields there are.
        known: Vec<String>,
    },
    /// A value of the wrong type.
    #[error("field `{field}` must be {expected}, not {found}")]
    WrongType {
        /// The path of the field.
        field: String,
        /// The type, for a person.
        expected: String,
        /// The value that was given, shortened.
        found: String,
    },
    /// Message bytes that do not fit the service's own descriptors.
    #[error("cannot read the {message} message: {reason}")]
    Message {
        /// The message type.
        message: String,
        /// What is wrong.
        reason: String,
    },
    /// A `.proto` file that does not compile.
    #[error("cannot compile the .proto files: {0}")]
    Protos(String),
    /// The directory of a release that cannot be read.
    #[error("cannot read {path} while looking for .proto files: {reason}")]
    Read {
        /// Below the directory that was given.
        path: String,
        /// The system's words.
        reason: String,
    },
}

fn known_fields(known: &[String]) -> String {
    if known.is_empty() {
        "it has no fields".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Json { .. } | Self::UnknownField { .. } | Self::WrongType { .. } => Kind::Invalid,
            Self::Descriptors(_) | Self::Protos(_) => Kind::Precondition,
            Self::Message { .. } | Self::Read { .. } => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownField { field, known, .. } => {
                let last = field.rsplit(['.', '[']).next().unwrap_or(field);
                nearest(last, known).map(|name| format!("did you mean `{name}`?"))
            }
            Self::Message { .. } => Some(
                "the running instance and its descriptors disagree; deploy the service again"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// The name that differs least from `wanted`, when it differs little.
fn nearest<'a>(wanted: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (distance(wanted, name), name.as_str()))
        .filter(|(d, name)| *d <= 1 + name.chars().count() / 4)
        .min_by_key(|(d, _)| *d)
        .map(|(_, name)| name)
}

/// Levenshtein distance over the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            let cost = usize::from(x != *y);
            left = (diagonal + cost).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A value as an error quotes it: one line, at most 60 characters.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        format!("{short:?}…")
    } else {
        format!("{short:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_gets_a_suggestion() {
        let error = Error::UnknownField {
            field: "options.domian".into(),
            message: "Options".into(),
            known: vec!["ttl".into(), "domain".into()],
        };
        assert_eq!(error.hint().as_deref(), Some("did you mean `domain`?"));
        assert!(error.to_string().contains("it has ttl, domain"), "{error}");
        let far = Error::UnknownField {
            field: "colour".into(),
            message: "Options".into(),
            known: vec!["ttl".into()],
        };
        assert_eq!(far.hint(), None);
    }
}
