//! Endpoints that stream, over plain HTTP (Micro contract §6.7): messages as JSON objects one after
//! another, each sent as it comes, or as server-sent events for a client that asks for those. What
//! WebSockets share with them is here as well.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use micro_core::{Kind, WireError};
use micro_pipeline::{Admitted, Body};
use micro_schema::Method;
use tokio_util::sync::CancellationToken;

use crate::{
    Gateway, request,
    respond::{self, ID},
    websocket,
};

/// How long the status line waits for the first message, which may turn out to be an error.
const FIRST: Duration = Duration::from_secs(1);
/// How often a silent event stream shows that it is alive; proxies cut off what is silent.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a stream goes on once the gateway stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Messages as JSON, or the error that ends them.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, WireError>> + Send>>;

/// One call of a method, whatever carries its messages.
pub(crate) struct Call {
    gateway: Arc<Gateway>,
    admitted: Admitted,
    pub(crate) method: Method,
    headers: HeaderMap,
}

impl Call {
    fn new(gateway: Arc<Gateway>, admitted: Admitted, mut headers: HeaderMap) -> Option<Self> {
        let method = admitted.method()?.clone();
        request::strip(&mut headers);
        Some(Self {
            gateway,
            admitted,
            method,
            headers,
        })
    }

    /// A message of the client in the service's encoding.
    pub(crate) fn encode(&self, json: &[u8]) -> Result<Bytes, WireError> {
        self.method
            .message_from_json(json)
            .map_err(|e| WireError::of(ID, &e))
    }

    fn decode(&self, message: &[u8]) -> Result<Bytes, WireError> {
        let json = self
            .method
            .json_from_message(message)
            .map_err(|e| WireError::of(ID, &e))?;
        Ok(if json.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            json.into()
        })
    }

    /// Starts the call, when first polled.
    pub(crate) fn answers(
        self: Arc<Self>,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Answers {
        let call = Arc::clone(&self);
        let open = async move {
            let upstreams = &call.gateway.upstreams;
            upstreams
                .stream(&call.admitted, &call.method, requests, &call.headers)
                .await
        };
        let answers = futures_util::stream::once(open).try_flatten();
        Box::pin(answers.map(move |message| message.and_then(|message| self.decode(&message))))
    }
}

/// Calls a streaming method with the messages of one request.
pub(crate) async fn answer(
    gateway: Arc<Gateway>,
    admitted: Admitted,
    request: Request<Incoming>,
    uri: &Uri,
) -> Response<Body> {
    match start(gateway, admitted, request, uri).await {
        Ok(response) => response,
        Err(error) => respond::error(&error),
    }
}

async fn start(
    gateway: Arc<Gateway>,
    admitted: Admitted,
    request: Request<Incoming>,
    uri: &Uri,
) -> Result<Response<Body>, WireError> {
    let (head, body) = request.into_parts();
    let body = if request::has_body(&head.method) {
        request::body(body, &head.headers, gateway.settings.body_limit)
            .await
            .map_err(|e| e.to_wire())?
    } else {
        Bytes::new()
    };
    let events = wants_events(&head.headers);
    let stop = gateway.stop.clone();
    let call = Call::new(gateway, admitted, head.headers).ok_or_else(vanished)?;
    // A client that streams sends its messages one after another in the body; together with a query
    // or in a form there is one.
    let several = call.method.client_streaming && uri.query().is_none_or(str::is_empty);
    let texts = if several && request::is_json(&call.headers, &body) {
        request::several(&body).map_err(|e| e.to_wire())?
    } else {
        let json = request::json(&call.method, &call.headers, uri.query(), body);
        vec![json.map_err(|e| e.to_wire())?]
    };
    let messages = texts
        .iter()
        .map(|text| call.encode(text))
        .collect::<Result<Vec<_>, _>>()?;
    let one_answer = !call.method.server_streaming;
    let mut answers = Arc::new(call).answers(futures_util::stream::iter(messages));
    if one_answer {
        let json = answers.next().await.unwrap_or_else(|| Ok(Bytes::new()))?;
        return Ok(respond::json(json));
    }
    // An error that comes at once gets a status of its own.
    let first = match tokio::time::timeout(FIRST, answers.next()).await {
        Ok(Some(first)) => Some(first?),
        Ok(None) => {
            answers = Box::pin(futures_util::stream::empty());
            None
        }
        Err(_) => None,
    };
    let answers = futures_util::stream::iter(first.map(Ok)).chain(answers);
    Ok(if events {
        respond::chunks("text/event-stream", until(stop, alive(answers, event)))
    } else {
        respond::chunks("application/json", until(stop, plain(answers)))
    })
}

/// Opens a WebSocket and goes on with the call there.
pub(crate) fn upgrade(
    gateway: Arc<Gateway>,
    admitted: Admitted,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let response = websocket::handshake(request.method(), request.version(), request.headers());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let headers = std::mem::take(request.headers_mut());
    let Some(call) = Call::new(Arc::clone(&gateway), admitted, headers) else {
        return respond::error(&vanished());
    };
    let (limit, stop) = (gateway.settings.body_limit, gateway.stop.clone());
    gateway
        .tasks
        .spawn(websocket::run(Arc::new(call), upgrade, limit, stop));
    response
}

/// Routing has found the method before, in the same schema.
fn vanished() -> WireError {
    WireError::new(
        ID,
        Kind::NotFound,
        "the endpoint is not there any more\nhint: try again",
    )
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    accepted.flat_map(|v| v.split(',')).any(|media| {
        let media = media.split(';').next().unwrap_or_default();
        media.trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// Raw JSON objects; an error is the last of them.
fn plain(
    answers: impl Stream<Item = Result<Bytes, WireError>> + Send + 'static,
) -> impl Stream<Item = Bytes> + Send + 'static {
    answers.map(|answer| answer.unwrap_or_else(|error| error.to_json().into()))
}

/// One server-sent event.
fn event(answer: Result<Bytes, WireError>) -> Bytes {
    let (name, json) = match answer {
        Ok(json) => ("", json),
        Err(error) => ("event: error\n", error.to_json().into()),
    };
    let mut event = BytesMut::with_capacity(name.len() + json.len() + 8);
    event.put_slice(name.as_bytes());
    // Line breaks in JSON are spaces between its parts, but to an event they are its end.
    for line in json
        .split(|b| matches!(b, b'\n' | b'\r'))
        .filter(|line| !line.is_empty())
    {
        event.put_slice(b"data: ");
        event.put_slice(line);
        event.put_slice(b"\n");
    }
    event.put_slice(b"\n");
    event.freeze()
}

/// Writes each answer with `write`, and a comment when there has been none for a while.
fn alive<S>(
    answers: S,
    write: fn(Result<Bytes, WireError>) -> Bytes,
) -> impl Stream<Item = Bytes> + Send + 'static
where
    S: Stream<Item = Result<Bytes, WireError>> + Send + 'static,
{
    futures_util::stream::unfold(Box::pin(answers), move |mut answers| async move {
        let chunk = match tokio::time::timeout(ALIVE, answers.next()).await {
            Ok(answer) => write(answer?),
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        Some((chunk, answers))
    })
}

/// Ends a stream soon after the gateway has been told to stop, so that one that never ends by itself
/// does not hold everything up.
fn until<S>(stop: CancellationToken, stream: S) -> impl Stream<Item = Bytes> + Send + 'static
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    stream.take_until(async move {
        stop.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn event_streams_are_asked_for_by_name() {
        let mut headers = HeaderMap::new();
        assert!(!wants_events(&headers));
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("text/html, Text/Event-Stream;q=0.9"),
        );
        assert!(wants_events(&headers));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        assert!(!wants_events(&headers));
    }

    #[test]
    fn an_event_is_never_cut_by_a_line_break_in_its_json() {
        assert_eq!(
            event(Ok(Bytes::from_static(b"{\"a\":1}"))),
            "data: {\"a\":1}\n\n"
        );
        assert_eq!(
            event(Ok(Bytes::from_static(b"{\r\n\"a\":1\n}"))),
            "data: {\ndata: \"a\":1\ndata: }\n\n"
        );
        let error = event(Err(WireError::with_code("x", 404, "gone")));
        assert!(
            error.starts_with(b"event: error\ndata: {\"id\":\"x\""),
            "{error:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_event_stream_shows_that_it_lives() {
        let mut chunks = Box::pin(alive(futures_util::stream::pending(), event));
        assert_eq!(chunks.next().await.unwrap(), ":\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_stream_ends_when_the_gateway_stops() {
        let stop = CancellationToken::new();
        let mut stream = Box::pin(until(stop.clone(), futures_util::stream::pending()));
        stop.cancel();
        assert_eq!(stream.next().await, None);
    }
}
