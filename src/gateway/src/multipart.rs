//! `multipart/form-data` (RFC 7578) as far as a message needs it: names and values, a file as the
//! base64 of its bytes (Micro contract §6.5). The body is bounded and in memory already, so this is
//! one pass over a slice and no stream.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// More parts than this is no form but an attack on memory.
const MOST_PARTS: usize = 1000;

/// Names and values of the parts of a body with this `Content-Type`.
///
/// # Errors
/// The reason, for a person.
pub fn fields(content_type: &str, body: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let boundary = parameter(content_type, "boundary")
        .filter(|b| !b.is_empty() && b.len() <= 70)
        .ok_or("the Content-Type names no boundary of 1 to 70 characters")?;
    let delimiter = format!("--{boundary}").into_bytes();
    // What comes before the first delimiter is to be ignored.
    let mut rest = match body.strip_prefix(delimiter.as_slice()) {
        Some(rest) => rest,
        None => {
            split_at_delimiter(body, &delimiter)
                .ok_or("the boundary does not occur in it")?
                .1
        }
    };
    let mut fields = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        let after = line_break(rest).ok_or("a boundary is not followed by a line break")?;
        let (part, next) =
            split_at_delimiter(after, &delimiter).ok_or("it ends before its closing boundary")?;
        if fields.len() == MOST_PARTS {
            return Err("it has more than 1000 parts");
        }
        fields.extend(field(part)?);
        rest = next;
    }
}

/// Skips blanks and one line break.
fn line_break(bytes: &[u8]) -> Option<&[u8]> {
    let blanks = bytes
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    bytes.get(blanks..)?.strip_prefix(b"\r\n")
}

/// Splits at the first delimiter that stands at the start of a line: the part without its last line
/// break, and what follows the delimiter.
fn split_at_delimiter<'a>(bytes: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    // A part may be empty, without the line break that ends it being its own.
    if let Some(rest) = bytes.strip_prefix(delimiter) {
        return Some((&[], rest));
    }
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|b| *b == b'\r')?;
        let (before, line) = bytes.split_at_checked(at)?;
        let follows = line
            .strip_prefix(b"\r\n")
            .and_then(|l| l.strip_prefix(delimiter));
        if let Some(rest) = follows {
            return Some((before, rest));
        }
        from = at + 1;
    }
}

/// One part: header lines, an empty line, the content. A part without a name is skipped.
fn field(part: &[u8]) -> Result<Option<(String, String)>, &'static str> {
    let (head, content) = match part.strip_prefix(b"\r\n") {
        Some(content) => (&[][..], content),
        None => {
            let at = part
                .windows(4)
                .position(|w| w == b"\r\n\r\n")
                .ok_or("a part has no empty line after its headers")?;
            let (head, rest) = part.split_at_checked(at).unwrap_or((part, &[]));
            (head, rest.strip_prefix(b"\r\n\r\n").unwrap_or_default())
        }
    };
    let head = std::str::from_utf8(head).map_err(|_| "the headers of a part are not UTF-8")?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    });
    let Some(disposition) = disposition else {
        return Ok(None);
    };
    let Some(name) = parameter(disposition, "name") else {
        return Ok(None);
    };
    let is_file = parameter(disposition, "filename").is_some()
        || parameter(disposition, "filename*").is_some();
    let value = if is_file {
        STANDARD.encode(content)
    } else {
        String::from_utf8(content.to_vec()).map_err(|_| "a text field is not UTF-8")?
    };
    Ok(Some((name, value)))
}

/// A parameter of a header value: `; name=token` or `; name="quoted"`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_start_matches([';', ' ', '\t']).trim();
        let (text, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let (token, next) = after.split_at_checked(end)?;
                (token.trim().to_owned(), next)
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = next;
    }
}

/// The text up to the closing quote, and what follows. Browsers write `%22` for a quote; others put
/// a backslash before it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((out.replace("%22", "\""), text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                escaped @ ('"' | '\\') => out.push(escaped),
                // A Windows path, sent by a client that does not escape.
                other => out.extend(['\\', other]),
            },
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"xx\"";

    fn pairs(list: &[(&str, &str)]) -> Result<Vec<(String, String)>, &'static str> {
        Ok(list
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect())
    }

    #[test]
    fn text_and_files_become_names_and_values() {
        let body = b"preamble\r\n--xx\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAlice\r\nB--xx\r\n\
            --xx \r\ncontent-type: image/png\r\ncontent-disposition: form-data; filename=\"a;b.png\"; name=photo\r\n\r\n\x00\xff\r\
            \r\n--xx\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--xx--\r\nepilogue";
        let expected = pairs(&[("name", "Alice\r\nB--xx"), ("photo", "AP8N"), ("empty", "")]);
        assert_eq!(fields(TYPE, body), expected);
        assert_eq!(fields(TYPE, b"--xx--"), pairs(&[]));
        assert_eq!(fields(TYPE, b"--xx\r\n\r\nnameless\r\n--xx--"), pairs(&[]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (content_type, body, part_of_reason) in [
            ("multipart/form-data", &b"--xx--"[..], "names no boundary"),
            ("multipart/form-data; boundary=", b"", "names no boundary"),
            (TYPE, b"", "does not occur"),
            (
                TYPE,
                b"--xx\r\nContent-Disposition: form-data; name=a\r\n\r\nb",
                "ends before",
            ),
            (
                TYPE,
                b"--xx\r\nContent-Disposition\r\n--xx--",
                "no empty line",
            ),
            (TYPE, b"--xxyy\r\n", "line break"),
            (
                TYPE,
                b"--xx\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--xx--",
                "UTF-8",
            ),
        ] {
            let reason = fields(content_type, body).unwrap_err();
            assert!(reason.contains(part_of_reason), "{reason}");
        }
    }

    #[test]
    fn quoted_parameters_may_hold_anything() {
        let value = r#"form-data; name="a\"b;c=d"; filename="C:\tmp\x.txt""#;
        assert_eq!(parameter(value, "name").as_deref(), Some("a\"b;c=d"));
        assert_eq!(
            parameter(value, "FILENAME").as_deref(),
            Some(r"C:\tmp\x.txt")
        );
        assert_eq!(
            parameter("form-data; name=\"a%22b\"", "name").as_deref(),
            Some("a\"b")
        );
        assert_eq!(parameter("form-data; name=\"open", "name"), None);
        assert_eq!(parameter("form-data", "name"), None);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in "(--xx|\r\n|\r|-|Content-Disposition: form-data; name=\"?|\"|é|;|=){0,24}") {
            drop(fields(TYPE, body.as_bytes()));
            drop(fields(&body, body.as_bytes()));
        }

        #[test]
        fn any_file_comes_out_as_its_base64(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut body = b"--xx\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n".to_vec();
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n--xx--\r\n");
            // The boundary cannot be chosen so that it never occurs; here it cannot occur in 200
            // random bytes with any likelihood worth handling.
            let fields = fields(TYPE, &body).unwrap();
            prop_assert_eq!(&fields[0].1, &STANDARD.encode(&content));
        }
    }
}
