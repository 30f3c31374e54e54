//! One call to a built-in service, by the path of its method.

use std::{fmt, marker::PhantomData, time::Duration};

use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
    codegen::{Bytes, http::uri::PathAndQuery},
};
use tonic_prost::ProstCodec;

use crate::{error::Error, mesh::Mesh};

/// A record holds 64 MiB, and an answer several of them.
const LARGEST: usize = 256 << 20;
/// Longer than anything that the platform does in one call.
const DEADLINE: Duration = Duration::from_secs(60);

/// Asks once, is answered once.
pub(crate) async fn unary<M, R>(mesh: &Mesh, path: &'static str, message: M) -> Result<R, Status>
where
    M: Message + 'static,
    R: Message + Default + 'static,
{
    let mut grpc = client(mesh).await?;
    let codec = ProstCodec::<M, R>::default();
    let call = grpc.unary(
        Request::new(message),
        PathAndQuery::from_static(path),
        codec,
    );
    match timeout(DEADLINE, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(late()),
    }
}

/// Sends many, is answered once. Without a deadline: it takes as long as the sending.
pub(crate) async fn upload<F, R>(
    mesh: &Mesh,
    path: &'static str,
    frames: impl Stream<Item = F> + Send + 'static,
) -> Result<R, Status>
where
    F: Frame,
    R: Message + Default + 'static,
{
    let mut grpc = client(mesh).await?;
    let path = PathAndQuery::from_static(path);
    let answer = grpc.client_streaming(Request::new(frames), path, FrameCodec::<F, R>::new());
    Ok(answer.await?.into_inner())
}

/// Asks once, is answered many times.
pub(crate) async fn stream<M, R>(
    mesh: &Mesh,
    path: &'static str,
    message: M,
) -> Result<Streaming<R>, Status>
where
    M: Message + 'static,
    R: Message + Default + 'static,
{
    duplex(mesh, path, tokio_stream::once(Ok(message))).await
}

/// Sends many, is answered many times.
pub(crate) async fn duplex<F, R>(
    mesh: &Mesh,
    path: &'static str,
    frames: impl Stream<Item = F> + Send + 'static,
) -> Result<Streaming<R>, Status>
where
    F: Frame,
    R: Message + Default + 'static,
{
    let mut grpc = client(mesh).await?;
    let path = PathAndQuery::from_static(path);
    // The deadline is for the beginning of the answer; then it lasts as long as it lasts.
    let opening = grpc.streaming(Request::new(frames), path, FrameCodec::<F, R>::new());
    match timeout(DEADLINE, opening).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(late()),
    }
}

async fn client(mesh: &Mesh) -> Result<Grpc<Mesh>, Status> {
    let mut grpc = Grpc::new(mesh.clone()).max_decoding_message_size(LARGEST);
    grpc.ready().await?;
    Ok(grpc)
}

fn late() -> Status {
    Status::deadline_exceeded(format!(
        "the platform did not answer within {} seconds",
        DEADLINE.as_secs()
    ))
}

/// One message of a stream that is sent, of whatever type.
pub(crate) trait Frame: Send + Sync + 'static {
    /// Writes it.
    ///
    /// # Errors
    /// What breaks the stream off, so that the other side does not take it for complete.
    fn write(self, out: &mut EncodeBuf<'_>) -> Result<(), Status>;
}

impl<M: Message + 'static> Frame for Result<M, Status> {
    fn write(self, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let written = self?.encode(out);
        written.map_err(|error| Status::internal(error.to_string()))
    }
}

/// Sends frames, receives messages.
struct FrameCodec<F, R>(PhantomData<fn(F) -> R>);

impl<F, R> FrameCodec<F, R> {
    const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<F: Frame, R: Message + Default + 'static> Codec for FrameCodec<F, R> {
    type Encode = F;
    type Decode = R;
    type Encoder = Self;
    type Decoder = <ProstCodec<(), R> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<(), R>::default().decoder()
    }
}

impl<F: Frame, R> Encoder for FrameCodec<F, R> {
    type Item = F;
    type Error = Status;

    fn encode(&mut self, frame: F, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.write(out)
    }
}

/// A value as JSON, which is how all of Micro's libraries keep values.
pub(crate) fn to_json<T: Serialize + ?Sized>(
    what: impl fmt::Display,
    value: &T,
) -> Result<Bytes, Error> {
    match serde_json::to_vec(value) {
        Ok(json) => Ok(json.into()),
        Err(error) => Err(Error::invalid(what, error)),
    }
}

/// The value in `json`.
pub(crate) fn from_json<T: DeserializeOwned>(
    what: impl fmt::Display,
    json: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| {
        Error::invalid(
            what,
            format_args!("it is not what this service expects: {error}"),
        )
    })
}
