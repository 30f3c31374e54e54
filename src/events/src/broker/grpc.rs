//! `broker.Broker` for Micro's clients: who may do what, and messages in and out. A message is
//! written once and copied to each subscriber, which is why `Subscribe` has a codec of its own.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use futures_util::{Stream, future::BoxFuture};
use http_body::Body;
use micro_core::{Caller, Namespace};
use micro_proto::{
    broker::{
        Empty, Message, PublishRequest, SubscribeRequest,
        broker_server::{self, SERVICE_NAME},
    },
    status,
};
use prost::Message as _;
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{KeyAndValueRef, MetadataMap},
    server::{Grpc, NamedService, StreamingService},
};
use tower::Service;

use super::{Broker, Subscription};
use crate::{Error, grpc::caller};

const PUBLISH: &str = "broker.Broker.Publish";
const SUBSCRIBE: &str = "broker.Broker.Subscribe";
const PATH: &str = "/broker.Broker/Subscribe";
/// Bytes of one message.
const LARGEST: usize = 16 << 20;
/// Bytes of a question.
const LARGEST_FRAME: usize = 64 << 10;

/// The gRPC face of the broker.
#[derive(Debug, Clone)]
pub struct Rpc {
    broker: Broker,
}

/// `broker.Broker`, for mounting.
#[derive(Debug, Clone)]
pub struct BrokerServer {
    rpc: Rpc,
    others: broker_server::BrokerServer<Rpc>,
}

impl Broker {
    /// `broker.Broker`, for mounting.
    pub fn server(&self) -> BrokerServer {
        let rpc = Rpc {
            broker: self.clone(),
        };
        BrokerServer {
            others: broker_server::BrokerServer::new(rpc.clone())
                .max_decoding_message_size(LARGEST),
            rpc,
        }
    }
}

/// The namespace of a request. Any account may publish and subscribe in its own.
fn allowed(caller: &Caller) -> Result<Namespace, Error> {
    // Micro says this of anonymous callers too, with the code 401.
    caller.account().map_err(|_| Error::NoAccount)?;
    Ok(caller.target("")?)
}

/// Whether a header of the request is for the subscribers. The token is nobody's but the server's,
/// and what belongs to one connection ends with it.
fn is_public(name: &str) -> bool {
    !matches!(
        name,
        "authorization" | "cookie" | "te" | "host" | "timeout" | "accept-encoding"
    ) && !name.starts_with("grpc-")
        && !name.starts_with(':')
}

/// `micro-namespace` as Micro's library writes it: `Micro-Namespace`.
fn title(name: &str) -> String {
    let mut first = true;
    name.chars()
        .map(|c| {
            let upper = std::mem::replace(&mut first, c == '-');
            if upper { c.to_ascii_uppercase() } else { c }
        })
        .collect()
}

/// Adds the metadata of the request to the headers of its message, where there is none of the name.
fn complete(header: &mut HashMap<String, String>, metadata: &MetadataMap) {
    let mut added: HashMap<String, String> = HashMap::new();
    for pair in metadata.iter() {
        let KeyAndValueRef::Ascii(name, value) = pair else {
            continue;
        };
        let (name, Ok(value)) = (name.as_str(), value.to_str()) else {
            continue;
        };
        if is_public(name) && !header.keys().any(|key| key.eq_ignore_ascii_case(name)) {
            added
                .entry(title(name))
                .and_modify(|all| {
                    all.push_str(", ");
                    all.push_str(value);
                })
                .or_insert_with(|| value.to_owned());
        }
    }
    header.extend(added);
    // A library of Micro's may have copied the caller's own.
    header.retain(|key, _| !key.eq_ignore_ascii_case("authorization"));
}

#[tonic::async_trait]
impl broker_server::Broker for Rpc {
    type SubscribeStream = futures_util::stream::Empty<Result<Message, Status>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<Empty>, Status> {
        let refuse = |error: Error| status::of(PUBLISH, &error);
        let namespace = allowed(&caller(&request)).map_err(refuse)?;
        let (metadata, _, ask) = request.into_parts();
        let mut message = ask.message.ok_or_else(|| refuse(Error::MissingMessage))?;
        complete(&mut message.header, &metadata);
        self.broker
            .publish(&namespace, &ask.topic, &message)
            .map_err(refuse)?;
        Ok(Response::new(Empty {}))
    }

    async fn subscribe(
        &self,
        _request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        // `BrokerServer` answers this path.
        Err(Status::unimplemented("use BrokerServer"))
    }
}

impl NamedService for BrokerServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for BrokerServer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.others.call(request);
        }
        let method = SubscribeMethod(self.rpc.clone());
        Box::pin(async move {
            let mut grpc = Grpc::new(SubscribeCodec).max_decoding_message_size(LARGEST_FRAME);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct SubscribeMethod(Rpc);

impl StreamingService<SubscribeRequest> for SubscribeMethod {
    type Response = Bytes;
    type ResponseStream = Sent;
    type Future = BoxFuture<'static, Result<Response<Sent>, Status>>;

    fn call(&mut self, request: Request<Streaming<SubscribeRequest>>) -> Self::Future {
        let broker = self.0.broker.clone();
        Box::pin(async move {
            let refuse = |error: Error| status::of(SUBSCRIBE, &error);
            let namespace = allowed(&caller(&request)).map_err(refuse)?;
            let mut asks = request.into_inner();
            // Micro's clients never half-close: the first message is the question.
            let ask = asks.message().await?.unwrap_or_default();
            let subscription = broker
                .subscribe(&namespace, &ask.topic, &ask.queue)
                .map_err(refuse)?;
            Ok(Response::new(Sent {
                subscription,
                _asks: asks,
            }))
        })
    }
}

/// The messages of one subscriber, with failures as gRPC says them.
struct Sent {
    subscription: Subscription,
    /// Held, so that the stream stays open in both directions.
    _asks: Streaming<SubscribeRequest>,
}

impl Stream for Sent {
    type Item = Result<Bytes, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.subscription.poll_bytes(cx);
        next.map(|next| next.map(|m| m.map_err(|error| status::of(SUBSCRIBE, &error))))
    }
}

struct SubscribeCodec;

impl Codec for SubscribeCodec {
    type Encode = Bytes;
    type Decode = SubscribeRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for SubscribeCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }
}

impl Decoder for SubscribeCodec {
    type Item = SubscribeRequest;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<SubscribeRequest>, Status> {
        SubscribeRequest::decode(frame)
            .map(Some)
            .map_err(|error| status::of(SUBSCRIBE, &Error::Frame(error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn headers_are_completed_without_the_token() {
        let mut metadata = MetadataMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("micro-namespace", "foo"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "1S"),
            ("cookie", "micro-token=secret"),
            ("x-trace", "1"),
        ] {
            metadata.insert(name, MetadataValue::from_static(value));
        }
        let mut header: HashMap<String, String> = [
            ("Content-Type", "application/grpc+proto"),
            ("Authorization", "Bearer copied"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        complete(&mut header, &metadata);
        let mut all: Vec<_> = header.iter().map(|(k, v)| format!("{k}={v}")).collect();
        all.sort();
        assert_eq!(
            all,
            [
                "Content-Type=application/grpc+proto",
                "Micro-Namespace=foo",
                "X-Trace=1"
            ]
        );
    }
}
