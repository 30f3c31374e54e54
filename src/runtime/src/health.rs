//! Whether an instance serves, and how. It serves when its port accepts, or when it has registered
//! itself; then it is asked what it speaks.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use micro_schema::{ReflectError, Schema, protos, reflect};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    error::Error,
    manifest::Protocol,
    repo::{Recipe, Served},
};

/// How often the port is tried while a start is expected to be quick.
const EAGER: Duration = Duration::from_millis(2);
/// For how long.
const EAGER_FOR: Duration = Duration::from_millis(500);
/// How often afterwards.
const PATIENT: Duration = Duration::from_millis(25);
/// How long one question may take.
const ASK: Duration = Duration::from_secs(2);
/// How long a server that does not answer sensibly is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long a gRPC server without descriptors has to register itself.
const REGISTER: Duration = Duration::from_millis(1500);

/// How an instance became reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Its port accepts.
    Port,
    /// It registered itself, wherever it listens.
    Registry,
}

/// Waits until `address` accepts or `registered` is true; `None` when neither happens in `timeout`.
pub(crate) async fn reach(
    address: SocketAddr,
    registered: impl Fn() -> bool,
    timeout: Duration,
) -> Option<Reached> {
    let start = Instant::now();
    loop {
        if accepts(address).await {
            return Some(Reached::Port);
        }
        if registered() {
            return Some(Reached::Registry);
        }
        let waited = start.elapsed();
        if waited >= timeout {
            return None;
        }
        tokio::time::sleep(if waited < EAGER_FOR { EAGER } else { PATIENT }).await;
    }
}

async fn accepts(address: SocketAddr) -> bool {
    let connect = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address));
    match connect.await {
        // A port in the range of outgoing connections can connect to itself while nobody listens.
        Ok(Ok(stream)) => match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(peer)) => local != peer,
            _ => false,
        },
        _ => false,
    }
}

/// What an instance offers.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) served: Served,
    pub(crate) schema: Arc<Schema>,
    pub(crate) descriptors: Option<Vec<u8>>,
    /// For the person who deploys.
    pub(crate) note: Option<&'static str>,
}

impl Offer {
    fn grpc(descriptors: Vec<u8>) -> Result<Self, micro_schema::Error> {
        Ok(Self {
            served: Served {
                protocol: Some(Protocol::Grpc),
            },
            schema: Arc::new(Schema::from_descriptor_set(&descriptors)?),
            descriptors: Some(descriptors),
            note: None,
        })
    }

    fn bare(protocol: Option<Protocol>, note: Option<&'static str>) -> Self {
        Self {
            served: Served { protocol },
            schema: Arc::new(Schema::from_endpoints(Vec::new())),
            descriptors: None,
            note,
        }
    }

    /// It looks after its own registration.
    pub(crate) fn own() -> Self {
        Self::bare(None, None)
    }

    /// What an earlier instance of the same release offered.
    pub(crate) fn known(served: &Served, descriptors: Option<&[u8]>) -> Option<Self> {
        match descriptors {
            Some(bytes) => Self::grpc(bytes.to_vec()).ok(),
            None => Some(Self::bare(served.protocol, None)),
        }
    }
}

/// Finds out what the instance at `address` speaks. `artifact` is its release.
///
/// # Errors
/// When the author's descriptor set cannot be used.
pub(crate) async fn ask(
    address: SocketAddr,
    recipe: &Recipe,
    artifact: &Path,
    registered: impl Fn() -> bool,
) -> Result<Offer, Error> {
    let folder = recipe
        .cwd
        .strip_prefix(crate::plan::APP)
        .map_or_else(|_| artifact.to_path_buf(), |below| artifact.join(below));
    if let Some(file) = &recipe.descriptor {
        return author(&folder, file);
    }
    if recipe.protocol == Some(Protocol::Http) {
        return Ok(Offer::bare(Some(Protocol::Http), None));
    }
    let start = Instant::now();
    loop {
        match reflect::descriptor_set(address, ASK).await {
            Ok(bytes) => match Offer::grpc(bytes) {
                Ok(offer) => return Ok(offer),
                Err(error) => {
                    tracing::warn!(%error, %address, "The descriptors of an instance cannot be used.");
                    return Ok(Offer::bare(
                        Some(Protocol::Grpc),
                        Some("its reflection answers with descriptors that cannot be used"),
                    ));
                }
            },
            Err(ReflectError::NotGrpc(_)) if recipe.protocol.is_none() => {
                return Ok(Offer::bare(Some(Protocol::Http), None));
            }
            Err(ReflectError::NoReflection(_)) => break,
            Err(_) if start.elapsed() < ASK_AGAIN => tokio::time::sleep(PATIENT).await,
            Err(_) if recipe.protocol.is_none() => {
                return Ok(Offer::bare(
                    Some(Protocol::Http),
                    Some(
                        "it accepts connections but answers nothing; it is taken for HTTP (set `protocol` in micro.toml if it is not)",
                    ),
                ));
            }
            Err(_) => break,
        }
    }
    without_reflection(folder, registered).await
}

fn author(folder: &Path, file: &str) -> Result<Offer, Error> {
    let bad = |source| Error::Descriptor {
        file: file.to_owned(),
        source: Box::new(source),
    };
    let below = crate::detect::relative(file).map_err(|_| Error::Manifest {
        file: "micro.toml".into(),
        problem: format!("descriptor {file:?} is not below the folder of the service"),
    })?;
    let path = folder.join(below);
    let bytes = fs::read(&path).map_err(|e| {
        bad(micro_schema::Error::Read {
            path: file.to_owned(),
            reason: e.to_string(),
        })
    })?;
    Offer::grpc(bytes).map_err(bad)
}

/// gRPC without reflection: `.proto` files beside the program, or a registration of its own.
async fn without_reflection(
    folder: PathBuf,
    registered: impl Fn() -> bool,
) -> Result<Offer, Error> {
    let compiled = tokio::task::spawn_blocking(move || protos::compile_dir(&folder)).await?;
    let note = match compiled {
        Ok(Some(bytes)) => match Offer::grpc(bytes) {
            Ok(offer) => return Ok(offer),
            Err(_) => "its .proto files cannot be used; only gRPC clients can call it",
        },
        Ok(None) => {
            "it offers no gRPC reflection and has no .proto files; only gRPC clients can call it"
        }
        Err(error) => {
            tracing::warn!(%error, "The .proto files of a release do not compile.");
            "its .proto files do not compile; only gRPC clients can call it"
        }
    };
    let start = Instant::now();
    while start.elapsed() < REGISTER {
        if registered() {
            return Ok(Offer::own());
        }
        tokio::time::sleep(PATIENT).await;
    }
    Ok(Offer::bare(Some(Protocol::Grpc), Some(note)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_open_port_a_registration_or_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wait = Duration::from_secs(10);
        assert_eq!(reach(address, || false, wait).await, Some(Reached::Port));
        drop(listener);
        let asked = AtomicUsize::new(0);
        let registered = || asked.fetch_add(1, Ordering::Relaxed) == 2;
        assert_eq!(
            reach(address, registered, wait).await,
            Some(Reached::Registry)
        );
        assert_eq!(
            reach(address, || false, Duration::from_millis(5)).await,
            None
        );
    }
}
