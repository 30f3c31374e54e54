//! Answers, in the shapes that Micro's clients know (Micro contract §6.2, §6.4, §6.6).

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE},
};
use http_body::Frame;
use http_body_util::StreamBody;
use micro_core::WireError;
use micro_pipeline::Body;

/// Who speaks in an error of the gateway's own.
pub(crate) const ID: &str = "go.micro.api";

/// Room for the CORS headers, type, length and date, so that an answer allocates its map once.
const HEADERS: usize = 12;

/// An answer of this status, type and body.
pub(crate) fn with_type(status: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// 200 without a body.
pub(crate) fn empty() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.headers_mut().reserve(HEADERS);
    response
}

/// A message as JSON; an empty one is `{}`.
pub(crate) fn json(message: impl Into<Bytes>) -> Response<Body> {
    let mut message = message.into();
    if message.is_empty() {
        message = Bytes::from_static(b"{}");
    }
    with_type(StatusCode::OK, "application/json", Body::full(message))
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", Body::full(text))
}

/// An error object, under the HTTP status that is its code.
pub(crate) fn error(error: &WireError) -> Response<Body> {
    let status = status_of(error);
    with_type(status, "application/json", Body::full(error.to_json()))
}

/// The HTTP status of an error; services may put any number into `code`.
pub(crate) fn status_of(error: &WireError) -> StatusCode {
    match StatusCode::from_u16(error.code) {
        // An error under a status that means success, or that has no body, would not be seen.
        Ok(status) if status.is_client_error() || status.is_server_error() => status,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the rules refused, in Micro's words.
pub(crate) fn refused(status: StatusCode) -> Response<Body> {
    if status == StatusCode::FORBIDDEN {
        return text(status, "Forbidden request\n");
    }
    let mut response = text(StatusCode::UNAUTHORIZED, "unauthorized request\n");
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// 301 to a clean path.
pub(crate) fn redirect(path: &str, query: Option<&str>) -> Response<Body> {
    let mut to = path.to_owned();
    if let Some(query) = query {
        to.push('?');
        to.push_str(query);
    }
    let Ok(to) = HeaderValue::try_from(to) else {
        return error(&WireError::with_code(
            ID,
            400,
            "cannot read the query: it holds a control character",
        ));
    };
    let mut response = empty();
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, to);
    response
}

/// An answer that arrives piece by piece.
pub(crate) fn chunks(
    media: &'static str,
    chunks: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = with_type(StatusCode::OK, media, Body::boxed(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Reverse proxies that buffer would hold messages back; nginx asks for this word.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn read(response: Response<Body>) -> (u16, String, Bytes) {
        let status = response.status().as_u16();
        let media = response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        (
            status,
            media,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    #[tokio::test]
    async fn refusals_and_errors_look_as_micros_do() {
        let text = "text/plain; charset=utf-8".to_owned();
        let expected = (
            401,
            text.clone(),
            Bytes::from_static(b"unauthorized request\n"),
        );
        assert_eq!(read(refused(StatusCode::UNAUTHORIZED)).await, expected);
        let expected = (403, text, Bytes::from_static(b"Forbidden request\n"));
        assert_eq!(read(refused(StatusCode::FORBIDDEN)).await, expected);
        let (status, media, body) = read(error(&WireError::with_code("a", 404, "gone"))).await;
        assert_eq!((status, &*media), (404, "application/json"));
        assert_eq!(
            body,
            r#"{"id":"a","code":404,"detail":"gone","status":"Not Found"}"#
        );
    }

    #[tokio::test]
    async fn an_empty_message_is_an_empty_object() {
        assert_eq!(read(json(Bytes::new())).await.2, "{}");
        assert_eq!(read(json("[1]")).await.2, "[1]");
    }

    #[test]
    fn an_error_is_never_sent_as_a_success() {
        for (code, status) in [
            (0, 500),
            (200, 500),
            (204, 500),
            (301, 500),
            (418, 418),
            (599, 599),
            (9999, 500),
        ] {
            assert_eq!(
                status_of(&WireError::with_code("a", code, "")).as_u16(),
                status
            );
        }
    }
}
