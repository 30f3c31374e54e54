//! Lengths of time as Go writes them, which Micro's flags take: `300ms`, `1h30m`, `1.5h`.

use std::time::Duration;

/// Reads a length of time; days, which Go has not, are read too.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(end)?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let nanos: u32 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" | "m" | "h" | "d" => 1_000_000_000,
            _ => return None,
        };
        let units = match unit {
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => 1,
        };
        let one = Duration::from_nanos(nanos.into()).checked_mul(units)?;
        total = total.checked_add(times(one, number)?)?;
        rest = after;
    }
    Some(total)
}

/// `number` times `unit`, where the number may have decimals.
fn times(unit: Duration, number: &str) -> Option<Duration> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let count = match whole {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let mut sum = unit.checked_mul(count)?;
    let mut part = unit.as_nanos();
    for digit in decimals.chars() {
        part /= 10;
        let nanos = part.checked_mul(digit.to_digit(10)?.into())?;
        sum = sum.checked_add(Duration::from_nanos(nanos.try_into().ok()?))?;
    }
    Some(sum)
}

/// When something that ends in so many seconds ends, in Micro's words.
pub(crate) fn from_now(seconds: i64) -> String {
    const UNITS: [(i64, &str); 7] = [
        (360 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        None => "now".into(),
        Some((unit, word)) => match seconds / unit {
            1 => format!("1 {word} from now"),
            count => format!("{count} {word}s from now"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_go_reads_them() {
        let millis = |text| duration(text).map(|d| d.as_millis());
        for (text, expected) in [
            ("0", 0),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("+2s500ms", 2_500),
            (".5s", 500),
            ("1.s", 1_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        assert_eq!(duration("5µs"), Some(Duration::from_micros(5)));
        for bad in [
            "",
            "+",
            "5",
            "s",
            ".s",
            "1x",
            "-5s",
            "1h 2m",
            "1..5s",
            "1h5",
            "9999999999h",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn ends_are_told_in_one_unit() {
        for (seconds, text) in [
            (0, "now"),
            (1, "1 second from now"),
            (59, "59 seconds from now"),
            (60, "1 minute from now"),
            (7_300, "2 hours from now"),
            (86_400, "1 day from now"),
            (20 * 86_400, "2 weeks from now"),
            (400 * 86_400, "1 year from now"),
        ] {
            assert_eq!(from_now(seconds), text);
        }
    }
}
