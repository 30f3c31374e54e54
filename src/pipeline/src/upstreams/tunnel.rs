//! HTTP/1.1 passed through: bodies as they come, protocol upgrades as a tunnel.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
    uri::PathAndQuery,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Empty;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use micro_core::{Fault as _, Kind, WireError};

use super::{
    Inner,
    grpc::namespace,
    http1::{Connection, Outgoing},
    watched::Watched,
};
use crate::{
    admission::{Admitted, Target},
    body::Body,
    error::Error,
    header::{MICRO_ACCOUNT, strip_hops, strip_ours},
    metrics::Outcome,
    ports::{Peer, Protocol},
    router::{Route, backend::Flight},
    status,
};

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub(super) async fn forward(
    inner: &Arc<Inner>,
    admitted: &Admitted,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut record = admitted.record();
    let route = match &admitted.target {
        Target::Service(route) if route.protocol() == Protocol::Http => route,
        _ => {
            let error = Error::Protocol {
                service: admitted.target.name().to_owned(),
                speaks: "gRPC",
                asked: "HTTP",
            };
            record.ended(Outcome::of_http(StatusCode::NOT_IMPLEMENTED));
            return status::http_error(&error.to_wire());
        }
    };
    let upgrade = wanted_upgrade(&mut request);
    prepare(&mut request, admitted, upgrade.is_some());
    let wants = upgrade.map(|(_, caller)| caller);
    match exchange(inner, route, request).await {
        Ok((response, connection, flight)) => {
            let (mut parts, body) = response.into_parts();
            if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                return match wants {
                    Some(caller) => {
                        record.ended(Outcome::of_http(parts.status));
                        let response = Response::from_parts(parts, body);
                        tunnel(response, caller, (flight, record))
                    }
                    None => {
                        record.ended(Outcome::of_http(StatusCode::BAD_GATEWAY));
                        status::http_error(&unasked(admitted.target.name()))
                    }
                };
            }
            strip_hops(&mut parts.headers);
            let body = Reply {
                body,
                connection: Some(connection),
                _flight: flight,
            };
            let body = Watched::http(body, parts.status, record);
            Response::from_parts(parts, Body::boxed(body))
        }
        Err(error) => {
            let wire = error.to_wire();
            record.ended(Outcome::of_http(
                StatusCode::from_u16(error.kind().http()).unwrap_or_default(),
            ));
            status::http_error(&wire)
        }
    }
}

/// Sends the request to an instance. It goes out again only if it has not left this process (the
/// connection was refused, or a kept one turned out to be closed), or if it has no body and by its
/// method changes nothing, and a kept connection was closed while it was on its way.
async fn exchange(
    inner: &Arc<Inner>,
    route: &Arc<Route>,
    request: Request<Incoming>,
) -> Result<(Response<Incoming>, Connection, Flight), Error> {
    let mut request = request.map(Outgoing::Left);
    let repeatable = request.method().is_safe() && request.body().is_end_stream();
    let service = || route.service().as_str().to_owned();
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut last = None;
    loop {
        let Some(flight) = route.pick(&tried) else {
            return Err(last.unwrap_or_else(|| Error::NoInstance { service: service() }));
        };
        let address = flight.backend.address;
        let mut connection = match inner.http.take(address).await {
            Ok(connection) => connection,
            Err(reason) => {
                flight.backend.failed();
                tried.push(address);
                last = Some(Error::Unreachable {
                    service: service(),
                    address,
                    reason,
                });
                continue;
            }
        };
        flight.backend.works();
        let copy = (repeatable && connection.reused).then(|| head(&request));
        match connection.sender.try_send_request(request).await {
            Ok(response) => return Ok((response, connection, flight)),
            Err(mut failure) => {
                let unsent = failure.take_message().or(copy);
                let error = Error::Broken {
                    service: service(),
                    address,
                    reason: failure.into_error().to_string().into(),
                };
                match unsent {
                    Some(message) if connection.reused => request = message,
                    _ => return Err(error),
                }
                last = Some(error);
            }
        }
    }
}

/// The same request without its body.
fn head(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Outgoing::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The protocol a caller wants to change to, and the caller's half of the tunnel.
fn wanted_upgrade(request: &mut Request<Incoming>) -> Option<(HeaderValue, OnUpgrade)> {
    let listed = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(header::UPGRADE)?.clone();
    listed.then(|| (protocol, hyper::upgrade::on(request)))
}

fn prepare(request: &mut Request<Incoming>, admitted: &Admitted, upgrades: bool) {
    let peer = request.extensions().get::<Peer>().copied();
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let host = request
        .headers()
        .get(header::HOST)
        .cloned()
        .or_else(|| {
            let authority = request.uri().authority()?;
            HeaderValue::from_str(authority.as_str()).ok()
        })
        .unwrap_or_else(|| HeaderValue::from_static("localhost"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;

    let headers = request.headers_mut();
    let protocol = headers.get(header::UPGRADE).cloned();
    strip_hops(headers);
    strip_ours(headers);
    if let (true, Some(protocol)) = (upgrades, protocol) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers.insert(&FORWARDED_HOST, host.clone());
    headers.insert(header::HOST, host);
    if let Some(peer) = peer {
        forwarded_for(headers, peer);
        let scheme = if peer.tls { "https" } else { "http" };
        headers.insert(&FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    namespace(headers, admitted);
    if let Some(account) = admitted
        .caller
        .account
        .as_ref()
        .filter(|_| admitted.at_home)
        && let Ok(id) = HeaderValue::from_bytes(account.id.as_str().as_bytes())
    {
        headers.insert(&MICRO_ACCOUNT, id);
    }
}

fn forwarded_for(headers: &mut HeaderMap, peer: Peer) {
    let ip = peer.address.ip().to_canonical();
    let chain = headers
        .get(&FORWARDED_FOR)
        .and_then(|v| v.to_str().ok())
        .map_or_else(|| ip.to_string(), |before| format!("{before}, {ip}"));
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert(&FORWARDED_FOR, value);
    }
}

fn unasked(service: &str) -> WireError {
    WireError::new(
        crate::error::SPEAKER,
        Kind::Internal,
        format!("service {service}: it changed the protocol without being asked to"),
    )
}

/// Joins the two halves once both have changed the protocol; `held` lives as long as the tunnel.
fn tunnel<H: Send + 'static>(
    mut response: Response<Incoming>,
    caller: OnUpgrade,
    held: H,
) -> Response<Body> {
    let instance = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let _held = held;
        let (caller, instance) = match tokio::try_join!(caller, instance) {
            Ok(halves) => halves,
            Err(error) => {
                tracing::debug!(%error, "A change of protocols did not happen.");
                return;
            }
        };
        let (mut caller, mut instance) = (TokioIo::new(caller), TokioIo::new(instance));
        if let Err(error) = tokio::io::copy_bidirectional(&mut caller, &mut instance).await {
            tracing::debug!(%error, "A tunnel broke.");
        }
    });
    response.map(|_| Body::empty())
}

/// The body of an instance's answer; the connection is kept when it has ended.
struct Reply {
    body: Incoming,
    connection: Option<Connection>,
    _flight: Flight,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let ended = match &frame {
            None => true,
            Some(Ok(_)) => self.body.is_end_stream(),
            Some(Err(_)) => {
                self.connection = None;
                false
            }
        };
        if ended && let Some(connection) = self.connection.take() {
            connection.keep();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // A body that was empty from the start is never read.
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            connection.keep();
        }
    }
}
