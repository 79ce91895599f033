//! TCP over IPv4 and IPv6, with names looked up by the operating system.

use std::{io, net::SocketAddr, time::Duration};

use dht_core::{Address, DnsKind, Host};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::{Accepted, Acceptor, BoxFuture, Medium, Socket};
use crate::limits;

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Sockets that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Time between unanswered questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Dials and listens on `/ip4|ip6/…/tcp/…`, and listens on the addresses of `/dns/…` and `/dns4/…`. The transport looks
/// up the names that it dials.
///
/// TCP_NODELAY and keep-alive probes are on. On Linux, a peer that confirms nothing for
/// [`limits::WRITE_STALL_TIMEOUT`] is given up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Medium for Tcp {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let Some(Host::Ip(ip, port)) = address.host() else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let stream = TcpStream::connect((ip, port)).await?;
            prepare(&stream)?;
            Ok(Socket::tcp(stream))
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let targets = resolve(address).await?;
            let listener = bind(&targets)?;
            let local = listener.local_addr()?;
            Ok(Box::new(Listener {
                listener,
                local: to_address(local),
            }) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        matches!(address.host(), Some(Host::Ip(..)))
    }
}

struct Listener {
    listener: TcpListener,
    local: Address,
}

impl Acceptor for Listener {
    fn local_address(&self) -> Address {
        self.local.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let (stream, remote) = loop {
                let (stream, remote) = self.listener.accept().await?;
                // Fails, on some systems, for a socket that is gone again: no reason to accept more slowly.
                if prepare(&stream).is_ok() {
                    break (stream, remote);
                }
            };
            Ok(Accepted {
                socket: Socket::tcp(stream),
                remote: to_address(remote),
                source: remote.ip(),
            })
        })
    }
}

/// Listens on the first target that can be bound. A socket of `/ip6/::` takes no IPv4, so that it stands beside one of
/// `/ip4/0.0.0.0` with the same port.
fn bind(targets: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for target in targets {
        let bound = || {
            let socket = RawSocket::new(
                Domain::for_address(*target),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            if target.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // Elsewhere it would let another process take the port.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*target).into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        match bound() {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Frames are complete when they are written, so waiting for more only adds delay. Probes find out about
/// peers that vanished while nothing was to be sent: neither Noise nor yamux would.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&probes)?;
    // Probes are only sent while nothing is under way; what is under way would be repeated for a quarter of an hour.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(limits::WRITE_STALL_TIMEOUT))?;
    Ok(())
}

fn to_address(socket: SocketAddr) -> Address {
    Address::tcp(socket.ip().to_canonical(), socket.port())
}

/// `dns4` names give IPv4 addresses only, `dns` names any; the order is the resolver's.
async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match address.host() {
        Some(Host::Ip(ip, port)) => Ok(vec![SocketAddr::new(ip, port)]),
        Some(Host::Dns {
            kind: kind @ (DnsKind::Dns | DnsKind::Dns4),
            name,
            port,
        }) => {
            // One kind for every failure of a lookup, which connecting never has.
            let found = lookup_host((name.as_str(), port))
                .await
                .map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
            Ok(found
                .filter(|found| kind == DnsKind::Dns || found.is_ipv4())
                .collect())
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `listen = ["/ip4/0.0.0.0/tcp/18189", "/ip6/::/tcp/18189"]`.
    #[tokio::test]
    async fn both_families_share_a_port() {
        let v4 = bind(&[SocketAddr::from(([0, 0, 0, 0], 0))]).unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = match bind(&[SocketAddr::from(([0_u16; 8], port))]) {
            // A machine without IPv6.
            Err(error) if matches!(error.raw_os_error(), Some(97 | 99)) => return,
            bound => bound.unwrap(),
        };
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let (connected, accepted) = tokio::join!(TcpStream::connect(to), v4.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        assert_eq!(v6.local_addr().unwrap().port(), port);
    }

    /// A peer that vanished is detected with and without data waiting to be sent.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn vanished_peer_is_detected_when_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let (stream, _accepted) = tokio::join!(TcpStream::connect(target), listener.accept());
        let stream = stream.unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(limits::WRITE_STALL_TIMEOUT)
        );
    }
}
