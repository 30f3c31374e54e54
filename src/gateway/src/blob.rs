//! Public blobs: `GET /blob/<namespace>/<key>`, for everybody, without identity and rules, because
//! who wrote the blob has said so. One that is not public is not there.
//!
//! Tenants upload them and they are served under the gateway's own name, so a browser is told to
//! trust nothing about them: the type is what the tenant said and is not guessed, and a document is
//! shown in a sandbox, where it can run no script and is of no origin.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use micro_core::{Kind, Namespace, WireError};
use micro_pipeline::{Body, BoxError};

use crate::respond::{self, ID};

/// Where the gateway finds public blobs.
pub trait PublicBlobs: Send + Sync {
    /// The blob; a 404 when there is none, or it is not public.
    fn find(
        &self,
        namespace: Namespace,
        key: String,
    ) -> BoxFuture<'static, Result<PublicBlob, WireError>>;
}

/// Gives the bytes of a blob in that range.
pub type Content =
    Box<dyn FnOnce(Range<u64>) -> BoxStream<'static, Result<Bytes, BoxError>> + Send>;

/// A blob that everybody may read.
pub struct PublicBlob {
    /// Its bytes.
    pub size: u64,
    /// What it is; may be empty.
    pub content_type: String,
    /// Another one each time the blob is written; visible ASCII without quotes.
    pub tag: String,
    /// The bytes.
    pub content: Content,
}

impl std::fmt::Debug for PublicBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicBlob")
            .field("size", &self.size)
            .field("content_type", &self.content_type)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// The namespace and the key in a clean path, if a request of this method asks for a blob.
pub(crate) fn address<'a>(method: &Method, path: &'a str) -> Option<(&'a str, &'a str)> {
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    let (namespace, key) = path.strip_prefix("/blob/")?.split_once('/')?;
    (!key.is_empty()).then_some((namespace, key))
}

/// Answers a request for a blob.
pub(crate) async fn answer(
    blobs: &Arc<dyn PublicBlobs>,
    namespace: &str,
    key: &str,
    headers: &HeaderMap,
) -> Response<Body> {
    let found = match Namespace::parse(namespace) {
        Ok(namespace) => blobs.find(namespace, key.to_owned()).await,
        Err(_) => Err(WireError::new(ID, Kind::NotFound, "Blob not found")),
    };
    let mut response = match found {
        Ok(blob) => found_answer(blob, headers),
        Err(error) => respond::error(&error),
    };
    // No cookie counts here, so pages of all origins may read it.
    response.headers_mut().insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

fn found_answer(blob: PublicBlob, asked: &HeaderMap) -> Response<Body> {
    let mut response = respond::empty();
    let tag = format!("\"{}\"", blob.tag);
    let range = range(asked, blob.size, &tag);
    let headers = response.headers_mut();
    for (name, value) in [
        // It may be replaced at any time; the tag makes asking again cheap.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ACCEPT_RANGES, "bytes"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::try_from(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if is_known(asked, &tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let content_type = HeaderValue::try_from(blob.content_type)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, content_type);
    let bytes = match range {
        Asked::All => 0..blob.size,
        Asked::Part(part) => {
            let last = part.end.saturating_sub(1);
            let value = format!("bytes {}-{last}/{}", part.start, blob.size);
            insert(headers, header::CONTENT_RANGE, &value);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            part
        }
        Asked::Beyond => {
            let value = format!("bytes */{}", blob.size);
            insert(headers, header::CONTENT_RANGE, &value);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            headers.remove(header::CONTENT_TYPE);
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return response;
        }
    };
    let length = bytes.end - bytes.start;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if length > 0 {
        let frames = (blob.content)(bytes).map(|chunk| chunk.map(Frame::data));
        *response.body_mut() = Body::boxed(StreamBody::new(frames));
    }
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// Whether the client has it already.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().trim_start_matches("W/"))
        .any(|value| value == tag || value == "*")
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Part(Range<u64>),
    /// Nothing of the blob.
    Beyond,
}

/// Which bytes are asked for. What cannot be read, and several ranges at once, are answered with the
/// whole, as the protocol allows (RFC 9110 §14.2).
fn range(headers: &HeaderMap, size: u64, tag: &str) -> Asked {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|wanted| wanted != tag) {
        return Asked::All;
    }
    let spec = text(header::RANGE).and_then(|value| value.strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.trim().split_once('-')) else {
        return Asked::All;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(most)) if first.is_empty() => size.saturating_sub(most)..size,
        _ => return Asked::All,
    };
    if part.start < part.end {
        Asked::Part(part)
    } else {
        Asked::Beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranged(value: &str) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, value.parse().unwrap());
        range(&headers, 10, "\"t\"")
    }

    #[test]
    fn ranges_are_read_as_the_protocol_says() {
        for (value, wanted) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-5", Asked::Part(2..6)),
            ("bytes=2-500", Asked::Part(2..10)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=99999999999999999999999-", Asked::Beyond),
            ("bytes=5-2", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("bytes=-", Asked::All),
            ("lines=1-2", Asked::All),
        ] {
            assert_eq!(ranged(value), wanted, "{value}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=2-5".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(range(&headers, 10, "\"t\""), Asked::All);
    }

    #[test]
    fn a_path_of_a_blob_has_a_namespace_and_a_key() {
        let get = |path| address(&Method::GET, path);
        assert_eq!(get("/blob/foo/a"), Some(("foo", "a")));
        assert_eq!(get("/blob/foo/a/b/"), Some(("foo", "a/b/")));
        for path in ["/blob", "/blob/", "/blob/foo", "/blob/foo/", "/blobs/foo/a"] {
            assert_eq!(get(path), None, "{path}");
        }
        assert_eq!(address(&Method::POST, "/blob/foo/a"), None);
    }
}
