//! One gRPC request to an instance: choosing it, sending the request while waiting for the answer,
//! trying another instance when the request was surely not processed, and the answer's body.

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{
    HeaderMap, Method, Request, Uri, Version, response,
    uri::{PathAndQuery, Scheme},
};
use http_body::{Body, Frame};
use micro_core::Kind;
use tokio::task::JoinHandle;

use super::{Inner, pool::Lease};
use crate::{
    body::BoxError,
    error::Error,
    router::{Route, backend::Flight},
    status,
    transcode::Slot,
};

/// How often a request goes out again after a connection turned out to be closing.
const AGAIN: usize = 3;

/// What is sent, except for the body.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
}

impl Inner {
    /// Sends a request to an instance of `route` and waits for the head of its answer.
    pub(crate) async fn exchange<B>(
        &self,
        route: &Arc<Route>,
        head: Head,
        body: B,
        slot: Option<&Slot>,
    ) -> Result<(response::Parts, Received), Error>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = || route.service().as_str().to_owned();
        let mut source = Source::new(body);
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut again = 0;
        let mut last = None;
        loop {
            let Some(flight) = route.pick(&tried) else {
                return Err(last.unwrap_or_else(|| Error::NoInstance { service: service() }));
            };
            let address = flight.backend.address;
            let (sender, lease) = match self.grpc.lease(address).await {
                Ok(leased) => leased,
                Err(reason) => {
                    flight.backend.failed();
                    tried.push(address);
                    last = Some(Error::Unreachable {
                        service: service(),
                        address,
                        reason,
                    });
                    continue;
                }
            };
            flight.backend.works();
            // A connection that is going away says so here, before anything is sent.
            let opened = match sender.ready().await {
                Ok(mut sender) => {
                    let end = source.is_end();
                    sender
                        .send_request(request(&head, &flight), end)
                        .map(|(response, send)| (response, (!end).then_some(send)))
                }
                Err(error) => Err(error),
            };
            let failure = match opened {
                Ok((response, send)) => match self.answer(response, send, &mut source).await {
                    Ok((parts, recv, rest)) => {
                        let rest = rest.map(|send| Rest::spawn(source, send));
                        let received = Received {
                            recv,
                            _rest: rest,
                            flight,
                            _lease: lease,
                            route: Arc::clone(route),
                            slot: slot.cloned(),
                            stage: Stage::Data,
                        };
                        return Ok((parts, received));
                    }
                    Err(Failure::Caller(error)) => {
                        return Err(Error::Caller {
                            reason: error.to_string().into(),
                        });
                    }
                    Err(Failure::Instance(error)) => {
                        if !untouched(&error) || !source.rewind() || again >= AGAIN {
                            return Err(broken(service(), address, &error));
                        }
                        error
                    }
                },
                Err(error) if again >= AGAIN => return Err(broken(service(), address, &error)),
                Err(error) => error,
            };
            if failure.reason() != Some(Reason::REFUSED_STREAM) {
                lease.close();
            }
            again += 1;
            last = Some(broken(service(), address, &failure));
        }
    }

    /// Sends as much of the body as the instance takes until the answer begins.
    async fn answer<B>(
        &self,
        mut response: ResponseFuture,
        mut send: Option<SendStream<Bytes>>,
        source: &mut Source<B>,
    ) -> Result<(response::Parts, RecvStream, Option<SendStream<Bytes>>), Failure>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        let answer = poll_fn(|cx| {
            if let Some(stream) = &mut send {
                match source.poll_send(stream, cx) {
                    Poll::Ready(Ok(())) => send = None,
                    // The response tells why.
                    Poll::Ready(Err(Failure::Instance(_))) => send = None,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => {}
                }
            }
            Pin::new(&mut response).poll(cx).map_err(Failure::Instance)
        })
        .await?;
        let (parts, recv) = answer.into_parts();
        Ok((parts, recv, send))
    }
}

fn request(head: &Head, flight: &Flight) -> Request<()> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(flight.backend.authority.clone());
    parts.path_and_query = Some(head.path.clone());
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.headers_mut() = head.headers.clone();
    request
}

/// Whether the instance surely did nothing with the request: it refused the stream, or said goodbye
/// before it (only streams above the last processed one end with a remote GOAWAY as their error).
fn untouched(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away()
            || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
}

fn broken(service: String, address: SocketAddr, error: &h2::Error) -> Error {
    if !(error.is_remote() && error.is_reset()) {
        return Error::Broken {
            service,
            address,
            reason: error.to_string().into(),
        };
    }
    let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
    Error::Reset {
        service,
        address,
        reason: reason.description().into(),
        kind: match reason {
            Reason::REFUSED_STREAM | Reason::CANCEL => Kind::Unavailable,
            Reason::ENHANCE_YOUR_CALM => Kind::Exhausted,
            Reason::INADEQUATE_SECURITY => Kind::Denied,
            _ => Kind::Internal,
        },
    }
}

enum Failure {
    Caller(BoxError),
    Instance(h2::Error),
}

/// The caller's body on its way out.
struct Source<B> {
    body: B,
    /// A chunk that waits for room, and whether it is the last one.
    held: Option<(Bytes, bool)>,
    /// The first chunk that was sent, kept for sending it again; most requests have no other.
    first: Option<(Bytes, bool)>,
    sent: usize,
}

impl<B> Source<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    const fn new(body: B) -> Self {
        Self {
            body,
            held: None,
            first: None,
            sent: 0,
        }
    }

    fn is_end(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    /// Goes back to the start; `false` when that is gone.
    fn rewind(&mut self) -> bool {
        match (self.sent, self.first.take()) {
            (0, _) => true,
            (1, Some(first)) if self.held.is_none() => {
                self.held = Some(first);
                self.sent = 0;
                true
            }
            _ => false,
        }
    }

    fn poll_send(
        &mut self,
        send: &mut SendStream<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if let Some((chunk, last)) = self.held.take() {
                if !chunk.is_empty() {
                    send.reserve_capacity(chunk.len());
                    if poll_room(send, cx)?.is_pending() {
                        self.held = Some((chunk, last));
                        return Poll::Pending;
                    }
                }
                if self.sent == 0 {
                    self.first = Some((chunk.clone(), last));
                }
                self.sent += 1;
                send.send_data(chunk, last).map_err(Failure::Instance)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => self.held = Some((chunk, self.body.is_end_stream())),
                    Err(frame) => {
                        self.sent += 2;
                        if let Ok(trailers) = frame.into_trailers() {
                            send.send_trailers(trailers).map_err(Failure::Instance)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Some(Err(error)) => {
                    send.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(Failure::Caller(error.into())));
                }
                None => self.held = Some((Bytes::new(), true)),
            }
        }
    }
}

/// Waits until some of what is to be sent fits into the flow-control windows.
fn poll_room(send: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
    while send.capacity() == 0 {
        match send.poll_capacity(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Err(Failure::Instance(error)),
            Poll::Ready(None) => return Err(Failure::Instance(Reason::CANCEL.into())),
            Poll::Pending => return Ok(Poll::Pending),
        }
    }
    Ok(Poll::Ready(()))
}

/// The rest of a request whose answer has begun. It runs by itself, because a caller may send
/// without reading and read without sending, and neither may wait for the other.
#[derive(Debug)]
struct Rest(JoinHandle<()>);

impl Rest {
    fn spawn<B>(mut source: Source<B>, mut send: SendStream<Bytes>) -> Self
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<BoxError>,
    {
        source.first = None;
        source.sent = source.sent.max(1);
        Self(tokio::spawn(async move {
            let sent = poll_fn(|cx| source.poll_send(&mut send, cx)).await;
            if let Err(Failure::Caller(error)) = sent {
                tracing::debug!(%error, "A caller's stream broke off.");
            }
        }))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an instance's answer. Dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct Received {
    recv: RecvStream,
    _rest: Option<Rest>,
    flight: Flight,
    _lease: Lease,
    route: Arc<Route>,
    /// Why the sending side broke off, if that was its own decision.
    slot: Option<Slot>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Done,
}

impl Received {
    /// A stream that the instance reset is reset towards the caller for the same reason; a broken
    /// connection becomes trailers, which say more than a reset could.
    fn failed(&mut self, error: h2::Error) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.stage = Stage::Done;
        if let Some(refusal) = self.slot.as_ref().and_then(|s| s.get()) {
            return Poll::Ready(Some(Ok(Frame::trailers(status::trailers(refusal)))));
        }
        if error.is_remote() && error.is_reset() {
            return Poll::Ready(Some(Err(error.into())));
        }
        let service = self.route.service().as_str().to_owned();
        let error = broken(service, self.flight.backend.address, &error);
        let trailers = status::trailers(&error.to_wire());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let me = &mut *self;
        if me.stage == Stage::Data {
            match ready!(me.recv.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    let _ = me.recv.flow_control().release_capacity(chunk.len());
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                Some(Err(error)) => return me.failed(error),
                None => me.stage = Stage::Trailers,
            }
        }
        if me.stage == Stage::Trailers {
            match ready!(me.recv.poll_trailers(cx)) {
                Ok(trailers) => {
                    me.stage = Stage::Done;
                    return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
                }
                Err(error) => return me.failed(error),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done || self.recv.is_end_stream()
    }
}
