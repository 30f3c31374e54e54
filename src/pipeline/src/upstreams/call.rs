//! Calls that we make ourselves for a request in another protocol: one message or a stream of them,
//! without framing, with errors as Micro's object.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{Full, StreamBody};
use micro_core::{Fault as _, WireError};
use micro_schema::{Codec, Method};

use super::{
    Inner,
    exchange::Head,
    grpc::{self, namespace, parsed, speaks_grpc},
    watched::Until,
};
use crate::{
    admission::Admitted,
    body::Body,
    error::Error,
    frame::{Messages, frame},
    header::{GRPC_TIMEOUT, encode_timeout, metadata},
    metrics::Outcome,
    status,
};

static PROTO: HeaderValue = HeaderValue::from_static("application/grpc+proto");
static JSON: HeaderValue = HeaderValue::from_static("application/grpc+json");
static TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

pub(super) async fn unary(
    inner: &Arc<Inner>,
    admitted: &Admitted,
    method: &Method,
    message: &[u8],
    headers: &HeaderMap,
    deadline: Duration,
) -> Result<Bytes, WireError> {
    let mut until = Until::new(deadline, admitted.target.name());
    let mut head = head(admitted, method, headers).map_err(|e| e.to_wire())?;
    head.headers.insert(&GRPC_TIMEOUT, encode_timeout(deadline));
    let mut record = admitted.record();
    let body = Full::new(frame(message));
    let sent = until
        .limit(pin!(grpc::send(inner, admitted, head, body, None)))
        .await;
    let (parts, answer) = sent.map_err(|error| {
        record.ended(Outcome::of_wire(error.kind().http()));
        error.to_wire()
    })?;
    let limit = inner.limits.message;
    let service = admitted.target.name();
    let response = grpc::watch(parts, answer, record, Some(until), None, limit);
    let mut answer = Answer::new(response, service, limit)?;
    let first = poll_fn(|cx| answer.poll_message(cx)).await;
    let message = first.unwrap_or_else(|| {
        Err(Error::NotGrpc {
            service: service.to_owned(),
            reason: "it holds no message".into(),
        }
        .to_wire())
    })?;
    // The status comes last, and only it says whether the message counts.
    match poll_fn(|cx| answer.poll_message(cx)).await {
        None => Ok(message),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => Err(Error::NotGrpc {
            service: service.to_owned(),
            reason: "it holds more than one message".into(),
        }
        .to_wire()),
    }
}

pub(super) fn stream(
    inner: &Arc<Inner>,
    admitted: &Admitted,
    method: &Method,
    requests: impl Stream<Item = Bytes> + Send + 'static,
    headers: &HeaderMap,
) -> Result<Responses, WireError> {
    let head = head(admitted, method, headers).map_err(|e| e.to_wire())?;
    let record = admitted.record();
    let service = admitted.target.name().to_owned();
    let admitted = admitted.copy();
    let inner = Arc::clone(inner);
    let limit = inner.limits.message;
    let frames = requests.map(|message| Ok::<_, Infallible>(Frame::data(frame(&message))));
    let body = StreamBody::new(Box::pin(frames));
    let opening = {
        let service = service.clone();
        async move {
            let mut record = record;
            match grpc::send(&inner, &admitted, head, body, None).await {
                Ok((parts, answer)) => {
                    let response = grpc::watch(parts, answer, record, None, None, limit);
                    Answer::new(response, &service, limit)
                }
                Err(error) => {
                    record.ended(Outcome::of_wire(error.kind().http()));
                    Err(error.to_wire())
                }
            }
        }
    };
    Ok(Responses(State::Opening(Box::pin(opening))))
}

fn head(admitted: &Admitted, method: &Method, headers: &HeaderMap) -> Result<Head, Error> {
    speaks_grpc(admitted)?;
    let path = parsed(&admitted.target, method).ok_or_else(|| Error::NotGrpc {
        service: admitted.target.name().to_owned(),
        reason: format!("{:?} is no path", method.path).into(),
    })?;
    let mut headers = metadata(headers);
    namespace(&mut headers, admitted);
    let content_type = match method.codec {
        Codec::Proto => PROTO.clone(),
        Codec::Json => JSON.clone(),
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::TE, TRAILERS.clone());
    Ok(Head { path, headers })
}

/// The messages of an answer, as a stream of unframed bytes. Dropping it cancels the call.
pub struct Responses(State);

enum State {
    Opening(BoxFuture<'static, Result<Answer, WireError>>),
    Open(Box<Answer>),
    Ended,
}

impl Stream for Responses {
    type Item = Result<Bytes, WireError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match &mut self.0 {
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(answer) => {
                        self.0 = State::Open(Box::new(answer));
                        continue;
                    }
                    Err(error) => Some(Err(error)),
                },
                State::Open(answer) => ready!(answer.poll_message(cx)),
                State::Ended => None,
            };
            if !matches!(item, Some(Ok(_))) {
                self.0 = State::Ended;
            }
            return Poll::Ready(item);
        }
    }
}

/// An answer being read.
struct Answer {
    body: Body,
    messages: Messages,
    service: String,
    ended: bool,
}

impl Answer {
    fn new(response: Response<Body>, service: &str, limit: usize) -> Result<Self, WireError> {
        if let Some(error) = status::error_in(response.headers()) {
            return Err(error);
        }
        if response.status() != StatusCode::OK {
            return Err(Error::NotGrpc {
                service: service.to_owned(),
                reason: format!("HTTP status {}", response.status()).into(),
            }
            .to_wire());
        }
        let ended = status::code_in(response.headers()).is_some();
        Ok(Self {
            body: response.into_body(),
            messages: Messages::new(limit),
            service: service.to_owned(),
            ended,
        })
    }

    fn broken(&self, reason: &str) -> Option<Result<Bytes, WireError>> {
        let error = Error::NotGrpc {
            service: self.service.clone(),
            reason: reason.into(),
        };
        Some(Err(error.to_wire()))
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, WireError>>> {
        loop {
            match self.messages.next() {
                Ok(Some(message)) if message.compressed => {
                    return Poll::Ready(Some(Err(Error::Compressed.to_wire())));
                }
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message.payload))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.to_wire()))),
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => self.messages.push(chunk),
                    Err(frame) => {
                        self.ended = true;
                        let Ok(trailers) = frame.into_trailers() else {
                            continue;
                        };
                        if let Some(error) = status::error_in(&trailers) {
                            return Poll::Ready(Some(Err(error)));
                        }
                        if self.messages.is_partial() {
                            return Poll::Ready(self.broken("it ends inside a message"));
                        }
                    }
                },
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(self.broken(&error.to_string()));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(self.broken("it ends without a status"));
                }
            }
        }
    }
}
