//! Re-indents JSON the way Micro prints it (a tab per level), keeping the order of keys and the text
//! of numbers as the service wrote them.

use serde::de::IgnoredAny;

/// Whether `bytes` is one JSON value.
pub(crate) fn is_valid(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Indents a JSON value; `bytes` should be valid ([`is_valid`]), else only its layout is odd.
pub(crate) fn indent(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut opened = false;
    for c in text.chars() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        // An empty object or list stays on its line.
        if opened && !closes {
            newline(&mut out, depth);
        }
        let was_opened = std::mem::replace(&mut opened, false);
        match c {
            '{' | '[' => {
                depth += 1;
                opened = true;
                out.push(c);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !was_opened {
                    newline(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_string = true;
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

fn newline(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n('\t', depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_indented_with_tabs_in_their_own_order() {
        assert_eq!(
            indent(br#"{"msg":"Hello \"A\", {b}","n":1.50,"e":{},"l":[1,{"a":[]}]}"#),
            "{\n\t\"msg\": \"Hello \\\"A\\\", {b}\",\n\t\"n\": 1.50,\n\t\"e\": {},\n\t\"l\": [\n\t\t1,\n\t\t{\n\t\t\t\"a\": []\n\t\t}\n\t]\n}"
        );
        assert_eq!(indent(b"{}"), "{}");
        assert_eq!(indent(b"null"), "null");
    }

    proptest! {
        #[test]
        fn indenting_changes_no_value(keys in proptest::collection::vec(".*", 0..4), n in any::<i64>()) {
            let value = serde_json::json!({ "k": keys, "n": n, "o": { "x": [null, true, []] } });
            let text = indent(&serde_json::to_vec(&value).unwrap());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }
}
