//! The listening sockets. They belong to the supervisor, so that no connection is refused while a node
//! restarts.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use micro_core::{Settings, settings::Server};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use crate::error::Error;

/// How long the node of a server that was killed may take to let go of its doors.
const LEAVING: Duration = Duration::from_millis(500);

/// One door and its sockets, all on the same address.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) name: &'static str,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Opens all doors, and puts the ports that were chosen into the settings.
pub(super) fn open(settings: &mut Settings) -> Result<Vec<Door>, Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let server = &mut settings.server;
    addresses(server)
        .into_iter()
        .map(|(name, address)| {
            // The operator's door is asked rarely, and by a runtime of one thread.
            let count = if name == "admin" { 1 } else { cores };
            let (sockets, actual) =
                open_door(*address, count).map_err(|source| error(name, *address, source))?;
            *address = actual;
            Ok(Door { name, sockets })
        })
        .collect()
}

fn addresses(server: &mut Server) -> [(&'static str, &mut SocketAddr); 6] {
    [
        ("gateway", &mut server.gateway_address),
        ("proxy", &mut server.proxy_address),
        ("mesh", &mut server.mesh_address),
        ("broker", &mut server.broker_address),
        ("registry", &mut server.registry_address),
        ("admin", &mut server.admin_address),
    ]
}

fn error(door: &'static str, address: SocketAddr, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::AddrInUse {
        Error::DoorTaken { door, address }
    } else {
        Error::Door {
            door,
            address,
            source,
        }
    }
}

fn open_door(address: SocketAddr, count: usize) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    // Sockets that share a port do not notice another server that shares it too. One that does not
    // share notices.
    let until = Instant::now() + LEAVING;
    while let Err(error) = bound(address, false) {
        if error.kind() != io::ErrorKind::AddrInUse || Instant::now() >= until {
            return Err(error);
        }
        std::thread::sleep(LEAVING / 10);
    }
    let mut actual = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bound(actual, true)?;
        listen(&socket, Backlog::new(1024)?)?;
        let listener = TcpListener::from(socket);
        actual = listener.local_addr()?;
        sockets.push(listener.into());
    }
    Ok((sockets, actual))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    // Connections of an earlier server that are still closing do not count as taken.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if shared {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn all_sockets_of_a_door_share_the_chosen_port() {
        let (sockets, actual) = open_door(any(), 3).unwrap();
        assert_ne!(actual.port(), 0);
        for socket in sockets {
            assert_eq!(TcpListener::from(socket).local_addr().unwrap(), actual);
        }
    }

    #[test]
    fn a_port_shared_by_another_server_is_noticed() {
        let (_held, taken) = open_door(any(), 1).unwrap();
        let source = open_door(taken, 1).unwrap_err();
        let text = error("mesh", taken, source).to_string();
        assert!(
            text.contains("mesh") && text.contains(&taken.to_string()),
            "{text}"
        );
    }
}
