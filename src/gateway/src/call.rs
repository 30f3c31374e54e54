//! One JSON message in, one out: the path that nearly all requests take.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use micro_core::WireError;
use micro_pipeline::{Admitted, Body};
use micro_schema::Method;

use crate::{
    Gateway, request,
    respond::{self, ID},
};

/// How long a service may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls a method that takes one message and answers with one.
pub(crate) async fn answer(
    gateway: &Gateway,
    admitted: &Admitted,
    method: &Method,
    request: Request<Incoming>,
    uri: &Uri,
) -> Response<Body> {
    match call(gateway, admitted, method, request, uri).await {
        Ok(json) => respond::json(json),
        Err(error) => respond::error(&error),
    }
}

async fn call(
    gateway: &Gateway,
    admitted: &Admitted,
    method: &Method,
    request: Request<Incoming>,
    uri: &Uri,
) -> Result<Vec<u8>, WireError> {
    let (mut head, body) = request.into_parts();
    let body = if request::has_body(&head.method) {
        request::body(body, &head.headers, gateway.settings.body_limit)
            .await
            .map_err(|e| e.to_wire())?
    } else {
        Bytes::new()
    };
    let json = request::json(method, &head.headers, uri.query(), body).map_err(|e| e.to_wire())?;
    let message = method
        .message_from_json(&json)
        .map_err(|e| WireError::of(ID, &e))?;
    request::strip(&mut head.headers);
    let answer = gateway
        .upstreams
        .unary(admitted, method, message, &head.headers, DEADLINE)
        .await?;
    method
        .json_from_message(&answer)
        .map_err(|e| WireError::of(ID, &e))
}
