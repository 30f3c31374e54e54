//! Byte sizes and time spans as people write them in settings and flags.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A text that is no size or no span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {value:?} as {what}; write it like {example}")]
pub struct InvalidAmount {
    value: String,
    what: &'static str,
    example: &'static str,
}

/// A number of bytes: `512`, `64KiB`, `100MB`, `2GiB` (binary units in either spelling).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct ByteSize(pub u64);

/// A length of time: `250ms`, `30s`, `20m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Span(pub Duration);

/// Settings may write a bare number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Text(String),
}

impl TryFrom<Text> for ByteSize {
    type Error = InvalidAmount;
    fn try_from(text: Text) -> Result<Self, InvalidAmount> {
        match text {
            Text::Number(n) => Ok(Self(n)),
            Text::Text(t) => t.parse(),
        }
    }
}

impl TryFrom<Text> for Span {
    type Error = InvalidAmount;
    fn try_from(text: Text) -> Result<Self, InvalidAmount> {
        match text {
            Text::Number(n) => Ok(Self(Duration::from_secs(n))),
            Text::Text(t) => t.parse(),
        }
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for ByteSize {
    type Err = InvalidAmount;
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let bad = || InvalidAmount {
            value: text.into(),
            what: "a size",
            example: "64KiB, 512MiB or 2GiB",
        };
        let (number, unit) = split(text.trim()).ok_or_else(bad)?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl FromStr for Span {
    type Err = InvalidAmount;
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let bad = || InvalidAmount {
            value: text.into(),
            what: "a length of time",
            example: "250ms, 30s, 20m or 7d",
        };
        let (number, unit) = split(text.trim()).ok_or_else(bad)?;
        let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
        let span = match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" | "" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            "d" => seconds(86400),
            _ => None,
        };
        span.map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (factor, unit) in [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1000, "s"),
        ] {
            if ms >= factor && ms.is_multiple_of(factor) {
                return write!(f, "{}{unit}", ms / factor);
            }
        }
        write!(f, "{ms}ms")
    }
}

impl From<ByteSize> for String {
    fn from(v: ByteSize) -> String {
        v.to_string()
    }
}

impl From<Span> for String {
    fn from(v: Span) -> String {
        v.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_back_as_written() {
        for text in ["512", "64KiB", "100MiB", "3GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["250ms", "90s", "20m", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for bad in ["", "x", "12q", "-1", "99999999999999999999"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
