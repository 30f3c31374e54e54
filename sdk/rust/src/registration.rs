//! Being found when the platform did not start the service: it registers itself, says so again
//! before the registration ends, and takes it back at the stop. A platform that is away, restarts or
//! refuses never stops the service; it is asked again until it agrees.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::{
    mesh::Mesh,
    platform::detail,
    service::say,
    wire::registry::{EmptyResponse, Endpoint, Node, Options, Service},
};

const REGISTER: PathAndQuery = PathAndQuery::from_static("/registry.Registry/Register");
const DEREGISTER: PathAndQuery = PathAndQuery::from_static("/registry.Registry/Deregister");
/// How long a registration lives without being said again.
const TTL_SECONDS: i64 = 90;
/// How often it is said again; also how soon a platform that lost its state knows the service again.
pub(crate) const BEAT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(5);
/// Nobody wants to wait for a platform that hangs when a service stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a service says of itself.
pub(crate) struct Registration {
    service: Service,
    mesh: Mesh,
    beat: Duration,
    /// Whether the platform may know of this node.
    known: AtomicBool,
}

impl Registration {
    /// The registration of `name`, which listens on `address`.
    pub(crate) async fn new(
        name: &str,
        version: &str,
        namespace: &str,
        address: SocketAddr,
        endpoints: Vec<Endpoint>,
        mesh: Mesh,
    ) -> Self {
        let pairs = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let node = Node {
            id: format!("{name}-{}", unique()),
            address: advertised(address, mesh.address()).await.to_string(),
            port: 0,
            // What Micro's Go library says, and that the schema may be asked by gRPC reflection.
            metadata: pairs(&[
                ("protocol", "grpc"),
                ("reflection", "true"),
                ("registry", "service"),
                ("server", "grpc"),
                ("transport", "grpc"),
            ]),
        };
        Self {
            service: Service {
                name: name.to_owned(),
                version: version.to_owned(),
                metadata: HashMap::new(),
                endpoints,
                nodes: vec![node],
                options: Some(Options {
                    ttl: TTL_SECONDS,
                    domain: namespace.to_owned(),
                }),
            },
            mesh,
            beat: BEAT,
            known: AtomicBool::new(false),
        }
    }

    /// Registers again every `beat`.
    pub(crate) fn with_beat(self, beat: Duration) -> Self {
        Self { beat, ..self }
    }

    /// Registers, and registers again, for as long as it is polled.
    pub(crate) async fn keep(&self) {
        let name = &self.service.name;
        let platform = self.mesh.address();
        // What was said last: people want to hear of a change, not of each beat.
        let mut said = String::new();
        let mut retry = FIRST_RETRY;
        loop {
            // A request that was sent may have been heard, even if nobody waits for its answer.
            let known = self.known.swap(true, Ordering::Relaxed);
            let (news, pause) = match self.ask(REGISTER, DEADLINE).await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    (format!("{name} is registered at {platform}"), self.beat)
                }
                Err(status) => {
                    if status.code() != Code::DeadlineExceeded {
                        self.known.store(known, Ordering::Relaxed);
                    }
                    let why = detail(&status);
                    let pause = retry.min(self.beat);
                    retry = pause * 2;
                    (
                        format!("{name} serves but is not registered, and tries again: {why}"),
                        pause,
                    )
                }
            };
            if said != news {
                say(&news);
                said = news;
            }
            sleep(pause).await;
        }
    }

    /// Takes the registration back; what cannot be told to the platform ends by itself.
    pub(crate) async fn withdraw(&self) {
        if self.known.swap(false, Ordering::Relaxed)
            && let Err(status) = self.ask(DEREGISTER, FAREWELL).await
        {
            say(&format!(
                "{} could not deregister, its registration ends within {TTL_SECONDS} seconds: {}",
                self.service.name,
                detail(&status)
            ));
        }
    }

    async fn ask(&self, path: PathAndQuery, deadline: Duration) -> Result<(), Status> {
        let mut grpc = Grpc::new(self.mesh.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Service, EmptyResponse>::default();
        let request = Request::new(self.service.clone());
        match timeout(deadline, grpc.unary(request, path, codec)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer from {} within {} seconds",
                self.mesh.address(),
                deadline.as_secs()
            ))),
        }
    }
}

/// A name for this process that no other has. Nothing secret hangs on it.
fn unique() -> String {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:x}-{:x}", std::process::id(), hasher.finish())
}

/// The address under which the platform reaches a service that listens on `address`: of a service on
/// all interfaces, the one that leads to the platform.
async fn advertised(address: SocketAddr, platform: &str) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let ip = outgoing(platform).await;
    SocketAddr::new(
        ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        address.port(),
    )
}

/// This machine's address on the way to `platform`. Connecting a datagram socket sends nothing.
async fn outgoing(platform: &str) -> Option<IpAddr> {
    let target = tokio::net::lookup_host(platform).await.ok()?.next()?;
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_on_all_interfaces_gives_an_address_that_can_be_dialled() {
        let all: SocketAddr = "0.0.0.0:4000".parse().unwrap();
        let own: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(advertised(all, "127.0.0.1:8081").await, own);
        assert_eq!(advertised(all, "no such place").await, own);
        assert_eq!(advertised(own, "127.0.0.1:8081").await, own);
    }

    #[test]
    fn two_nodes_never_share_a_name() {
        assert_ne!(unique(), unique());
    }
}
