//! Checked names. Parsing is the only way in, so a value of these types is safe in a path, a
//! metric label, a host name and a log line.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Kind};

/// A name that breaks the rules of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: {rule}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl Fault for InvalidName {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// Checks `text` against the rule of this type.
            ///
            /// # Errors
            /// `Invalid`, naming the rule.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, value: text.chars().take(80).collect(), rule: $rule })
                }
            }

            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                Self::parse(s)
            }
        }
        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(s: String) -> Result<Self, InvalidName> {
                Self::parse(&s)
            }
        }
        impl From<$type> for String {
            fn from(v: $type) -> String {
                v.0.into()
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

fn is_word(text: &str, max: usize, extra: &[u8]) -> bool {
    !text.is_empty()
        && text.len() <= max
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        && text
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && text
            .as_bytes()
            .last()
            .is_some_and(u8::is_ascii_alphanumeric)
}

name!(
    /// A tenant. Part of host names and paths, hence a DNS label.
    Namespace,
    "namespace",
    |t| is_word(t, 40, b"-") && t.bytes().all(|b| !b.is_ascii_uppercase()),
    "use 1 to 40 lower-case letters, digits and dashes, starting and ending with a letter or digit"
);
name!(
    /// The name under which a service is registered and routed.
    ServiceName,
    "service name",
    |t| is_word(t, 80, b"-._") && !t.contains(".."),
    "use 1 to 80 letters, digits, dots, dashes and underscores, starting and ending with a letter or digit"
);
name!(
    /// A version or git ref of a service, such as `latest` or `v1.2`.
    Version,
    "version",
    |t| is_word(t, 80, b"-._/") && !t.contains("..") && !t.contains("//"),
    "use 1 to 80 letters, digits, dots, dashes, underscores and slashes"
);
name!(
    /// The id of an account: a user name, an address or the id of a service.
    AccountId,
    "account id",
    |t| !t.is_empty() && t.len() <= 200 && !t.chars().any(|c| c.is_control() || c.is_whitespace()),
    "use 1 to 200 characters without spaces or control characters"
);
name!(
    /// One running copy of a release.
    InstanceId,
    "instance id",
    |t| is_word(t, 80, b"-"),
    "use 1 to 80 letters, digits and dashes"
);

impl Namespace {
    /// The name of the operator's namespace.
    pub const OPERATOR: &'static str = "micro";

    /// The namespace of the operator, `micro`: where the built-in services live.
    pub fn operator() -> Self {
        Self(Self::OPERATOR.into())
    }

    /// Whether this is the operator's namespace.
    pub fn is_operator(&self) -> bool {
        &*self.0 == Self::OPERATOR
    }
}

impl Version {
    /// The version of a service whose author named none.
    pub fn latest() -> Self {
        Self("latest".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in [
            "", "..", "a/../b", "-a", "a-", "a b", "a\0", "../x", ".git", "a..b",
        ] {
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
            assert!(Namespace::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Namespace::parse("Micro").is_err());
        assert!(
            Namespace::parse("a.b").is_err(),
            "a namespace is one host-name label"
        );
        assert!(ServiceName::parse("v1.foo-bar_baz").is_ok());
        assert!(Version::parse("feature/x").is_ok());
        assert!(AccountId::parse("alice@example.com").is_ok());
    }

    #[test]
    fn the_error_names_the_rule() {
        let text = Namespace::parse("A").map_err(|e| e.to_string());
        assert!(text.is_err_and(|t| t.contains("lower-case")));
    }
}
