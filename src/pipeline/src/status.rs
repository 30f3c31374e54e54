//! How failures look on the wire: a gRPC response that is only trailers, or an HTTP response with
//! Micro's error object.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use micro_core::WireError;
use micro_proto::status;
use tonic::{Code, Status};

use crate::body::Body;

static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A gRPC answer that carries Micro's error object.
pub fn grpc_error(error: &WireError) -> Response<Body> {
    status::from_wire(error).into_http()
}

/// A gRPC answer with a bare text. Micro's clients look for some texts and expect no JSON around
/// them (contract §3.1, §7.6).
pub fn grpc_plain(code: Code, text: impl Into<String>) -> Response<Body> {
    Status::new(code, text).into_http()
}

/// An HTTP answer whose status is the error's code and whose body is Micro's error object.
pub fn http_error(error: &WireError) -> Response<Body> {
    let mut response = Response::new(Body::full(error.to_json()));
    *response.status_mut() =
        StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, JSON.clone());
    response
}

/// The trailers that end a stream with `error`.
pub(crate) fn trailers(error: &WireError) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(2);
    if status::from_wire(error).add_header(&mut map).is_err() {
        map.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
    map
}

/// The gRPC code in a response's headers or trailers, if there is one.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(&crate::header::GRPC_STATUS)
        .map(|v| Code::from_bytes(v.as_bytes()))
}

/// The error in a response's headers or trailers; `None` when they say OK or nothing.
pub(crate) fn error_in(headers: &HeaderMap) -> Option<WireError> {
    match code_in(headers)? {
        Code::Ok => None,
        _ => Status::from_header_map(headers).map(|s| status::to_wire(&s)),
    }
}
