//! Whose page makes a request. A browser adds the token's cookie to whatever any page asks of us, so
//! the cookie alone proves who sits there, not who wants it.
//!
//! | the request comes from | the cookie counts for |
//! |---|---|
//! | one of our own pages, the address bar, a program | everything |
//! | a link on another site that the person followed | pages of plain HTTP services |
//! | another site's script, form, picture or frame | nothing |
//!
//! Other hosts of the same domain are other sites: each tenant's pages have a host of their own.
//! A token in `Authorization` is not touched, for no browser adds that by itself.

use http::{HeaderMap, HeaderName, Method, Request, header};

static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What made a browser, or a program, send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Our own page, the person, or no browser at all.
    Own,
    /// A link elsewhere that the person followed.
    Link,
    /// Another site.
    Other,
}

impl Origin {
    /// Tells it from what browsers say: `Sec-Fetch-*`; or, where they send none of it (without TLS,
    /// and old ones), `Origin`, or else `Referer`. `host` is where the request was sent to.
    pub(crate) fn of<B>(request: &Request<B>, host: Option<&str>) -> Self {
        let headers = request.headers();
        let safe = matches!(*request.method(), Method::GET | Method::HEAD);
        let followed = |navigates: bool| {
            if safe && navigates {
                Self::Link
            } else {
                Self::Other
            }
        };
        if let Some(site) = headers.get(&FETCH_SITE) {
            if site == "same-origin" || site == "none" {
                return Self::Own;
            }
            let says = |name, value: &str| headers.get(name).is_some_and(|v| v == value);
            return followed(says(&FETCH_MODE, "navigate") && says(&FETCH_DEST, "document"));
        }
        if headers.contains_key(header::ORIGIN) {
            return if all_ours(headers, &header::ORIGIN, host) {
                Self::Own
            } else {
                Self::Other
            };
        }
        if headers.contains_key(header::REFERER) && !all_ours(headers, &header::REFERER, host) {
            return followed(true);
        }
        Self::Own
    }
}

/// Whether all headers of this name are addresses at `host`.
fn all_ours(headers: &HeaderMap, name: &HeaderName, host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    headers.get_all(name).iter().all(|value| {
        let address = value.to_str().unwrap_or_default();
        let rest = address.split_once("://").map_or("", |(_, rest)| rest);
        let named = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !named.is_empty() && named.eq_ignore_ascii_case(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(method: &str, pairs: &[(&str, &str)]) -> Origin {
        let mut request = Request::builder().method(method);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        Origin::of(&request.body(()).unwrap(), Some("api.test:8080"))
    }

    #[test]
    fn browsers_say_who_asks() {
        let site = |site, mode, dest| {
            [
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
                ("origin", "http://api.test:8080"),
            ]
        };
        for own in ["same-origin", "none"] {
            assert_eq!(origin("POST", &site(own, "cors", "empty")), Origin::Own);
        }
        for other in ["same-site", "cross-site", "anything"] {
            let link = site(other, "navigate", "document");
            assert_eq!(origin("GET", &link), Origin::Link);
            assert_eq!(origin("POST", &link), Origin::Other);
            for (mode, dest) in [
                ("cors", "empty"),
                ("no-cors", "image"),
                ("navigate", "iframe"),
            ] {
                assert_eq!(origin("GET", &site(other, mode, dest)), Origin::Other);
            }
        }
    }

    #[test]
    fn without_that_the_addresses_are_compared() {
        for own in ["http://api.test:8080", "https://API.test:8080"] {
            assert_eq!(origin("POST", &[("origin", own)]), Origin::Own);
        }
        for other in [
            "null",
            "",
            "http://api.test",
            "http://evil.test/api.test:8080",
        ] {
            assert_eq!(
                origin("GET", &[("origin", other)]),
                Origin::Other,
                "{other}"
            );
        }
        let two = [
            ("origin", "http://api.test:8080"),
            ("origin", "http://evil.test"),
        ];
        assert_eq!(origin("GET", &two), Origin::Other);
        assert_eq!(
            origin("GET", &[("referer", "http://evil.test/x")]),
            Origin::Link
        );
        assert_eq!(
            origin("POST", &[("referer", "http://evil.test/x")]),
            Origin::Other
        );
        assert_eq!(
            origin("POST", &[("referer", "http://api.test:8080/x")]),
            Origin::Own
        );
        assert_eq!(origin("POST", &[]), Origin::Own, "a program");
    }
}
