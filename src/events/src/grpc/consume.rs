//! `events.Stream.Consume` as it is on the wire: the first frame of the client is a
//! `ConsumeRequest`, each later one an `AckRequest`, on the same stream, which the client never
//! half-closes. The generated server knows one type of message for a stream, so this path has a
//! decoder that counts, and an encoder that copies events as they are kept.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::BoxFuture};
use http_body::Body;
use micro_proto::events::{
    AckRequest, ConsumeRequest,
    stream_server::{SERVICE_NAME, StreamServer},
};
use prost::Message as _;
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, StreamingService},
};
use tower::Service;

use super::{LARGEST, Rpc, allowed, caller, consume_of, refuse};
use crate::{Answer, Deliveries, Delivery, Error, Handle};

const METHOD: &str = "events.Stream.Consume";
const PATH: &str = "/events.Stream/Consume";
/// Bytes of a frame of a consumer.
const LARGEST_FRAME: usize = 64 << 10;

/// `events.Stream`, for mounting.
#[derive(Debug, Clone)]
pub struct EventStreamServer {
    rpc: Rpc,
    others: StreamServer<Rpc>,
}

impl EventStreamServer {
    pub(crate) fn new(handle: Handle) -> Self {
        let rpc = Rpc { handle };
        Self {
            others: StreamServer::new(rpc.clone()).max_decoding_message_size(LARGEST),
            rpc,
        }
    }
}

impl NamedService for EventStreamServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for EventStreamServer
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
        let method = ConsumeMethod(self.rpc.clone());
        Box::pin(async move {
            let mut grpc = Grpc::new(ConsumeCodec).max_decoding_message_size(LARGEST_FRAME);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct ConsumeMethod(Rpc);

impl StreamingService<Frame> for ConsumeMethod {
    type Response = Delivery;
    type ResponseStream = Sent;
    type Future = BoxFuture<'static, Result<Response<Sent>, Status>>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        let rpc = self.0.clone();
        Box::pin(async move {
            let caller = caller(&request);
            // Nobody waits for the question of one who may ask nothing.
            caller
                .account()
                .map_err(|error| refuse(METHOD)(error.into()))?;
            let mut frames = request.into_inner();
            let ask = match frames.message().await? {
                Some(Frame::Consume(ask)) => ask,
                _ => ConsumeRequest::default(),
            };
            let namespace = allowed(&caller, &ask.namespace).map_err(refuse(METHOD))?;
            if ask.topic.is_empty() {
                return Err(refuse(METHOD)(Error::MissingTopic));
            }
            let consume = consume_of(ask).map_err(refuse(METHOD))?;
            // A stream that breaks ends the answers; that the consumer is gone shows in the other
            // direction.
            let answers = frames
                .take_while(|frame| std::future::ready(frame.is_ok()))
                .filter_map(|frame| std::future::ready(frame.ok().and_then(Frame::answer)));
            let deliveries = rpc
                .handle
                .consume(&namespace, consume, answers.boxed())
                .await
                .map_err(refuse(METHOD))?;
            Ok(Response::new(Sent(deliveries)))
        })
    }
}

/// The deliveries of one consumer, with failures as gRPC says them.
struct Sent(Deliveries);

impl Stream for Sent {
    type Item = Result<Delivery, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.0.poll_next_unpin(cx);
        next.map(|next| next.map(|delivery| delivery.map_err(refuse(METHOD))))
    }
}

/// What a client sends.
enum Frame {
    Consume(ConsumeRequest),
    Ack(AckRequest),
}

impl Frame {
    /// The answer in it; an id that cannot be one of ours is ignored like any unknown id.
    fn answer(self) -> Option<Answer> {
        match self {
            Self::Consume(_) => None,
            Self::Ack(ack) => Some(Answer {
                id: ack.id.as_bytes().try_into().ok()?,
                success: ack.success,
            }),
        }
    }
}

struct ConsumeCodec;

impl Codec for ConsumeCodec {
    type Encode = Delivery;
    type Decode = Frame;
    type Encoder = DeliveryEncoder;
    type Decoder = FrameDecoder;

    fn encoder(&mut self) -> DeliveryEncoder {
        DeliveryEncoder
    }

    fn decoder(&mut self) -> FrameDecoder {
        FrameDecoder { begun: false }
    }
}

struct DeliveryEncoder;

impl Encoder for DeliveryEncoder {
    type Item = Delivery;
    type Error = Status;

    fn encode(&mut self, delivery: Delivery, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(delivery.length());
        delivery.write(out);
        Ok(())
    }
}

struct FrameDecoder {
    /// The question was read.
    begun: bool,
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        let decoded = if std::mem::replace(&mut self.begun, true) {
            AckRequest::decode(frame).map(Frame::Ack)
        } else {
            ConsumeRequest::decode(frame).map(Frame::Consume)
        };
        decoded
            .map(Some)
            .map_err(|error| refuse(METHOD)(Error::Frame(error.to_string())))
    }
}
