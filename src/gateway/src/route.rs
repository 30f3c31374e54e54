//! What a request asks for, and who answers it.

use std::sync::Arc;

use http::{HeaderMap, Method as Verb, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use micro_core::{Kind, Namespace, WireError};
use micro_pipeline::{
    Admitted, Ask, Body, Door, GrpcPath, Protocol, TOKEN_COOKIE, forget_token, grpc_error,
    grpc_plain, is_grpc,
};
use tonic::Code;

use crate::{
    Gateway, blob, call, cors,
    origin::Origin,
    path::{self, Cleaned},
    plain,
    respond::{self, ID},
    stream, websocket,
};

/// Answers one request.
pub(crate) async fn answer(
    gateway: Arc<Gateway>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    if request.version() == Version::HTTP_2 && is_grpc(request.headers()) {
        return Box::pin(grpc(&gateway, request)).await;
    }
    let uri = request.uri().clone();
    let clean = match path::clean(uri.path()) {
        Cleaned::Clean(path) => Some(path),
        _ if request.method() == Verb::OPTIONS => None,
        Cleaned::Redirect(to) => return with_cors(&request, respond::redirect(&to, uri.query())),
        Cleaned::Invalid(reason) => {
            let detail =
                format!("cannot read the path: {reason}\nhint: percent-encode it once, as UTF-8");
            return with_cors(
                &request,
                respond::error(&WireError::new(ID, Kind::Invalid, detail)),
            );
        }
    };
    let host = host(&request).map(str::to_owned);
    let host = host.as_deref();
    let whose = Origin::of(&request, host);
    if whose == Origin::Other {
        forget_token(request.headers_mut());
    }
    let named = host.and_then(|h| path::host(h, &gateway.settings.domain));
    let namespace = named.and_then(|n| n.namespace).map(str::to_owned);
    if let Some(named) = named
        && is_plain(&gateway, named)
    {
        // A web application under its own name decides for itself which other origins may read it.
        let Some(path) = clean.as_deref() else {
            let detail = "cannot read the path\nhint: write it without empty or dotted parts";
            return respond::error(&WireError::new(ID, Kind::Invalid, detail));
        };
        let namespace = named.namespace.unwrap_or("micro").to_owned();
        let service = named.service.to_owned();
        let admitted = admit(
            &gateway,
            request.headers(),
            Some(&namespace),
            &service,
            path,
        );
        return match admitted {
            Ok(admitted) => Box::pin(plain::forward(&gateway, &admitted, request, None)).await,
            Err(error) => refused(&error),
        };
    }
    let path = clean.as_deref().unwrap_or("/");
    let origin = request.headers().get(header::ORIGIN).cloned();
    if request.method() == Verb::OPTIONS {
        // Asked before the request that has the headers which say what service is meant.
        let pages = path::first_segment(path)
            .is_some_and(|(name, _)| gateway.pipeline.router().has_http(name));
        let mut response = respond::empty();
        cors::apply(response.headers_mut(), origin, !pages);
        return response;
    }
    let by_path = by_path(gateway, request, &uri, path, namespace.as_deref(), whose);
    let mut response = by_path.await;
    let is_page = response.extensions_mut().remove::<plain::Page>().is_some();
    cors::apply(response.headers_mut(), origin, !is_page);
    response
}

fn with_cors(request: &Request<Incoming>, mut response: Response<Body>) -> Response<Body> {
    cors::apply(
        response.headers_mut(),
        request.headers().get(header::ORIGIN).cloned(),
        true,
    );
    response
}

/// The host a request was sent to.
fn host(request: &Request<Incoming>) -> Option<&str> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers().get(header::HOST)?.to_str().ok())
}

/// Whether a host name is that of a plain HTTP service. Any other name is just one of the gateway's.
fn is_plain(gateway: &Gateway, named: path::HostName<'_>) -> bool {
    let namespace = named
        .namespace
        .map_or_else(|| Ok(Namespace::operator()), Namespace::parse);
    namespace.is_ok_and(|namespace| {
        let route = gateway
            .pipeline
            .router()
            .route(&namespace, named.service, "");
        route.is_some_and(|route| route.protocol() == Protocol::Http)
    })
}

/// Answers a request whose path says what it wants.
async fn by_path(
    gateway: Arc<Gateway>,
    mut request: Request<Incoming>,
    uri: &Uri,
    path: &str,
    namespace: Option<&str>,
    whose: Origin,
) -> Response<Body> {
    let Some(call) = path::parse(path) else {
        return respond::text(StatusCode::OK, gateway.version.clone());
    };
    if path == "/favicon.ico" {
        return respond::empty();
    }
    if let Some((namespace, key)) = blob::address(request.method(), path) {
        let headers = request.headers();
        return Box::pin(blob::answer(&gateway.blobs, namespace, key, headers)).await;
    }
    let headers = request.headers();
    let first = path::first_segment(path);
    let admitted = match admit(&gateway, headers, namespace, &call.service, &call.endpoint) {
        Ok(admitted) => admitted,
        Err(error) => {
            // `/web/a/b/c` may be the page `/a/b/c` of `web` rather than `B.C` of `web.a`; and rules
            // that refuse an endpoint may allow the page of that name.
            let may_be_page = |service: &str| service != call.service || is_refusal(&error);
            let Some((service, rest)) = first.filter(|(service, _)| may_be_page(service)) else {
                return refused(&error);
            };
            match admit(&gateway, headers, namespace, service, page(rest)) {
                Ok(admitted) if admitted.target.protocol() == Protocol::Http => {
                    return Box::pin(plain::forward(&gateway, &admitted, request, Some(service)))
                        .await;
                }
                Err(other) if is_refusal(&other) && !is_refusal(&error) => return refused(&other),
                _ => return refused(&error),
            }
        }
    };
    if admitted.target.protocol() == Protocol::Http {
        // Rules know the pages of an HTTP service by their paths, not by an endpoint's name.
        let (service, rest) = match first {
            Some((service, rest)) if service == call.service => (service, rest),
            _ => return Box::pin(dotted(&gateway, request, path, &call.service, namespace)).await,
        };
        return match admit(&gateway, headers, namespace, service, page(rest)) {
            Ok(admitted) => {
                Box::pin(plain::forward(&gateway, &admitted, request, Some(service))).await
            }
            Err(error) => refused(&error),
        };
    }
    let admitted = if whose == Origin::Link && token(headers).is_some() {
        // A link leads to a page; nobody follows one to make a call.
        forget_token(request.headers_mut());
        let headers = request.headers();
        match admit(&gateway, headers, namespace, &call.service, &call.endpoint) {
            Ok(admitted) => admitted,
            Err(error) => return refused(&error),
        }
    } else {
        admitted
    };
    let headers = request.headers();
    let admitted = match resolve(&gateway, headers, namespace, &call, admitted) {
        Ok(admitted) => admitted,
        Err(error) => return refused(&error),
    };
    let Some(method) = admitted.method() else {
        return respond::error(&no_endpoint(&admitted, &call.endpoint));
    };
    if websocket::is_asked(headers) {
        return stream::upgrade(gateway, admitted, request);
    }
    if method.is_streaming() {
        return Box::pin(stream::answer(gateway, admitted, request, uri)).await;
    }
    call::answer(&gateway, &admitted, method, request, uri).await
}

/// What the rules are asked about a page of an HTTP service.
fn page(rest: &str) -> &str {
    if rest.is_empty() { "/" } else { rest }
}

/// An HTTP service with a dot in its name, asked as `/a/b/…`: it answers at `/a.b/…` only, because
/// no one can tell how much of the path is its name.
async fn dotted(
    gateway: &Gateway,
    request: Request<Incoming>,
    path: &str,
    service: &str,
    namespace: Option<&str>,
) -> Response<Body> {
    let first = path::first_segment(path);
    if let Some((segment, rest)) = first
        && let Ok(admitted) = admit(gateway, request.headers(), namespace, segment, page(rest))
        && admitted.target.protocol() == Protocol::Http
    {
        return plain::forward(gateway, &admitted, request, Some(segment)).await;
    }
    let detail =
        format!("service not found\nhint: the HTTP service {service} answers at /{service}/");
    respond::error(&WireError::new(ID, Kind::NotFound, detail))
}

/// Follows a path to an endpoint whose struct has another name than the service: `/hello/sayHello`
/// is `Greeter.SayHello` when only one struct of `hello` has such a method. The rules are asked again,
/// about the endpoint that is called.
fn resolve(
    gateway: &Gateway,
    headers: &HeaderMap,
    namespace: Option<&str>,
    call: &path::Call<'_>,
    admitted: Admitted,
) -> Result<Admitted, WireError> {
    if admitted.method().is_some() {
        return Ok(admitted);
    }
    let Some((_, wanted)) = call.endpoint.rsplit_once('.') else {
        return Ok(admitted);
    };
    let schema = Arc::clone(admitted.target.schema());
    let mut like = schema.methods().iter().filter(|method| {
        let name = method.endpoint.rsplit('.').next().unwrap_or_default();
        same_word(name, wanted)
    });
    match (like.next(), like.next()) {
        (Some(only), None) => admit(gateway, headers, namespace, &call.service, &only.endpoint),
        _ => Ok(admitted),
    }
}

/// Whether two names differ in case, dashes and underscores only.
fn same_word(a: &str, b: &str) -> bool {
    let letters = |text: &'_ str| -> Vec<u8> {
        let kept = text.bytes().filter(|b| !matches!(b, b'-' | b'_'));
        kept.map(|b| b.to_ascii_lowercase()).collect()
    };
    a == b || letters(a) == letters(b)
}

/// Asks the pipeline.
fn admit(
    gateway: &Gateway,
    headers: &HeaderMap,
    namespace: Option<&str>,
    service: &str,
    endpoint: &str,
) -> Result<Admitted, WireError> {
    gateway.pipeline.admit(&Ask {
        door: Door::Gateway,
        headers,
        token: token(headers),
        namespace,
        service,
        endpoint,
    })
}

/// The token in a cookie, for requests that have none in a header. Other schemes than `Bearer` mean
/// nothing to the gateway and do not hide it.
fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    cookies.flat_map(|line| line.split(';')).find_map(|cookie| {
        let value = cookie
            .trim()
            .strip_prefix(TOKEN_COOKIE)?
            .strip_prefix('=')?
            .trim_matches('"');
        // Micro's own web sets the name a second time, inside the value.
        let value = value.strip_prefix("micro-token=").unwrap_or(value);
        (!value.is_empty()).then_some(value)
    })
}

fn is_refusal(error: &WireError) -> bool {
    matches!(error.code, 401 | 403)
}

/// The answer to a request that was not let in.
fn refused(error: &WireError) -> Response<Body> {
    match error.code {
        401 => respond::refused(StatusCode::UNAUTHORIZED),
        403 => respond::refused(StatusCode::FORBIDDEN),
        404 => {
            // Names of services are for accounts only: the registry does not tell strangers either.
            let detail = "service not found\nhint: `micro services` lists what runs; the header Micro-Namespace chooses where";
            respond::error(&WireError::new(ID, Kind::NotFound, detail))
        }
        _ => respond::error(error),
    }
}

fn no_endpoint(admitted: &Admitted, endpoint: &str) -> WireError {
    let schema = admitted.target.schema();
    let known: Vec<&str> = schema
        .methods()
        .iter()
        .map(|m| m.endpoint.as_str())
        .take(50)
        .collect();
    let hint = if known.is_empty() {
        "the service does not say what it offers: switch gRPC reflection on, or deploy its .proto files with it".to_owned()
    } else {
        format!("{} has {}", admitted.target.name(), known.join(", "))
    };
    WireError::new(
        ID,
        Kind::NotFound,
        format!("endpoint {endpoint} not found\nhint: {hint}"),
    )
}

/// gRPC on the gateway's port: the same as at the proxy's.
async fn grpc(gateway: &Gateway, request: Request<Incoming>) -> Response<Body> {
    let Some(path) = GrpcPath::parse(request.uri().path()) else {
        let text = format!("malformed method name: {:?}", request.uri().path());
        return grpc_plain(Code::InvalidArgument, text);
    };
    let ask = Ask {
        door: Door::Proxy,
        headers: request.headers(),
        token: None,
        namespace: None,
        service: path.service,
        endpoint: &path.endpoint,
    };
    match gateway.pipeline.admit_grpc(&ask, request.uri().path()) {
        Ok(admitted) => gateway.upstreams.forward_grpc(&admitted, request).await,
        Err(error) => grpc_error(&error),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_token_is_found_among_cookies() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), None);
        for (cookie, expected) in [
            ("a=b; micro-token=abc; c=d", Some("abc")),
            ("micro-token=micro-token=abc", Some("abc")),
            ("micro-token=\"abc\"", Some("abc")),
            ("micro-token=", None),
            ("micro-tokens=abc", None),
            ("xmicro-token=abc", None),
        ] {
            headers.insert(header::COOKIE, HeaderValue::from_static(cookie));
            assert_eq!(token(&headers), expected, "{cookie}");
        }
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("micro-token=second"),
        );
        assert_eq!(token(&headers), Some("second"));
    }

    #[test]
    fn names_are_compared_as_people_spell_them() {
        assert!(same_word("SayHello", "sayhello"));
        assert!(same_word("SayHello", "say_hello"));
        assert!(!same_word("SayHello", "SayHallo"));
    }
}
