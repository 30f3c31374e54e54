//! Header names, content types, deadlines and paths of Micro's gRPC (contract §3.1 to §3.3).

use std::{fmt::Write as _, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self},
};

pub(crate) static MICRO_NAMESPACE: HeaderName = HeaderName::from_static("micro-namespace");
pub(crate) static MICRO_ACCOUNT: HeaderName = HeaderName::from_static("x-micro-account");
pub(crate) static TIMEOUT: HeaderName = HeaderName::from_static("timeout");
pub(crate) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// How the messages of a gRPC request are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// `application/grpc`, `+proto`, or any other sub-type that only the service understands.
    Opaque,
    /// `application/grpc+json`.
    Json,
}

/// The kind of a gRPC content type; `None` when it is not gRPC.
pub(crate) fn content(headers: &HeaderMap) -> Option<Content> {
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let rest = value.strip_prefix(b"application/grpc")?;
    match rest.first() {
        None | Some(b';') => Some(Content::Opaque),
        Some(b'+') if rest.starts_with(b"+json") => Some(Content::Json),
        Some(b'+') => Some(Content::Opaque),
        Some(_) => None, // grpc-web and friends are other protocols
    }
}

/// Whether `headers` announce gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    content(headers).is_some()
}

/// A gRPC path taken apart as Micro does: `/<service>.<Struct>/<Method>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcPath<'a> {
    /// What stands before the last dot of the first part; empty in `/Struct/Method`.
    pub service: &'a str,
    /// `Struct.Method`.
    pub endpoint: String,
}

impl<'a> GrpcPath<'a> {
    /// Takes `path` apart; `None` unless it is exactly `/a/b`.
    pub fn parse(path: &'a str) -> Option<Self> {
        let (full, method) = path.strip_prefix('/')?.split_once('/')?;
        if full.is_empty() || method.is_empty() || method.contains('/') {
            return None;
        }
        let (service, name) = full.rsplit_once('.').unwrap_or(("", full));
        if name.is_empty() {
            return None;
        }
        let mut endpoint = String::with_capacity(name.len() + 1 + method.len());
        endpoint.push_str(name);
        endpoint.push('.');
        endpoint.push_str(method);
        Some(Self { service, endpoint })
    }
}

/// The standard deadline, `grpc-timeout`.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(amount * 3600)),
        'M' => Some(Duration::from_secs(amount * 60)),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Micro's own deadline: `timeout` in nanoseconds.
pub(crate) fn micro_timeout(headers: &HeaderMap) -> Option<Duration> {
    let nanos: u64 = headers.get(&TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

/// `grpc-timeout` for `span`: at most eight digits, so the finest unit that fits.
pub(crate) fn encode_timeout(span: Duration) -> HeaderValue {
    const LARGEST: u128 = 99_999_999;
    let units = [
        (span.as_nanos(), 'n'),
        (span.as_micros(), 'u'),
        (span.as_millis(), 'm'),
        (u128::from(span.as_secs()), 'S'),
    ];
    let (amount, unit) = units
        .into_iter()
        .find(|(amount, _)| *amount <= LARGEST)
        .unwrap_or((LARGEST, 'S'));
    let mut text = String::with_capacity(10);
    let _ = write!(text, "{amount}{unit}");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("99999999S"))
}

/// Whether a header of an HTTP/1.1 message belongs to one connection only (RFC 9110 §7.6.1).
pub(crate) fn is_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TE
        || *name == header::TRAILER
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::PROXY_AUTHORIZATION
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Removes what belongs to one connection only, the names listed in `Connection` included.
pub(crate) fn strip_hops(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    let hops: Vec<HeaderName> = headers.keys().filter(|n| is_hop(n)).cloned().collect();
    for name in hops {
        headers.remove(name);
    }
}

/// Removes what only we may say about the caller.
pub(crate) fn strip_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|n| n.as_str().starts_with("x-micro-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The cookie that carries a token for browsers.
pub const TOKEN_COOKIE: &str = "micro-token";

/// Takes the token's cookie out of `headers` and leaves the others as they are.
pub fn forget_token(headers: &mut HeaderMap) {
    let is_token = |cookie: &[u8]| {
        cookie
            .trim_ascii()
            .strip_prefix(TOKEN_COOKIE.as_bytes())
            .is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
    };
    let has = headers
        .get_all(header::COOKIE)
        .iter()
        .any(|line| line.as_bytes().split(|b| *b == b';').any(is_token));
    if !has {
        return;
    }
    let lines: Vec<HeaderValue> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| {
            let kept: Vec<&[u8]> = line
                .as_bytes()
                .split(|b| *b == b';')
                .filter(|cookie| !is_token(cookie))
                .map(<[u8]>::trim_ascii)
                .collect();
            HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()
        })
        .filter(|line| !line.is_empty())
        .collect();
    headers.remove(header::COOKIE);
    for line in lines {
        headers.append(header::COOKIE, line);
    }
}

/// The call metadata that a translated HTTP request carries to a gRPC service (contract §6.5): all
/// headers but those that belong to the connection, to the body or to gRPC itself.
pub(crate) fn metadata(from: &HeaderMap) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(from.len() + 6);
    for (name, value) in from {
        let text = name.as_str();
        let keep = !is_hop(name)
            && *name != header::HOST
            && *name != header::CONTENT_TYPE
            && *name != header::CONTENT_LENGTH
            && *name != header::CONTENT_ENCODING
            && *name != header::EXPECT
            && *name != TIMEOUT
            && !text.starts_with("grpc-")
            && !text.starts_with("sec-websocket-")
            && !text.starts_with("x-micro-");
        if keep {
            to.append(name, value.clone());
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn paths_are_taken_apart_as_micro_does() {
        for (path, service, endpoint) in [
            (
                "/helloworld.Helloworld/Call",
                "helloworld",
                "Helloworld.Call",
            ),
            ("/v1.foo.Foo/Bar", "v1.foo", "Foo.Bar"),
            ("/Struct/Method", "", "Struct.Method"),
        ] {
            let parsed = GrpcPath::parse(path).unwrap();
            assert_eq!(
                (parsed.service, parsed.endpoint.as_str()),
                (service, endpoint)
            );
        }
        for bad in ["", "/", "Bar", "/Bar", "//x", "/a/", "/a/b/c", "/a./b"] {
            assert_eq!(GrpcPath::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_grpc_content_types_count() {
        for (value, expected) in [
            ("application/grpc", Some(Content::Opaque)),
            ("application/grpc+proto", Some(Content::Opaque)),
            ("application/grpc;x=1", Some(Content::Opaque)),
            ("application/grpc+json", Some(Content::Json)),
            ("application/grpc-web", None),
            ("application/json", None),
        ] {
            assert_eq!(
                content(&headers(&[("content-type", value)])),
                expected,
                "{value}"
            );
        }
        assert_eq!(content(&HeaderMap::new()), None);
    }

    #[test]
    fn deadlines_survive_writing_and_reading() {
        for span in [
            Duration::from_nanos(5),
            Duration::from_millis(250),
            Duration::from_secs(60),
            Duration::from_secs(100_000),
        ] {
            let mut map = HeaderMap::new();
            map.insert(&GRPC_TIMEOUT, encode_timeout(span));
            assert_eq!(grpc_timeout(&map), Some(span));
        }
        assert_eq!(grpc_timeout(&headers(&[("grpc-timeout", "1x")])), None);
        assert_eq!(
            grpc_timeout(&headers(&[("grpc-timeout", "999999999S")])),
            None
        );
        assert_eq!(
            micro_timeout(&headers(&[("timeout", "1000000000")])),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn the_tokens_cookie_is_forgotten_and_no_other() {
        for (before, after) in [
            ("micro-token=a.b.c", None),
            ("a=1; micro-token=x; b=2", Some("a=1; b=2")),
            ("a=1;micro-token =x", Some("a=1")),
            (
                "micro-tokens=1; xmicro-token=2",
                Some("micro-tokens=1; xmicro-token=2"),
            ),
        ] {
            let mut map = headers(&[("cookie", before)]);
            forget_token(&mut map);
            let left = map.get(header::COOKIE).map(|v| v.to_str().unwrap());
            assert_eq!(left, after, "{before}");
        }
    }

    #[test]
    fn connection_headers_do_not_travel() {
        let mut map = headers(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        strip_hops(&mut map);
        assert_eq!(map.len(), 1);
        let metadata = metadata(&headers(&[
            ("host", "a"),
            ("grpc-timeout", "1S"),
            ("x-micro-account", "root"),
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
        ]));
        assert_eq!(metadata.len(), 2);
    }
}
