//! One call: its path says the service and the endpoint, the pipeline says the rest.

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use micro_pipeline::{Ask, Body, GrpcPath, grpc_error, grpc_plain, is_grpc};
use tonic::Code;

use crate::connection::Context;

static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers one call. Whatever goes wrong is an answer too.
pub(crate) async fn answer(context: &Context, request: Request<Incoming>) -> Response<Body> {
    if !is_grpc(request.headers()) {
        return not_grpc();
    }
    let path = request.uri().path();
    let Some(parsed) = GrpcPath::parse(path) else {
        return malformed(path);
    };
    let ask = Ask {
        door: context.door,
        headers: request.headers(),
        token: None,
        namespace: None,
        service: parsed.service,
        endpoint: &parsed.endpoint,
    };
    match context.pipeline.admit_grpc(&ask, path) {
        Ok(admitted) => context.upstreams.forward_grpc(&admitted, request).await,
        Err(error) => grpc_error(&error),
    }
}

/// Micro's command line looks for this text and for the name in it (contract §7.6): gRPC's own
/// answer to a path of one part, Micro's to one of three or of empty parts.
fn malformed(path: &str) -> Response<Body> {
    let name = path.strip_prefix('/').unwrap_or(path);
    let code = if name.contains('/') {
        Code::InvalidArgument
    } else {
        Code::Unimplemented
    };
    grpc_plain(code, format!("malformed method name: {name:?}"))
}

fn not_grpc() -> Response<Body> {
    let mut response = Response::new(Body::from(
        "This port answers gRPC calls, whose content-type is application/grpc. Other requests are \
         answered by the gateway, by default on port 8080.\n",
    ));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, TEXT.clone());
    response
}
