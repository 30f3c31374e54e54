//! Descriptors from a running instance over gRPC reflection, version 1 and then `v1alpha`.
//!
//! The connection is made by hand instead of through a channel, because what matters here is *why*
//! it does not work: an instance that is no gRPC server at all is served as plain HTTP.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::{TokioExecutor, TokioIo};
use micro_core::{Fault, Kind};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio::{net::TcpStream, sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_request::MessageRequest as Ask,
    server_reflection_response::MessageResponse as Answer,
};

use crate::{DESCRIPTOR_LIMIT, protos, schema};

/// Both versions have the same messages.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
const FILES: usize = 2_000;

/// Why there are no descriptors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReflectError {
    /// The instance accepts connections but does not speak gRPC.
    #[error("{0} does not speak gRPC")]
    NotGrpc(SocketAddr),
    /// A gRPC server without reflection.
    #[error("{0} speaks gRPC but offers no reflection")]
    NoReflection(SocketAddr),
    /// Nobody answers, or the answers are of no use.
    #[error("cannot fetch the descriptors of {address}: {reason}")]
    Failed {
        /// The instance.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
}

impl Fault for ReflectError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotGrpc(_) | Self::NoReflection(_) => Kind::Unimplemented,
            Self::Failed { .. } => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Self::NoReflection(_)).then(|| {
            "enable gRPC reflection in the service, or keep its .proto files beside its source"
                .into()
        })
    }
}

/// Fetches the descriptors of all services at `address` with everything they import, as a
/// serialised `google.protobuf.FileDescriptorSet`.
///
/// # Errors
/// See [`ReflectError`]; passing `deadline` is [`ReflectError::Failed`].
pub async fn descriptor_set(
    address: SocketAddr,
    deadline: Duration,
) -> Result<Vec<u8>, ReflectError> {
    // On the heap: the state of a whole conversation is large.
    match time::timeout(deadline, Box::pin(fetch(address))).await {
        Ok(result) => result,
        Err(_) => Err(ReflectError::Failed {
            address,
            reason: format!("no answer within {} ms", deadline.as_millis()),
        }),
    }
}

async fn fetch(address: SocketAddr) -> Result<Vec<u8>, ReflectError> {
    let failed = |reason: String| ReflectError::Failed { address, reason };
    for path in PATHS {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| failed(e.to_string()))?;
        // Whether the small frames go out at once is a matter of speed only.
        let _ = stream.set_nodelay(true);
        let seen = Arc::new(OnceLock::new());
        let mut talk = match Talk::open(stream, address, path, &seen).await {
            Ok(talk) => talk,
            Err(problem) => match (seen.get(), problem.code()) {
                (Some(Seen::Grpc), Code::Unimplemented) => continue,
                (Some(Seen::Grpc), _) => return Err(failed(problem.message().to_owned())),
                _ => return Err(ReflectError::NotGrpc(address)),
            },
        };
        match gather(&mut talk).await {
            Ok(set) => return Ok(set),
            // Some servers refuse the method only after the headers.
            Err(Problem::Status(status)) if status.code() == Code::Unimplemented => {}
            Err(_) if !matches!(seen.get(), Some(Seen::Grpc)) => {
                return Err(ReflectError::NotGrpc(address));
            }
            Err(problem) => return Err(failed(problem.to_string())),
        }
    }
    Err(ReflectError::NoReflection(address))
}

/// What came back on the connection.
#[derive(Debug)]
enum Seen {
    /// A response of a gRPC server.
    Grpc,
    /// A response of some other HTTP/2 server.
    Other,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{}", .0.message())]
    Status(Status),
    #[error("{0}")]
    Unusable(String),
}

/// An open reflection stream.
struct Talk {
    asks: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
}

impl Talk {
    async fn open(
        stream: TcpStream,
        address: SocketAddr,
        path: &'static str,
        seen: &Arc<OnceLock<Seen>>,
    ) -> Result<Self, Status> {
        let broken = |e: hyper::Error| Status::unavailable(e.to_string());
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(broken)?;
        // Ends by itself when the last sender is gone.
        drop(tokio::spawn(connection));
        let seen = Arc::clone(seen);
        let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let (mut send, seen) = (send.clone(), Arc::clone(&seen));
            async move {
                let response = send.send_request(request).await?;
                let grpc = response
                    .headers()
                    .get(http::header::CONTENT_TYPE)
                    .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
                // Only the first response counts, and there is only one.
                let _ = seen.set(if grpc { Seen::Grpc } else { Seen::Other });
                Ok::<_, hyper::Error>(response)
            }
        });
        let origin = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query("/")
            .build()
            .map_err(|e| Status::internal(e.to_string()))?;
        let mut client =
            Grpc::with_origin(service, origin).max_decoding_message_size(DESCRIPTOR_LIMIT);
        let (asks, outgoing) = mpsc::channel(1);
        // Before the call: a server may answer headers only after the first message.
        let first = request(Ask::ListServices(String::new()));
        if asks.send(first).await.is_err() {
            return Err(Status::internal("the request stream is closed"));
        }
        client.ready().await.map_err(broken)?;
        let answers = client
            .streaming(
                Request::new(ReceiverStream::new(outgoing)),
                PathAndQuery::from_static(path),
                ProstCodec::default(),
            )
            .await?
            .into_inner();
        Ok(Self { asks, answers })
    }

    async fn ask(&mut self, ask: Ask) -> Result<Answer, Problem> {
        let closed = || Problem::Unusable("it ended the reflection stream early".to_owned());
        self.asks.send(request(ask)).await.map_err(|_| closed())?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, Problem> {
        let closed = || Problem::Unusable("it ended the reflection stream early".to_owned());
        let message = self.answers.message().await.map_err(Problem::Status)?;
        message
            .ok_or_else(closed)?
            .message_response
            .ok_or_else(|| Problem::Unusable("it sent an empty reflection answer".to_owned()))
    }
}

fn request(ask: Ask) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ask),
    }
}

/// A descriptor set whose files stay bytes, so that options we do not know survive.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// Files by name: their bytes and what they import.
#[derive(Default)]
struct Gathered {
    files: BTreeMap<String, Vec<u8>>,
    imports: Vec<String>,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, bytes: Vec<u8>) -> Result<(), Problem> {
        let file = FileDescriptorProto::decode(bytes.as_slice())
            .map_err(|e| Problem::Unusable(format!("it sent a broken descriptor: {e}")))?;
        let name = file.name().to_owned();
        if self.files.contains_key(&name) {
            return Ok(());
        }
        self.bytes += bytes.len();
        if self.bytes > DESCRIPTOR_LIMIT || self.files.len() >= FILES {
            return Err(Problem::Unusable(format!(
                "its descriptors are more than {FILES} files or {DESCRIPTOR_LIMIT} bytes"
            )));
        }
        self.imports.extend(file.dependency);
        self.files.insert(name, bytes);
        Ok(())
    }

    fn add_answer(&mut self, answer: Answer) -> Result<(), Problem> {
        match answer {
            Answer::FileDescriptorResponse(response) => response
                .file_descriptor_proto
                .into_iter()
                .try_for_each(|bytes| self.add(bytes)),
            Answer::ErrorResponse(error) => Err(Problem::Unusable(error.error_message)),
            _ => Err(Problem::Unusable("it answered another question".to_owned())),
        }
    }
}

async fn gather(talk: &mut Talk) -> Result<Vec<u8>, Problem> {
    // The question for the services went out when the stream was opened.
    let services = match talk.answer().await? {
        Answer::ListServicesResponse(list) => list.service,
        Answer::ErrorResponse(error) => return Err(Problem::Unusable(error.error_message)),
        _ => return Err(Problem::Unusable("it answered another question".to_owned())),
    };
    let mut gathered = Gathered::default();
    for service in services {
        if !schema::is_plumbing(&service.name) {
            let answer = talk
                .ask(Ask::FileContainingSymbol(service.name.clone()))
                .await?;
            gathered.add_answer(answer).map_err(|e| {
                Problem::Unusable(format!("it has no descriptors for {}: {e}", service.name))
            })?;
        }
    }
    // A server may send only the file that was asked for; then its imports are asked for by name.
    while let Some(import) = gathered.imports.pop() {
        if gathered.files.contains_key(&import) {
            continue;
        }
        let answer = talk.ask(Ask::FileByFilename(import.clone())).await?;
        let added = gathered.add_answer(answer);
        if gathered.files.contains_key(&import) {
            added?;
            continue;
        }
        match protos::well_known(&import) {
            Some(file) => gathered.add(file.encode_to_vec())?,
            None => {
                let reason = added.err().map_or_else(String::new, |e| format!(": {e}"));
                return Err(Problem::Unusable(format!(
                    "its descriptors import {import}, which it does not hand out{reason}"
                )));
            }
        }
    }
    let set = RawSet {
        file: gathered.files.into_values().collect(),
    };
    Ok(set.encode_to_vec())
}
