//! A platform in miniature: auth, registry and two services, in a runtime of its own. It remembers
//! who called what with which identity.

use std::sync::{Arc, Mutex};

use super::*;
use crate::wire::{
    auth::{Token, TokenRequest, TokenResponse},
    registry::{self, EmptyResponse},
};

/// What the platform in miniature knows and has seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) tokens: usize,
    pub(super) lifetime: i64,
    pub(super) refuse_tokens_before: usize,
    pub(super) registered: BTreeMap<String, registry::Service>,
    pub(super) calls: Vec<String>,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Seen>>);

impl Fake {
    pub(super) fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn token(&self, request: &TokenRequest) -> Result<TokenResponse, Status> {
        if request.secret != "micro" {
            return Err(Status::invalid_argument(
                r#"{"id":"auth.Auth.Token","code":400,"detail":"Secret not correct","status":"Bad Request"}"#,
            ));
        }
        self.see(|seen| {
            seen.tokens += 1;
            Ok(TokenResponse {
                token: Some(Token {
                    access_token: format!("token-{}", seen.tokens),
                    refresh_token: String::new(),
                    created: 1_000,
                    expiry: 1_000 + seen.lifetime,
                }),
            })
        })
    }

    /// Serves on `address`, in a runtime of its own so that a restart can end its connections too.
    pub(super) fn start(&self, address: &str) -> Platform {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(Auth(self.clone()))
            .add_service(Registry(self.clone()))
            .add_service(Echo(self.clone()))
            .add_service(Second(self.clone()));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            let server = Server::builder().add_routes(routes.routes());
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Platform {
            address,
            runtime: Some(runtime),
        }
    }
}

pub(super) struct Platform {
    pub(super) address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A unary method as tonic wants it.
struct Unary<F>(F);

impl<F, M, R> HttpService<Request<M>> for Unary<F>
where
    F: Fn(M) -> Result<R, Status>,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = Status;
    type Future = BoxFuture<Response<R>, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<M>) -> Self::Future {
        let answer = (self.0)(request.into_inner()).map(Response::new);
        Box::pin(async { answer })
    }
}

macro_rules! fake {
    ($type:ident, $name:literal, $serve:expr) => {
        #[derive(Clone)]
        struct $type(Fake);

        impl NamedService for $type {
            const NAME: &'static str = $name;
        }

        impl HttpService<http::Request<GrpcBody>> for $type {
            type Response = http::Response<GrpcBody>;
            type Error = Infallible;
            type Future = BoxFuture<Self::Response, Infallible>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<GrpcBody>) -> Self::Future {
                let fake = self.0.clone();
                let path = request.uri().path().to_owned();
                let header = |name: &str| match request.headers().get(name) {
                    Some(value) => value.to_str().unwrap().to_owned(),
                    None => "-".to_owned(),
                };
                let (token, namespace) = (header("authorization"), header("micro-namespace"));
                fake.see(|seen| seen.calls.push(format!("{path} {token} {namespace}")));
                let serve: fn(Fake, String, String, http::Request<GrpcBody>) -> Answer = $serve;
                let answer = serve(fake, path, token, request);
                Box::pin(async { Ok(answer.await) })
            }
        }
    };
}

pub(super) type Answer = Pin<Box<dyn Future<Output = http::Response<GrpcBody>> + Send>>;

pub(super) fn answer<M, R>(
    request: http::Request<GrpcBody>,
    method: impl Fn(M) -> Result<R, Status> + Send + 'static,
) -> Answer
where
    M: prost::Message + Default + 'static,
    R: prost::Message + Default + 'static,
{
    Box::pin(async {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<R, M>::default());
        grpc.unary(Unary(method), request).await
    })
}

fake!(Auth, "auth.Auth", |fake, _, _, request| answer(
    request,
    move |asked: TokenRequest| fake.token(&asked)
));
fake!(Registry, "registry.Registry", |fake, path, _, request| {
    answer(request, move |service: registry::Service| {
        let id = service.nodes[0].id.clone();
        fake.see(|seen| {
            if path.ends_with("/Register") {
                seen.registered.insert(id, service);
            } else {
                seen.registered.remove(&id);
            }
            Ok(EmptyResponse {})
        })
    })
});
fake!(Echo, "test.Echo", |fake, _, token, request| answer(
    request,
    move |message: Options| {
        let number = token.strip_prefix("Bearer token-").unwrap_or("0");
        let refused = fake.see(|seen| seen.refuse_tokens_before);
        if number.parse::<usize>().unwrap() < refused {
            return Err(Status::unauthenticated("an account is required"));
        }
        Ok(message)
    }
));
fake!(Second, "second.Echo", |_, _, _, request| answer(
    request,
    |message: Options| Ok(message)
));
