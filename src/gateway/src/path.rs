//! From a request path to a service and an endpoint (Micro contract §6.1), and the cleaning that
//! comes before it. Pure, so that every row of the contract's table is a test.
//!
//! A path is percent-decoded exactly once, here. What routing and rules see is the decoded, clean
//! path; whatever is not clean is answered with a redirect and never routed, so `..` cannot reach a
//! service under another name.

use std::borrow::Cow;

/// What is left of a raw path after looking at it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleaned<'a> {
    /// Decoded, without empty or dotted segments. A trailing slash is kept.
    Clean(Cow<'a, str>),
    /// The client shall come back with this path, which is encoded and clean.
    Redirect(String),
    /// It cannot be read; the reason, for a person.
    Invalid(&'static str),
}

/// Decodes and checks the path of a request line.
pub fn clean(raw: &str) -> Cleaned<'_> {
    if is_plain(raw) {
        return Cleaned::Clean(Cow::Borrowed(raw));
    }
    let decoded = match decode(raw, false) {
        Ok(decoded) => decoded,
        Err(reason) => return Cleaned::Invalid(reason),
    };
    if decoded.chars().any(char::is_control) {
        return Cleaned::Invalid("the path contains a control character");
    }
    let tidy = tidy(&decoded);
    if tidy == *decoded {
        Cleaned::Clean(decoded)
    } else {
        Cleaned::Redirect(encode(&tidy))
    }
}

/// Whether a raw path is clean as it stands; nearly all are.
fn is_plain(raw: &str) -> bool {
    let mut previous = 0;
    for byte in raw.bytes() {
        // A segment that starts with a dot may be `.` or `..`; the slow path knows.
        let suspect = matches!(byte, b'%' | 0..=0x1f | 0x7f..)
            || (previous == b'/' && matches!(byte, b'/' | b'.'));
        if suspect || (previous == 0 && byte != b'/') {
            return false;
        }
        previous = byte;
    }
    previous != 0
}

/// Drops empty and `.` segments and resolves `..`, as Go's `path.Clean` does, but keeps a trailing
/// slash.
fn tidy(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let mut tidy = String::with_capacity(path.len() + 1);
    for segment in &kept {
        tidy.push('/');
        tidy.push_str(segment);
    }
    if tidy.is_empty() || path.ends_with('/') {
        tidy.push('/');
    }
    tidy
}

/// Percent-decodes `text`; in a form (`plus`), `+` is a space.
///
/// # Errors
/// The reason, when an escape is broken or the result is no UTF-8.
pub fn decode(text: &str, plus: bool) -> Result<Cow<'_, str>, &'static str> {
    if !text.bytes().any(|b| b == b'%' || (plus && b == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = rest.next().and_then(hex);
                let low = rest.next().and_then(hex);
                let (Some(high), Some(low)) = (high, low) else {
                    return Err("a percent sign is not followed by two hexadecimal digits");
                };
                bytes.push(high << 4 | low);
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| "the percent-encoded text is not UTF-8")
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Percent-encodes a clean path for a `Location` header.
fn encode(path: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(digit(byte >> 4)));
            out.push(char::from(digit(byte & 15)));
        }
    }
    out
}

/// A service and its endpoint, as a path names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// The registered name.
    pub service: Cow<'a, str>,
    /// `Struct.Method`, in the spelling Micro derives from the path.
    pub endpoint: String,
}

/// Reads a clean path; `None` for `/`, which names nothing.
pub fn parse(path: &str) -> Option<Call<'_>> {
    let path = path.trim_matches('/');
    let (before, method) = match path.rsplit_once('/') {
        None if path.is_empty() => return None,
        None => {
            return Some(Call {
                service: path.into(),
                endpoint: word(path) + ".Call",
            });
        }
        Some(parts) => parts,
    };
    let endpoint = |of: &str| {
        let mut endpoint = String::with_capacity(of.len() + 1 + method.len());
        title(of, &mut endpoint);
        endpoint.push('.');
        title(method, &mut endpoint);
        endpoint
    };
    let Some((services, of)) = before.rsplit_once('/') else {
        return Some(Call {
            service: before.into(),
            endpoint: endpoint(before),
        });
    };
    let service = if services.contains('/') {
        Cow::Owned(services.replace('/', "."))
    } else if is_version(services) {
        // `/v1/foo/bar` is the service `v1.foo`, not the endpoint `Foo.Bar` of a service `v1`.
        Cow::Owned(format!("{services}.{of}"))
    } else {
        Cow::Borrowed(services)
    };
    Some(Call {
        service,
        endpoint: endpoint(of),
    })
}

/// `v1`, `v22`: `^v[0-9]+$`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn word(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 5);
    title(text, &mut out);
    out
}

/// Drops dashes and upper-cases each letter that starts a word: after a dash, or after anything
/// that is no letter, digit or underscore (Go's `strings.Title` on each piece).
fn title(text: &str, out: &mut String) {
    let mut starts = true;
    for character in text.chars() {
        if character == '-' {
            starts = true;
            continue;
        }
        if starts {
            out.extend(character.to_uppercase());
        } else {
            out.push(character);
        }
        starts = !(character.is_alphanumeric() || character == '_');
    }
}

/// The first segment of a path and what follows it, which starts with a slash or is empty. Works on
/// a raw path as well: a plain HTTP service gets its own part of the path byte for byte.
pub fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let end = path.find('/').unwrap_or(path.len());
    path.split_at_checked(end)
        .filter(|(segment, _)| !segment.is_empty())
}

/// A service named by a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostName<'a> {
    /// The service.
    pub service: &'a str,
    /// The namespace, when the host name has one; `micro` is meant otherwise.
    pub namespace: Option<&'a str>,
}

/// Reads `<name>.<namespace>.<domain>` or `<name>.<domain>`; `None` for any other host.
pub fn host<'a>(host: &'a str, domain: &str) -> Option<HostName<'a>> {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let labels = host.len().checked_sub(domain.len())?;
    let (labels, end) = host.split_at_checked(labels)?;
    if domain.is_empty() || !end.eq_ignore_ascii_case(domain) {
        return None;
    }
    let labels = labels.strip_suffix('.')?;
    let named = match labels.split_once('.') {
        None => HostName {
            service: labels,
            namespace: None,
        },
        Some((service, namespace)) => HostName {
            service,
            namespace: Some(namespace),
        },
    };
    let one_label = !named.service.is_empty()
        && named
            .namespace
            .is_none_or(|n| !n.is_empty() && !n.contains('.'));
    one_label.then_some(named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_row_of_the_contract_is_read_as_written() {
        let rows = [
            ("/helloworld", "helloworld", "Helloworld.Call"),
            ("/helloworld/Call", "helloworld", "Helloworld.Call"),
            ("/helloworld/call", "helloworld", "Helloworld.Call"),
            ("/helloworld/", "helloworld", "Helloworld.Call"),
            ("/foo/bar", "foo", "Foo.Bar"),
            ("/foo/bar/baz", "foo", "Bar.Baz"),
            ("/foo/bar/baz-xyz", "foo", "Bar.BazXyz"),
            ("/foo/fooBar/bazCat", "foo", "FooBar.BazCat"),
            ("/foo/bar/baz/cat", "foo.bar", "Baz.Cat"),
            ("/foo/bar/baz/cat/car", "foo.bar.baz", "Cat.Car"),
            ("/v1/foo", "v1", "V1.Foo"),
            ("/v1/foo/bar", "v1.foo", "Foo.Bar"),
            ("/v1/foo/bar/baz", "v1.foo", "Bar.Baz"),
            ("/v1/foo/bar/baz/cat", "v1.foo.bar", "Baz.Cat"),
            ("/v22/foo/bar", "v22.foo", "Foo.Bar"),
            ("/vx/foo/bar", "vx", "Foo.Bar"),
            ("/v/foo/bar", "v", "Foo.Bar"),
            ("/my-svc", "my-svc", "MySvc.Call"),
            ("/my-svc/get-it", "my-svc", "MySvc.GetIt"),
            ("/my-svc/foo_bar", "my-svc", "MySvc.Foo_bar"),
            ("/auth/Accounts/List", "auth", "Accounts.List"),
        ];
        for (path, service, endpoint) in rows {
            let call = parse(path).unwrap();
            assert_eq!(
                (&*call.service, &*call.endpoint),
                (service, endpoint),
                "{path}"
            );
        }
        assert_eq!(parse("/"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn unclean_paths_are_sent_to_the_clean_one() {
        let rows = [
            ("//", "/"),
            ("//evil.example/x", "/evil.example/x"),
            ("/foo//bar", "/foo/bar"),
            ("/foo/./bar", "/foo/bar"),
            ("/foo/../bar", "/bar"),
            ("/foo/..", "/"),
            ("/../../etc", "/etc"),
            ("/foo/%2e%2e/bar", "/bar"),
            ("/foo%2f%2fbar", "/foo/bar"),
            ("/foo//b%20r/", "/foo/b%20r/"),
            ("//%5Cevil", "/%5Cevil"),
            ("foo", "/foo"),
            ("", "/"),
            ("*", "/*"),
        ];
        for (raw, to) in rows {
            assert_eq!(clean(raw), Cleaned::Redirect(to.into()), "{raw}");
        }
    }

    #[test]
    fn clean_paths_are_decoded_once() {
        for (raw, decoded) in [
            ("/", "/"),
            ("/foo/", "/foo/"),
            ("/foo%2Fbar", "/foo/bar"),
            ("/caf%C3%A9", "/café"),
            ("/foo/%252e%252e/bar", "/foo/%2e%2e/bar"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a+b", "/a+b"),
        ] {
            assert_eq!(clean(raw), Cleaned::Clean(decoded.into()), "{raw}");
        }
        for raw in ["/%", "/%2", "/%zz", "/%ff", "/a%00b", "/a%0ab"] {
            assert!(matches!(clean(raw), Cleaned::Invalid(_)), "{raw}");
        }
    }

    #[test]
    fn host_names_of_services_are_recognised() {
        let named = |service, namespace| Some(HostName { service, namespace });
        for (text, expected) in [
            ("web.localhost", named("web", None)),
            ("web.localhost:8080", named("web", None)),
            ("web.shop.LOCALHOST.:8080", named("web", Some("shop"))),
            ("localhost:8080", None),
            ("127.0.0.1:8080", None),
            ("[::1]:8080", None),
            ("a.b.c.localhost", None),
            ("weblocalhost", None),
            (".localhost", None),
            ("web..localhost", None),
            ("web.example.com", None),
            ("é", None),
        ] {
            assert_eq!(host(text, "localhost"), expected, "{text}");
        }
        assert_eq!(
            host("web.shop.example.com", "example.com"),
            named("web", Some("shop"))
        );
        assert_eq!(host("web.", ""), None);
    }

    #[test]
    fn the_first_segment_keeps_the_rest_as_it_is() {
        assert_eq!(first_segment("/web/a%2Fb//c"), Some(("web", "/a%2Fb//c")));
        assert_eq!(first_segment("/web"), Some(("web", "")));
        assert_eq!(first_segment("/web/"), Some(("web", "/")));
        assert_eq!(first_segment("/"), None);
        assert_eq!(first_segment("web"), None);
    }

    proptest! {
        #[test]
        fn no_path_panics_and_redirects_lead_to_clean_paths(raw in "[/.%a-f0-9é\\\\-]{0,24}") {
            match clean(&raw) {
                Cleaned::Clean(path) => {
                    prop_assert!(path.starts_with('/'));
                    let escapes = path.split('/').any(|s| s == "..");
                    prop_assert!(!escapes && !path.contains("//"));
                    parse(&path);
                }
                Cleaned::Redirect(to) => {
                    prop_assert!(to.starts_with('/') && !to.starts_with("//"));
                    prop_assert!(matches!(clean(&to), Cleaned::Clean(_)), "{to}");
                }
                Cleaned::Invalid(_) => {}
            }
        }

        #[test]
        fn any_text_may_be_a_path_or_a_host(text in "\\PC{0,40}") {
            clean(&text);
            parse(&text);
            host(&text, "localhost");
            first_segment(&text);
            prop_assert!(decode(&encode(&text), false).is_ok_and(|t| t == text));
        }
    }
}
