//! Plain HTTP services, passed through: at `/<name>/…` without that prefix, or under a host name of
//! their own with the whole path. WebSockets and server-sent events included, because nothing here
//! looks into a body.

use http::{HeaderName, HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use micro_core::{Kind, WireError};
use micro_pipeline::{Admitted, Body};

use crate::{
    Gateway, path, request as incoming,
    respond::{self, ID},
};

static FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Marks the answers of plain HTTP services among all that the gateway gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page;

/// Hands a request on; `prefix` is the first segment of its path, if that named the service.
pub(crate) async fn forward(
    gateway: &Gateway,
    admitted: &Admitted,
    mut request: Request<Incoming>,
    prefix: Option<&str>,
) -> Response<Body> {
    let unusable = || {
        let detail = "cannot hand the path on to the service: it is no valid request target";
        respond::error(&WireError::new(ID, Kind::Invalid, detail))
    };
    let host = request
        .uri()
        .authority()
        .and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let Some(target) = target(request.uri(), prefix) else {
        return unusable();
    };
    *request.uri_mut() = target.into();
    let headers = request.headers_mut();
    incoming::strip(headers);
    // What a client claims about its way is not to be believed.
    headers.remove(&FORWARDED_PREFIX);
    if let Some(prefix) = prefix {
        let Ok(value) = HeaderValue::try_from(format!("/{prefix}")) else {
            return unusable();
        };
        headers.insert(&FORWARDED_PREFIX, value);
    }
    // HTTP/2 carries the host in the request target, which is rewritten.
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    let mut response = gateway.upstreams.forward_http(admitted, request).await;
    response.extensions_mut().insert(Page);
    response
}

/// The request target as the service gets it: byte for byte what the client sent, but for the
/// prefix.
fn target(uri: &Uri, prefix: Option<&str>) -> Option<PathAndQuery> {
    let Some(prefix) = prefix else {
        return uri.path_and_query().cloned();
    };
    let (segment, rest) = path::first_segment(uri.path())?;
    // A name that was escaped together with a slash after it names nothing.
    if path::decode(segment, false).ok()? != prefix {
        return None;
    }
    let mut target = String::with_capacity(uri.path().len() + 1 + uri.query().map_or(0, str::len));
    if !rest.starts_with('/') {
        target.push('/');
    }
    target.push_str(rest);
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    target.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_prefix_is_taken_from_a_path() {
        let stripped =
            |uri: &str| target(&uri.parse().unwrap(), Some("web")).map(|t| t.to_string());
        assert_eq!(stripped("/web").as_deref(), Some("/"));
        assert_eq!(stripped("/web/").as_deref(), Some("/"));
        assert_eq!(stripped("/web?a=b").as_deref(), Some("/?a=b"));
        assert_eq!(
            stripped("/web/a%2Fb/?q=%20").as_deref(),
            Some("/a%2Fb/?q=%20")
        );
        assert_eq!(stripped("/%77eb/a").as_deref(), Some("/a"));
        assert_eq!(stripped("/web%2Fa"), None);
        let whole = target(&"http://a.b/web/x?y".parse().unwrap(), None).unwrap();
        assert_eq!(whole, "/web/x?y");
    }
}
