//! gRPC endpoints over WebSocket (Micro contract §6.7): the first frame of the client is the
//! request, further frames are further messages, and each message of the service is a text frame of
//! JSON. An empty frame after the first says that no more messages will come.
//!
//! WebSockets of plain HTTP services are not for this file: they are passed through.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method as Verb, Response, StatusCode, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use micro_core::{Kind, WireError};
use micro_pipeline::Body;
use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    respond::{self, ID},
    stream::{Answers, Call},
};

/// How often a client is asked whether it is still there.
const PING: Duration = Duration::from_secs(15);
/// How long it may stay silent, pongs included; and how long the first frame may take.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one frame may take to leave.
const WRITE: Duration = Duration::from_secs(10);
/// How long the client may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(3);
/// After what silence a client has sent all it wanted to.
const HUSH: Duration = Duration::from_millis(500);
/// Messages of the client that wait for the service.
const WAITING: usize = 16;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether the request asks to become a WebSocket.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        headers.get_all(name).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|v| v.split(',').any(|v| v.trim().eq_ignore_ascii_case(word)))
        })
    };
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// The answer that makes the connection a WebSocket (101), or says why it cannot become one.
pub(crate) fn handshake(verb: &Verb, version: Version, headers: &HeaderMap) -> Response<Body> {
    let refuse = |detail: &str| respond::error(&WireError::new(ID, Kind::Invalid, detail));
    if verb != Verb::GET || version != Version::HTTP_11 {
        return refuse("cannot open a WebSocket: the handshake is a GET request of HTTP/1.1");
    }
    let spoken = headers.get(header::SEC_WEBSOCKET_VERSION);
    if spoken.is_none_or(|v| v != "13") {
        let mut response =
            refuse("cannot open a WebSocket: only version 13 of the protocol is spoken here");
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let thirteen = HeaderValue::from_static("13");
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, thirteen);
        return response;
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24);
    let accept = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok());
    let Some(accept) = accept else {
        return refuse(
            "cannot open a WebSocket: Sec-WebSocket-Key is missing or not 24 characters",
        );
    };
    let mut response = respond::empty();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // A browser breaks off unless one of the protocols it offered is chosen.
    let offered = headers
        .get(header::SEC_WEBSOCKET_PROTOCOL)
        .and_then(|v| v.to_str().ok());
    let chosen = offered.and_then(|v| v.split(',').next()).map(str::trim);
    if let Some(Ok(chosen)) = chosen.filter(|v| !v.is_empty()).map(HeaderValue::from_str) {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    response
}

/// Runs one call over a connection that has become a WebSocket.
pub(crate) async fn run(call: Arc<Call>, upgrade: OnUpgrade, limit: u64, stop: CancellationToken) {
    let io = match upgrade.await {
        Ok(io) => TokioIo::new(io),
        Err(error) => {
            tracing::debug!(%error, "A client asked for a WebSocket and left.");
            return;
        }
    };
    let limit = usize::try_from(limit).ok();
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(limit)
        .max_frame_size(limit);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let close = match converse(call, &mut socket, &stop).await {
        Ok(close) => close,
        Err(Gone) => return,
    };
    drop(tokio::time::timeout(CLOSING, farewell(&mut socket, close)).await);
}

/// Closes, and waits until the client has closed as well: only then has it read the last frames.
async fn farewell(socket: &mut Socket, close: CloseFrame) -> Result<(), tungstenite::Error> {
    socket.close(Some(close)).await?;
    loop {
        match socket.next().await {
            Some(Ok(_)) => {}
            None => return Ok(()),
            // The rest of a frame that was too large, probably. Leaving it unread would reset the
            // connection under the frames that tell the client about it.
            Some(Err(_)) => break,
        }
    }
    let mut unread = [0; 4096];
    let io = socket.get_mut();
    while let Ok(Ok(1..)) = tokio::time::timeout(HUSH, io.read(&mut unread)).await {}
    Ok(())
}

/// The client is not there any more; there is nobody to tell.
struct Gone;

impl From<tungstenite::Error> for Gone {
    fn from(error: tungstenite::Error) -> Self {
        tracing::debug!(%error, "A WebSocket ended.");
        Self
    }
}

/// What happened next.
enum Next {
    Client(Option<Result<Message, tungstenite::Error>>),
    Service(Option<Result<Bytes, WireError>>),
    Room(Result<(), mpsc::error::SendError<()>>),
    Tick,
    Stop,
}

/// Carries messages both ways until one side is done; says how to close.
async fn converse(
    call: Arc<Call>,
    socket: &mut Socket,
    stop: &CancellationToken,
) -> Result<CloseFrame, Gone> {
    let takes_many = call.method.client_streaming;
    let mut started: Option<Answers> = None;
    let mut requests: Option<mpsc::Sender<Bytes>> = None;
    // One message that the service has no room for yet. Until it has, the client is not read.
    let mut pending: Option<Bytes> = None;
    let mut heard = Instant::now();
    let mut ticks = tokio::time::interval_at(heard + PING, PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            answer = next_answer(&mut started) => Next::Service(answer),
            room = room(requests.as_ref()), if pending.is_some() => Next::Room(room),
            message = socket.next(), if pending.is_none() => Next::Client(message),
            _ = ticks.tick() => Next::Tick,
            () = stop.cancelled() => Next::Stop,
        };
        match next {
            Next::Client(None) => return Err(Gone),
            Next::Client(Some(message)) => {
                heard = Instant::now();
                let text = match message {
                    Ok(Message::Text(text)) => Bytes::from(text),
                    Ok(Message::Binary(bytes)) => bytes,
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                    Ok(Message::Close(_)) => return Err(Gone),
                    Err(tungstenite::Error::Capacity(error)) => {
                        let detail = format!(
                            "the frame is too large: {error}\nhint: send less, or ask the operator to raise the setting limits.body"
                        );
                        return fail(socket, &WireError::with_code(ID, 413, detail)).await;
                    }
                    Err(error) => return Err(error.into()),
                };
                if started.is_some() && text.is_empty() {
                    requests = None;
                    continue;
                }
                if started.is_some() && requests.is_none() {
                    // Micro forwards them to a service that never reads them.
                    continue;
                }
                let message = match call.encode(&text) {
                    Ok(message) => message,
                    Err(error) => return fail(socket, &error).await,
                };
                if started.is_none() {
                    let (sender, mut receiver) = mpsc::channel(WAITING);
                    let messages =
                        futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
                    started = Some(Arc::clone(&call).answers(messages));
                    requests = Some(sender);
                }
                pending = Some(message);
            }
            Next::Room(room) => {
                heard = Instant::now();
                let message = pending.take();
                if let (Ok(()), Some(sender), Some(message)) = (room, requests.as_ref(), message) {
                    // There is room, and nobody else sends.
                    drop(sender.try_send(message));
                }
                if !takes_many {
                    requests = None;
                }
            }
            Next::Service(Some(Ok(json))) => match String::from_utf8(json.into()) {
                Ok(json) => send(socket, Message::text(json)).await?,
                Err(error) => send(socket, Message::binary(error.into_bytes())).await?,
            },
            Next::Service(Some(Err(error))) => return fail(socket, &error).await,
            Next::Service(None) => {
                return Ok(CloseFrame {
                    code: CloseCode::Normal,
                    reason: "".into(),
                });
            }
            // While the service has no room, the client is not read and cannot be heard.
            Next::Tick if pending.is_none() && heard.elapsed() > SILENCE => return Err(Gone),
            Next::Tick => send(socket, Message::Ping(Bytes::new())).await?,
            Next::Stop => {
                return Ok(CloseFrame {
                    code: CloseCode::Away,
                    reason: "the gateway stops".into(),
                });
            }
        }
    }
}

/// The next message of the service; never, while no call has started.
async fn next_answer(answers: &mut Option<Answers>) -> Option<Result<Bytes, WireError>> {
    match answers {
        Some(answers) => answers.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until the service takes one more message.
async fn room(requests: Option<&mpsc::Sender<Bytes>>) -> Result<(), mpsc::error::SendError<()>> {
    match requests {
        Some(sender) => sender.reserve().await.map(drop),
        None => Err(mpsc::error::SendError(())),
    }
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), Gone> {
    match tokio::time::timeout(WRITE, socket.send(message)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(Gone),
    }
}

/// Sends an error object as the last frame.
async fn fail(socket: &mut Socket, error: &WireError) -> Result<CloseFrame, Gone> {
    send(socket, Message::text(error.to_json())).await?;
    let code = if error.code == 413 {
        CloseCode::Size
    } else if error.code < 500 {
        CloseCode::Policy
    } else {
        CloseCode::Error
    };
    Ok(CloseFrame {
        code,
        reason: error.status.clone().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn a_handshake_is_answered_as_the_standard_says() {
        let asked = headers(&[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, other"),
        ]);
        assert!(is_asked(&asked));
        let response = handshake(&Verb::GET, Version::HTTP_11, &asked);
        assert_eq!(response.status(), 101);
        // The example of RFC 6455 §1.3.
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    }

    #[test]
    fn a_broken_handshake_is_refused_with_the_reason() {
        let status = |verb, pairs: &[_]| {
            handshake(&verb, Version::HTTP_11, &headers(pairs))
                .status()
                .as_u16()
        };
        assert_eq!(status(Verb::POST, &[]), 400);
        assert_eq!(status(Verb::GET, &[("sec-websocket-version", "8")]), 426);
        assert_eq!(status(Verb::GET, &[("sec-websocket-version", "13")]), 400);
        assert!(!is_asked(&headers(&[
            ("upgrade", "h2c"),
            ("connection", "upgrade")
        ])));
        assert!(!is_asked(&headers(&[("upgrade", "websocket")])));
    }
}
