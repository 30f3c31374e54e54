//! gRPC passed through: headers, frames and trailers as they are, JSON translated where the target
//! speaks protobuf.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, header, response, uri::PathAndQuery,
};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use micro_core::Fault as _;
use micro_schema::{Codec, Method, Schema};
use tonic::Code;
use tower::ServiceExt as _;

use super::{
    Inner,
    exchange::{Head, Received},
    watched::{Until, Watched},
};
use crate::{
    admission::{Admitted, Target},
    body::{Body, BoxError},
    error::Error,
    frame::FirstMessage,
    header::{
        Content, GRPC_TIMEOUT, GrpcPath, MICRO_ACCOUNT, MICRO_NAMESPACE, content, encode_timeout,
        forget_token, grpc_timeout, micro_timeout,
    },
    metrics::{Outcome, Record},
    ports::Protocol,
    status,
    transcode::{self, MethodRef, Slot},
};

static GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// An answer before anybody watches it.
pub(super) enum Answer {
    Instance(Received),
    Builtin(tonic::body::Body),
}

pub(super) async fn forward(
    inner: &Arc<Inner>,
    admitted: &Admitted,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut record = admitted.record();
    let Some(kind) = content(request.headers()) else {
        record.ended(Code::InvalidArgument);
        return not_grpc();
    };
    if let Err(error) = speaks_grpc(admitted) {
        record.ended(Outcome::of_wire(error.kind().http()));
        return status::grpc_error(&error.to_wire());
    }
    let method = admitted.method();
    if method.is_none() && !admitted.target.schema().methods().is_empty() {
        record.ended(Code::Unimplemented);
        return unknown(admitted.target.schema(), request.uri().path());
    }
    let (mut parts, body) = request.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let path = real_path(admitted, method, path);
    let protobuf = method.is_some_and(|m| m.codec == Codec::Proto);
    let json = match (kind, protobuf, admitted.method_index()) {
        (Content::Json, true, Some(index)) => Some(MethodRef::new(admitted.target.schema(), index)),
        _ => None,
    };
    let single = protobuf && method.is_some_and(|m| !m.client_streaming);
    let mut until = prepare(&mut parts.headers, admitted, json.is_some());
    let head = Head {
        path,
        headers: parts.headers,
    };

    let slot = json.is_some().then(Slot::default);
    let answer = {
        // Pinned where it is: each further place that holds it by value would make the task of every
        // call larger by all of it. What is translated is the rarer and the larger case.
        let mut answer = pin!(async {
            match (&json, &slot) {
                (Some(method), Some(slot)) => {
                    let body = transcode::Request::new(
                        body,
                        method.clone(),
                        inner.limits.message,
                        single,
                        Arc::clone(slot),
                    );
                    Box::pin(send(inner, admitted, head, body, Some(slot))).await
                }
                _ if single => send(inner, admitted, head, FirstMessage::new(body), None).await,
                _ => send(inner, admitted, head, body, None).await,
            }
        });
        match &mut until {
            Some(until) => until.limit(answer.as_mut()).await,
            None => answer.await,
        }
    };
    if let Some(refusal) = slot.as_ref().and_then(|s| s.get()) {
        record.ended(Outcome::of_wire(refusal.code));
        return status::grpc_error(refusal);
    }
    match answer {
        Ok((parts, answer)) => {
            let alike = matches!(answer, Answer::Builtin(_)) || json.is_some();
            let mut response = watch(parts, answer, record, until, json, inner.limits.message);
            if let (true, Some(value)) = (alike, content_type) {
                response.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            response
        }
        Err(error) => {
            record.ended(Outcome::of_wire(error.kind().http()));
            status::grpc_error(&error.to_wire())
        }
    }
}

/// Sends a request to its target and waits for the head of the answer.
pub(super) async fn send<B>(
    inner: &Arc<Inner>,
    admitted: &Admitted,
    head: Head,
    body: B,
    slot: Option<&Slot>,
) -> Result<(response::Parts, Answer), Error>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    match &admitted.target {
        Target::Service(route) => {
            let (parts, received) = inner.exchange(route, head, body, slot).await?;
            Ok((parts, Answer::Instance(received)))
        }
        Target::Builtin(builtin) => {
            let mut request = Request::new(body);
            *request.method_mut() = http::Method::POST;
            *request.version_mut() = http::Version::HTTP_2;
            *request.uri_mut() = head.path.into();
            *request.headers_mut() = head.headers;
            request.extensions_mut().insert(admitted.caller.clone());
            let response = match builtin.routes().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (parts, body) = response.into_parts();
            Ok((parts, Answer::Builtin(body)))
        }
    }
}

/// The response that the caller gets, counted when it ends.
pub(super) fn watch(
    parts: response::Parts,
    answer: Answer,
    record: Record,
    until: Option<Until>,
    json: Option<MethodRef>,
    limit: usize,
) -> Response<Body> {
    let (status, headers) = (parts.status, &parts.headers);
    let body = match (answer, json) {
        (Answer::Instance(body), None) => {
            Body::passage(Watched::grpc(body, status, headers, record, until))
        }
        (Answer::Instance(body), Some(method)) => {
            let body = transcode::Response::new(body, method, limit);
            Body::boxed(Watched::grpc(body, status, headers, record, until))
        }
        (Answer::Builtin(body), None) => {
            Body::boxed(Watched::grpc(body, status, headers, record, until))
        }
        (Answer::Builtin(body), Some(method)) => {
            let body = transcode::Response::new(body, method, limit);
            Body::boxed(Watched::grpc(body, status, headers, record, until))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

pub(super) fn speaks_grpc(admitted: &Admitted) -> Result<(), Error> {
    match admitted.target.protocol() {
        Protocol::Grpc => Ok(()),
        Protocol::Http => Err(Error::Protocol {
            service: admitted.target.name().to_owned(),
            speaks: "HTTP",
            asked: "gRPC",
        }),
    }
}

/// What the target expects as `:path`. A Go service ignores what stands before the last dot, so it
/// gets the path as it came.
fn real_path(admitted: &Admitted, method: Option<&Method>, asked: PathAndQuery) -> PathAndQuery {
    match method {
        Some(method) if method.codec == Codec::Proto && asked.as_str() != method.path => {
            parsed(&admitted.target, method).unwrap_or(asked)
        }
        _ => asked,
    }
}

pub(super) fn parsed(target: &Target, method: &Method) -> Option<PathAndQuery> {
    let known = match target {
        Target::Builtin(builtin) => builtin.path(&method.path),
        Target::Service(route) => route.path(&method.path),
    };
    known.or_else(|| method.path.parse().ok())
}

/// Makes the headers those of our request. Returns the deadline that is ours to keep: any at all for
/// a built-in, and Micro's own `timeout` where the caller's library does not keep it itself.
fn prepare(headers: &mut HeaderMap, admitted: &Admitted, json: bool) -> Option<Until> {
    headers.remove(header::HOST);
    headers.remove(&MICRO_ACCOUNT);
    namespace(headers, admitted);
    if json {
        headers.insert(header::CONTENT_TYPE, GRPC.clone());
        headers.remove(header::CONTENT_LENGTH);
        headers.remove("grpc-accept-encoding");
    }
    let name = admitted.target.name();
    let standard = grpc_timeout(headers);
    match &admitted.target {
        Target::Builtin(_) => standard
            .or_else(|| micro_timeout(headers))
            .map(|span| Until::new(span, name)),
        Target::Service(_) if standard.is_some() => None,
        Target::Service(_) => {
            let span = micro_timeout(headers)?;
            headers.insert(&GRPC_TIMEOUT, encode_timeout(span));
            Some(Until::new(span, name))
        }
    }
}

/// Tells the target the namespace and, when it came otherwise, the token; keeps from it what a
/// caller says a second time, which we have not judged, and tokens of other namespaces.
pub(super) fn namespace(headers: &mut HeaderMap, admitted: &Admitted) {
    let mut named = headers.get_all(&MICRO_NAMESPACE).iter();
    let told = named
        .next()
        .is_some_and(|v| v.as_bytes() == admitted.caller.namespace.as_str().as_bytes())
        && named.next().is_none();
    if !told {
        let value = match &admitted.target {
            Target::Service(route) => Some(route.namespace_value.clone()),
            Target::Builtin(_) => HeaderValue::from_str(admitted.caller.namespace.as_str()).ok(),
        };
        if let Some(value) = value {
            headers.insert(&MICRO_NAMESPACE, value);
        }
    }
    if let Some(value) = &admitted.authorization {
        headers.insert(header::AUTHORIZATION, value.clone());
    }
    token(headers, admitted);
}

fn token(headers: &mut HeaderMap, admitted: &Admitted) {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = shown.next() {
        let more = shown.next().is_some();
        if admitted.foreign && first.as_bytes().starts_with(b"Bearer ") {
            headers.remove(header::AUTHORIZATION);
        } else if more {
            let first = first.clone();
            headers.insert(header::AUTHORIZATION, first);
        }
    }
    if !admitted.by_cookie {
        forget_token(headers);
    }
}

/// The texts that Micro's command line knows (contract §3.1, §7.6).
fn unknown(schema: &Schema, path: &str) -> Response<Body> {
    let endpoint = GrpcPath::parse(path).map_or_else(String::new, |p| p.endpoint);
    let structure = endpoint.split('.').next().unwrap_or_default();
    let known = schema.methods().iter().any(|m| {
        let own = m.endpoint.rsplit_once('.').map_or("", |(s, _)| s);
        own.rsplit('.').next() == Some(structure)
    });
    let name = if known { &endpoint } else { structure };
    status::grpc_plain(Code::Unimplemented, format!("unknown service {name}"))
}

fn not_grpc() -> Response<Body> {
    let mut response = Response::new(Body::from(
        "This is not a gRPC request: its content-type is not application/grpc.\n",
    ));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
