//! A response body that is counted when it ends and, where the caller set one, ends at a deadline.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Code;

use crate::{
    body::BoxError,
    error::Error,
    metrics::{Outcome, Record},
    status,
};

/// A point in time, and the span that led to it for the error's text.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    pub(crate) after: Duration,
    pub(crate) service: String,
}

impl Until {
    pub(crate) fn new(after: Duration, service: &str) -> Self {
        Self {
            at: Instant::now() + after,
            after,
            service: service.to_owned(),
        }
    }

    pub(crate) fn error(&self) -> Error {
        Error::Timeout {
            service: self.service.clone(),
            after: self.after,
        }
    }
}

#[derive(Debug)]
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    until: Until,
}

/// A body on its way to the caller.
#[derive(Debug)]
pub(crate) struct Watched<B> {
    inner: Option<B>,
    record: Record,
    alarm: Option<Box<Alarm>>,
    known: bool,
}

impl<B> Watched<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// The body of a gRPC answer whose head is `status` and `headers`.
    pub(crate) fn grpc(
        inner: B,
        status: StatusCode,
        headers: &HeaderMap,
        record: Record,
        until: Option<Until>,
    ) -> Self {
        let mut watched = Self {
            inner: Some(inner),
            record,
            alarm: until.map(|until| {
                Box::new(Alarm {
                    sleep: Box::pin(tokio::time::sleep_until(until.at)),
                    until,
                })
            }),
            known: false,
        };
        if let Some(code) = status::code_in(headers) {
            watched.ended(code);
        } else if status != StatusCode::OK {
            watched.ended(Outcome::of_http(status));
        }
        watched
    }

    /// The body of an HTTP answer.
    pub(crate) fn http(inner: B, status: StatusCode, mut record: Record) -> Self {
        record.ended(Outcome::of_http(status));
        Self {
            inner: Some(inner),
            record,
            alarm: None,
            known: true,
        }
    }

    fn ended(&mut self, outcome: impl Into<Outcome>) {
        if !self.known {
            self.known = true;
            self.record.ended(outcome);
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        if let Some(alarm) = &mut self.alarm
            && alarm.sleep.as_mut().poll(cx).is_ready()
        {
            let trailers = status::trailers(&alarm.until.error().to_wire());
            // Dropping the inner body cancels the call.
            self.inner = None;
            self.ended(Code::DeadlineExceeded);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = status::code_in(trailers).unwrap_or(Code::Unknown);
                    self.ended(code);
                }
            }
            Some(Err(_)) => self.ended(Code::Unavailable),
            None => self.ended(Code::Unknown),
        }
        Poll::Ready(frame.map(|f| f.map_err(Into::into)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl<B> Body for Watched<B>
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
        Self::poll_frame(&mut self, cx)
    }

    fn is_end_stream(&self) -> bool {
        Self::is_end_stream(self)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}
