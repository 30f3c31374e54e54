//! Cross-origin headers, the same on every answer (Micro contract §6.3), but for credentials, which
//! plain HTTP services do not get.

use http::{HeaderMap, HeaderValue, header};

const METHODS: HeaderValue = HeaderValue::from_static("POST, PATCH, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, Micro-Namespace",
);
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Adds the headers to an answer to a request from `origin`. A plain HTTP service that has said for
/// itself who may read its answers is left alone. `credentials` is for calls, where a cookie of
/// another site counts for nothing; plain HTTP services have cookies of their own, and only they
/// can say which other sites may use those.
pub(crate) fn apply(headers: &mut HeaderMap, origin: Option<HeaderValue>, credentials: bool) {
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    if origin.is_some() {
        // The answer differs by origin, and caches must know it.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.unwrap_or(ANY));
    if credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    } else {
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_echoed_and_the_rest_is_fixed() {
        let mut headers = HeaderMap::new();
        apply(
            &mut headers,
            Some(HeaderValue::from_static("https://a.example")),
            true,
        );
        assert_eq!(headers["access-control-allow-origin"], "https://a.example");
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["vary"], "Origin");
        let mut headers = HeaderMap::new();
        apply(&mut headers, None, true);
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert!(!headers.contains_key("vary"));
    }

    #[test]
    fn a_service_with_a_mind_of_its_own_is_left_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "access-control-allow-origin",
            HeaderValue::from_static("https://b.example"),
        );
        apply(
            &mut headers,
            Some(HeaderValue::from_static("https://a.example")),
            true,
        );
        assert_eq!(headers.len(), 1);
    }
}
