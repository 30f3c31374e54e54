//! The address that a node says it has → the address that we dial.
//!
//! Micro's Go library listens on all interfaces and advertises the first private address of the
//! machine (contract §2.6). On our own machine that is better dialled over loopback: it stays when
//! the network changes, and a firewall does not matter.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::{net, time};

const LOOK_UP: Duration = Duration::from_secs(2);
const PROBE: Duration = Duration::from_millis(500);

/// The address to dial for `text` (`host:port`), or why there is none. `port` is for clients that
/// send it apart.
pub(crate) async fn dialable(text: &str, port: i64) -> Result<SocketAddr, String> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let given = parse(text, port).await?;
    let address = SocketAddr::new(given.ip().to_canonical(), given.port());
    if address.port() == 0 {
        return Err(format!("{text} has no port"));
    }
    let ip = address.ip();
    if is_unreachable(ip) {
        return Err(format!("{text} is no address of a service"));
    }
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
    if ip.is_unspecified() || (!ip.is_loopback() && is_ours(ip) && answers(loopback).await) {
        return Ok(loopback);
    }
    Ok(address)
}

async fn parse(text: &str, port: Option<u16>) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let (Ok(ip), Some(port)) = (bare.parse::<IpAddr>(), port) {
        return Ok(SocketAddr::new(ip, port));
    }
    let unreadable = || format!("{text:?} is no address; write host:port");
    let (host, port) = match (text.rsplit_once(':'), port) {
        (Some((host, port)), _) => (host, port.parse().map_err(|_| unreadable())?),
        (None, Some(port)) => (text, port),
        (None, None) => return Err(unreadable()),
    };
    match host {
        "" => return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        "localhost" => return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        _ => {}
    }
    let found = time::timeout(LOOK_UP, net::lookup_host((host, port))).await;
    match found {
        Ok(Ok(mut addresses)) => addresses
            .next()
            .ok_or_else(|| format!("the host {host} has no address")),
        Ok(Err(e)) => Err(format!("cannot find the host {host}: {e}")),
        Err(_) => Err(format!("cannot find the host {host} in time")),
    }
}

/// Addresses that no service listens on, the metadata services of clouds among them.
fn is_unreachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// Whether an interface of this machine has the address: only then can it be bound.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

async fn answers(address: SocketAddr) -> bool {
    matches!(
        time::timeout(PROBE, net::TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wildcards_become_loopback_and_other_machines_stay() {
        for (given, dialled) in [
            ("[::]:4000", "127.0.0.1:4000"),
            ("0.0.0.0:4000", "127.0.0.1:4000"),
            (":4000", "127.0.0.1:4000"),
            ("localhost:4000", "127.0.0.1:4000"),
            ("127.0.0.1:4000", "127.0.0.1:4000"),
            ("[::ffff:127.0.0.1]:4000", "127.0.0.1:4000"),
            ("[::1]:4000", "[::1]:4000"),
            ("203.0.113.7:4000", "203.0.113.7:4000"),
        ] {
            let address = dialable(given, 0).await.map(|a| a.to_string());
            assert_eq!(address.as_deref(), Ok(dialled), "{given}");
        }
        assert_eq!(
            dialable("127.0.0.1", 4000).await.map(|a| a.to_string()),
            Ok("127.0.0.1:4000".into())
        );
    }

    #[tokio::test]
    async fn what_cannot_be_dialled_is_refused() {
        for given in [
            "",
            "nonsense",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:x",
            "169.254.169.254:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[fe80::1]:80",
        ] {
            assert!(dialable(given, 0).await.is_err(), "{given}");
        }
    }

    #[tokio::test]
    async fn an_address_of_this_machine_is_dialled_over_loopback_when_it_answers_there() {
        let Some(ip) = own_address() else { return };
        let everywhere = net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let address = dialable(&format!("{ip}:{port}"), 0).await.unwrap();
        assert_eq!(address, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let there_only = net::TcpListener::bind((ip, 0)).await.unwrap();
        let listening = there_only.local_addr().unwrap();
        assert_eq!(dialable(&listening.to_string(), 0).await, Ok(listening));
    }

    /// An address of this machine that is not loopback, if it has one.
    fn own_address() -> Option<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("203.0.113.1:9").ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
    }
}
