//! From the query, form or body of a request to the JSON text of a message (Micro contract §6.5).
//!
//! The types of query and form fields come from the schema, so `?name=123` reaches a string field
//! as `"123"`. A body that is JSON already, without a query, is handed on as it came.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, Method as Verb,
    header::{CONTENT_TYPE, EXPECT},
};
use http_body_util::BodyExt as _;
use micro_core::{ByteSize, Fault, Kind, WireError};
use micro_schema::Method;
use serde_json::Value;

use crate::{multipart, path, respond::ID};

/// How long a client may be silent in the middle of a body.
const BODY_SILENCE: Duration = Duration::from_secs(60);
/// What is reserved on the word of a `Content-Length` alone.
const TRUSTED_LENGTH: u64 = 256 * 1024;
/// How much of a body that is too large is read and dropped, so that the client gets to see why.
const DISCARDED: u64 = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Why a request does not become a message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A query string or form body that cannot be decoded.
    #[error("cannot read the {what}: {reason}")]
    Pairs {
        /// Query or form.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A `multipart/form-data` body that cannot be split.
    #[error("cannot read the multipart form: {0}")]
    Multipart(&'static str),
    /// A body that is no JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// Fields that the endpoint does not take, or of another type.
    #[error(transparent)]
    Schema(#[from] micro_schema::Error),
    /// More bytes than the operator allows.
    #[error("the request body is larger than {}", ByteSize(*.limit))]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The client stopped sending.
    #[error("the request body did not arrive: nothing came for {} s", BODY_SILENCE.as_secs())]
    Silent,
    /// The connection broke, or the framing is wrong.
    #[error("the request body did not arrive: {0}")]
    Broken(String),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Schema(error) => error.kind(),
            Self::TooLarge { .. } => Kind::Exhausted,
            Self::Silent => Kind::Timeout,
            _ => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Pairs { .. } => Some("percent-encode names and values, as in ?name=a%26b".into()),
            Self::Multipart(_) => {
                Some("let the HTTP client make the form, as in curl -F name=value".into())
            }
            Self::Json(_) => Some(
                "send a JSON object, or a form with Content-Type application/x-www-form-urlencoded"
                    .into(),
            ),
            Self::Schema(error) => error.hint(),
            Self::TooLarge { .. } => {
                Some("send less, or ask the operator to raise the setting limits.body".into())
            }
            Self::Silent | Self::Broken(_) => None,
        }
    }
}

impl Error {
    /// The error as the client sees it.
    pub fn to_wire(&self) -> WireError {
        let wire = WireError::of(ID, self);
        match self {
            // The table of kinds has one code for all limits; HTTP has one for this.
            Self::TooLarge { .. } => WireError::with_code(ID, 413, wire.detail),
            _ => wire,
        }
    }
}

/// Reads the whole body of a request with these `headers`, of at most `limit` bytes. One that arrived
/// in one piece is not copied.
///
/// # Errors
/// `Exhausted` above the limit, `Timeout` and `Invalid` when it does not arrive.
pub async fn body<B>(mut body: B, headers: &HeaderMap, limit: u64) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().lower();
    if announced > limit {
        // A client that asks first has not begun to send, and shall not.
        if !headers.contains_key(EXPECT) {
            discard(body).await;
        }
        return Err(Error::TooLarge { limit });
    }
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(BODY_SILENCE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Error::Broken(error.to_string())),
            Err(_) => return Err(Error::Silent),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data
            .len()
            .saturating_add(first.len())
            .saturating_add(more.len()) as u64
            > limit
        {
            discard(body).await;
            return Err(Error::TooLarge { limit });
        }
        if first.is_empty() && more.is_empty() {
            first = data;
            if body.is_end_stream() {
                break;
            }
            continue;
        }
        if more.is_empty() {
            let length = announced
                .min(TRUSTED_LENGTH)
                .max((first.len() + data.len()) as u64);
            more.reserve(usize::try_from(length).unwrap_or(0));
            more.extend_from_slice(&std::mem::take(&mut first));
        }
        more.extend_from_slice(&data);
    }
    Ok(if more.is_empty() {
        first
    } else {
        more.freeze()
    })
}

/// Most clients write the whole request before they read the answer; closing on them would turn
/// the answer into "connection reset".
async fn discard<B>(mut body: B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut dropped = 0_u64;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, |d| d.len() as u64);
            if dropped > DISCARDED {
                break;
            }
        }
    };
    drop(tokio::time::timeout(DISCARD_TIME, reading).await);
}

/// Whether the message is in the body: otherwise the query alone makes it.
pub fn has_body(verb: &Verb) -> bool {
    matches!(*verb, Verb::POST | Verb::PUT | Verb::PATCH | Verb::DELETE)
}

/// How the body says it is written.
enum Form<'a> {
    Json,
    UrlEncoded,
    Multipart(&'a str),
}

impl<'a> Form<'a> {
    fn of(headers: &'a HeaderMap, body: &[u8]) -> Self {
        let text = headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let media = text.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            // `curl -d '{…}'` calls a JSON object a form; an encoder never writes a bare brace.
            if body.trim_ascii_start().starts_with(b"{") {
                Self::Json
            } else {
                Self::UrlEncoded
            }
        } else if media.eq_ignore_ascii_case("multipart/form-data") {
            Self::Multipart(text)
        } else {
            // Whatever else it is called, Micro reads it as JSON.
            Self::Json
        }
    }
}

/// Whether the body counts as JSON.
pub fn is_json(headers: &HeaderMap, body: &[u8]) -> bool {
    matches!(Form::of(headers, body), Form::Json)
}

/// Removes what only Micro itself may say to a service about a request. The namespace has been read
/// by then, and is said again.
pub fn strip(headers: &mut HeaderMap) {
    let ours = |name: &HeaderName| name.as_str().starts_with("micro-");
    while let Some(name) = headers.keys().find(|name| ours(name)).cloned() {
        headers.remove(name);
    }
}

/// The JSON text of the message that a request carries: query fields first, the body wins.
///
/// # Errors
/// `Invalid`, naming the field, or line and column.
pub fn json(
    method: &Method,
    headers: &HeaderMap,
    query_text: Option<&str>,
    body: Bytes,
) -> Result<Bytes, Error> {
    let query_text = query_text.unwrap_or_default();
    let form = Form::of(headers, &body);
    if query_text.is_empty() && matches!(form, Form::Json) {
        return Ok(body);
    }
    let mut pairs = query(query_text).map_err(|reason| Error::Pairs {
        what: "query",
        reason,
    })?;
    match form {
        Form::Json => {
            let fields = method.request_json_from_query(&pairs)?;
            return Ok(merged(fields, &body)?.into());
        }
        Form::UrlEncoded => {
            let text = std::str::from_utf8(&body).map_err(|_| Error::Pairs {
                what: "form",
                reason: "it is not UTF-8",
            })?;
            pairs.extend(query(text).map_err(|reason| Error::Pairs {
                what: "form",
                reason,
            })?);
        }
        Form::Multipart(_) if body.is_empty() => {}
        Form::Multipart(content_type) => {
            pairs.extend(multipart::fields(content_type, &body).map_err(Error::Multipart)?);
        }
    }
    let fields = method.request_json_from_query(&pairs)?;
    serde_json::to_vec(&fields)
        .map(Bytes::from)
        .map_err(Error::Json)
}

/// Splits a query string or an url-encoded form into decoded names and values. A name without `=`
/// has an empty value, and empty pieces are skipped.
///
/// # Errors
/// The reason, when an escape cannot be decoded.
pub fn query(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut pairs = Vec::new();
    for piece in text.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let (name, value) = (path::decode(name, true)?, path::decode(value, true)?);
        if !name.is_empty() {
            pairs.push((name.into_owned(), value.into_owned()));
        }
    }
    Ok(pairs)
}

fn merged(mut fields: Value, body: &[u8]) -> Result<Vec<u8>, Error> {
    if !body.iter().all(u8::is_ascii_whitespace) {
        let patch: Value = serde_json::from_slice(body).map_err(Error::Json)?;
        // A `null` means an empty message (§3.2), not "forget the query".
        if !patch.is_null() {
            merge(&mut fields, patch);
        }
    }
    serde_json::to_vec(&fields).map_err(Error::Json)
}

/// JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            object.remove(&name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The JSON values of a body that holds several, one after another: the messages of a
/// client-streaming call. An empty body is one empty message.
///
/// # Errors
/// `Invalid`, with line and column.
pub fn several(body: &Bytes) -> Result<Vec<Bytes>, Error> {
    let mut messages = Vec::new();
    let mut values =
        serde_json::Deserializer::from_slice(body).into_iter::<serde::de::IgnoredAny>();
    let mut start = 0;
    while let Some(value) = values.next() {
        value.map_err(Error::Json)?;
        let end = values.byte_offset();
        messages.push(body.slice(start..end));
        start = end;
    }
    if messages.is_empty() {
        messages.push(Bytes::new());
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_are_split_and_decoded_once() {
        let pairs = |list: &[(&str, &str)]| {
            Ok(list
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect())
        };
        for (text, expected) in [
            ("", pairs(&[])),
            ("a=1&b=2", pairs(&[("a", "1"), ("b", "2")])),
            ("a=1&a=2", pairs(&[("a", "1"), ("a", "2")])),
            ("a[b]=1&a%5Bc%5D=2", pairs(&[("a[b]", "1"), ("a[c]", "2")])),
            ("a[]=x&a[]=y", pairs(&[("a[]", "x"), ("a[]", "y")])),
            ("a.b=c+d%2Be", pairs(&[("a.b", "c d+e")])),
            ("flag", pairs(&[("flag", "")])),
            ("&a=1&&", pairs(&[("a", "1")])),
            ("a=b=c%3D", pairs(&[("a", "b=c=")])),
            ("a=%2525", pairs(&[("a", "%25")])),
            ("=x", pairs(&[])),
        ] {
            assert_eq!(query(text), expected, "{text}");
        }
        assert!(query("a=%").is_err());
        assert!(query("a=%ff").is_err());
    }

    #[test]
    fn the_body_wins_over_the_query() {
        let fields = json!({"a": 1, "b": {"c": 2, "d": 3}, "gone": true});
        let body = br#"{"a": "x", "b": {"c": 4}, "gone": null}"#;
        let text = merged(fields, body).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value, json!({"a": "x", "b": {"c": 4, "d": 3}}));
        for nothing in [&b""[..], b" \n", b"null"] {
            assert_eq!(merged(json!({"a": 1}), nothing).unwrap(), br#"{"a":1}"#);
        }
    }

    #[test]
    fn broken_json_is_located() {
        let error = merged(json!({"a": 1}), b"{\n  \"a\": }")
            .unwrap_err()
            .to_wire();
        assert_eq!(error.code, 400);
        assert!(error.detail.contains("line 2 column 8"), "{}", error.detail);
    }

    #[test]
    fn concatenated_values_are_messages() {
        let body = Bytes::from_static(b"{\"a\":1} {\"a\":2}\n{\"a\":3}");
        let several: Vec<Value> = several(&body)
            .unwrap()
            .iter()
            .map(|m| serde_json::from_slice(m).unwrap())
            .collect();
        assert_eq!(several, [json!({"a": 1}), json!({"a": 2}), json!({"a": 3})]);
        assert_eq!(super::several(&Bytes::new()).unwrap(), [Bytes::new()]);
        assert!(super::several(&Bytes::from_static(b"{} {")).is_err());
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_with_the_setting_named() {
        let none = HeaderMap::new();
        let body = |text: &'static str| body(Full::new(Bytes::from(text)), &none, 4);
        assert_eq!(body("1234").await.unwrap(), "1234");
        let error = body("12345").await.unwrap_err().to_wire();
        assert_eq!(error.code, 413);
        assert!(error.detail.contains("limits.body"), "{}", error.detail);
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let stream = || {
            let frame = |piece: &'static str| {
                Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from(piece)))
            };
            let frames = ["ab", "", "cd", "e"].map(frame);
            http_body_util::StreamBody::new(futures_util::stream::iter(frames))
        };
        assert_eq!(body(stream(), &HeaderMap::new(), 5).await.unwrap(), "abcde");
        assert!(matches!(
            body(stream(), &HeaderMap::new(), 4).await,
            Err(Error::TooLarge { limit: 4 })
        ));
    }

    proptest! {
        #[test]
        fn no_query_panics(text in "[&=%+.a-f0-9\\[\\]é]{0,40}") {
            drop(query(&text));
        }

        #[test]
        fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop(merged(json!({"a": {"b": 1}}), &bytes));
            drop(several(&bytes.into()));
        }
    }
}
