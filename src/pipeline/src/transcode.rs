//! gRPC bodies whose messages are translated on the way: JSON requests into the messages a service
//! understands, and its answers back (contract §3.2).

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use micro_core::{Fault as _, WireError};
use micro_schema::{Method, Schema};

use crate::{
    body::BoxError,
    error::Error,
    frame::{Messages, frame},
    status,
};

/// A method that outlives the borrow of its schema.
#[derive(Clone)]
pub(crate) struct MethodRef {
    schema: Arc<Schema>,
    index: usize,
}

impl MethodRef {
    pub(crate) fn new(schema: &Arc<Schema>, index: usize) -> Self {
        Self {
            schema: Arc::clone(schema),
            index,
        }
    }

    fn method(&self) -> Result<&Method, Error> {
        self.schema
            .methods()
            .get(self.index)
            .ok_or_else(|| Error::NotGrpc {
                service: String::new(),
                reason: "the schema changed".into(),
            })
    }

    fn request(&self, json: &[u8]) -> Result<Bytes, Error> {
        let method = self.method()?;
        method
            .message_from_json(json)
            .map_err(|e| translate("request", method, &e))
    }

    fn response(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let method = self.method()?;
        method
            .json_from_message(message)
            .map_err(|e| translate("response", method, &e))
    }
}

fn translate(what: &'static str, method: &Method, error: &micro_schema::Error) -> Error {
    Error::Translate {
        what,
        endpoint: method.endpoint.clone(),
        reason: match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        },
        kind: error.kind(),
    }
}

/// Where the reading side leaves the reason for which it broke off, for the writing side to send.
pub(crate) type Slot = Arc<OnceLock<WireError>>;

/// A request whose JSON messages become the service's messages.
pub(crate) struct Request<B> {
    inner: Option<B>,
    messages: Messages,
    method: MethodRef,
    slot: Slot,
    /// Whether one message is all there may be.
    single: bool,
}

impl<B> Request<B> {
    pub(crate) fn new(inner: B, method: MethodRef, limit: usize, single: bool, slot: Slot) -> Self {
        Self {
            inner: Some(inner),
            messages: Messages::new(limit),
            method,
            slot,
            single,
        }
    }

    fn message(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(message) = self.messages.next()? else {
            return Ok(None);
        };
        if message.compressed {
            return Err(Error::Compressed);
        }
        Ok(Some(frame(&self.method.request(&message.payload)?)))
    }

    fn fail(&mut self, error: &Error) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.inner = None;
        let _ = self.slot.set(error.to_wire());
        Poll::Ready(Some(Err(Box::new(error.clone()))))
    }
}

impl<B> Body for Request<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let me = &mut *self;
        loop {
            if me.inner.is_none() {
                return Poll::Ready(None);
            }
            match me.message() {
                Ok(Some(message)) => {
                    if me.single {
                        me.inner = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                Ok(None) => {}
                Err(error) => return me.fail(&error),
            }
            let Some(inner) = &mut me.inner else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => me.messages.push(chunk),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    me.inner = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None if me.messages.is_partial() => {
                    let error = Error::Caller {
                        reason: "it ended inside a message".into(),
                    };
                    return me.fail(&error);
                }
                None => {
                    me.inner = None;
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }
}

/// A response whose messages become JSON. Trailers pass through.
pub(crate) struct Response<B> {
    inner: Option<B>,
    messages: Messages,
    method: MethodRef,
}

impl<B> Response<B> {
    pub(crate) fn new(inner: B, method: MethodRef, limit: usize) -> Self {
        Self {
            inner: Some(inner),
            messages: Messages::new(limit),
            method,
        }
    }

    fn message(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(message) = self.messages.next()? else {
            return Ok(None);
        };
        if message.compressed {
            return Err(Error::Compressed);
        }
        Ok(Some(frame(&self.method.response(&message.payload)?)))
    }
}

impl<B> Body for Response<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let me = &mut *self;
        loop {
            match me.message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) => {}
                Err(error) => {
                    me.inner = None;
                    me.messages = Messages::new(0);
                    let trailers = status::trailers(&error.to_wire());
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
            let Some(inner) = &mut me.inner else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => me.messages.push(chunk),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    me.inner = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    me.inner = None;
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner
            .as_ref()
            .is_none_or(|b| b.is_end_stream() && !self.messages.is_partial())
    }
}
