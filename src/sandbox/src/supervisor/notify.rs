//! Words to the service manager, where there is one that listens (`$NOTIFY_SOCKET`).

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram},
};

/// The socket's variable; the node does not inherit it.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Says `state`, such as `READY=1`.
pub(super) fn say(state: &str) {
    let Ok(place) = std::env::var(VARIABLE) else {
        return;
    };
    if let Err(error) = send(&place, state) {
        tracing::warn!(%error, place, "Cannot tell the service manager about this server.");
    }
}

fn send(place: &str, state: &str) -> std::io::Result<()> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_hear_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("micro-notify-{}", std::process::id());
        let place = format!("@{name}");
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, place) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap()),
            (
                UnixDatagram::bind_addr(&abstract_name).unwrap(),
                place.as_str(),
            ),
        ] {
            send(place, "READY=1").unwrap();
            let mut heard = [0; 32];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
        }
    }
}
