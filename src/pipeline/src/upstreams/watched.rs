//! A response body that is counted when it ends and, where the caller set one, ends at a deadline.

use std::{
    future::{Future, poll_fn},
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

/// The caller's deadline: one timer for the wait and for the body after it. It is asked only when
/// there is nothing else to do, so a call that is answered at once never registers it.
#[derive(Debug)]
pub(crate) struct Until {
    sleep: Pin<Box<Sleep>>,
    after: Duration,
    service: String,
}

impl Until {
    pub(crate) fn new(after: Duration, service: &str) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(after)),
            after,
            service: service.to_owned(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.sleep.as_mut().poll(cx).map(|()| self.error())
    }

    /// For streams that always have something to do.
    fn is_past(&self) -> bool {
        Instant::now() >= self.sleep.deadline()
    }

    fn error(&self) -> Error {
        Error::Timeout {
            service: self.service.clone(),
            after: self.after,
        }
    }

    /// `future`, or the error of the deadline.
    pub(crate) async fn limit<T>(
        &mut self,
        mut future: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }
}

/// A body on its way to the caller.
#[derive(Debug)]
pub(crate) struct Watched<B> {
    inner: Option<B>,
    record: Record,
    until: Option<Until>,
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
            until,
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
            until: None,
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
        let frame = Pin::new(inner).poll_frame(cx);
        let late = match (&mut self.until, &frame) {
            (Some(until), Poll::Pending) => until.poll(cx),
            (Some(until), Poll::Ready(Some(Ok(frame)))) if frame.is_data() && until.is_past() => {
                Poll::Ready(until.error())
            }
            _ => Poll::Pending,
        };
        if let Poll::Ready(error) = late {
            // Dropping the inner body cancels the call.
            self.inner = None;
            self.ended(Code::DeadlineExceeded);
            let trailers = status::trailers(&error.to_wire());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(frame);
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
