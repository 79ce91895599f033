//! TCP over IPv4 and IPv6, with names looked up by the operating system.

use std::{io, net::SocketAddr, time::Duration};

use dht_core::{Address, DnsKind, Host};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use crate::{Accepted, Acceptor, BoxFuture, Medium, Socket, Source, limits::WRITE_STALL_TIMEOUT};

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between unanswered questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Dials and listens on `/ip4|ip6/…/tcp/…`, dials `/dns/…` and `/dns4/…`.
///
/// TCP_NODELAY and keep-alive probes are on. On Linux, a peer that confirms nothing for
/// [`WRITE_STALL_TIMEOUT`] is given up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Medium for Tcp {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let mut last = io::ErrorKind::AddrNotAvailable.into();
            for target in resolve(address).await? {
                match TcpStream::connect(target).await {
                    Ok(stream) => {
                        prepare(&stream)?;
                        return Ok(Socket::tcp(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let targets = resolve(address).await?;
            let listener = TcpListener::bind(targets.as_slice()).await?;
            let local = listener.local_addr()?;
            Ok(Box::new(Listener {
                listener,
                local: to_address(local),
            }) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        match address.host() {
            Some(Host::Ip(..)) => true,
            Some(Host::Dns { kind, .. }) => matches!(kind, DnsKind::Dns | DnsKind::Dns4),
            _ => false,
        }
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
                source: Source::from_ip(remote.ip()),
            })
        })
    }
}

/// Frames are complete when they are written, so waiting for more only adds delay. Probes find out about
/// peers that vanished while nothing was to be sent: neither Noise nor yamux would.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&probes)?;
    // Probes are only sent while nothing is under way; what is under way would be repeated for a quarter of an hour.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(WRITE_STALL_TIMEOUT))?;
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
            let found = lookup_host((name.as_str(), port)).await?;
            Ok(found
                .filter(|found| kind == DnsKind::Dns || found.is_ipv4())
                .collect())
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanished_is_found_out_about_whether_or_not_there_is_something_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let (stream, _accepted) = tokio::join!(TcpStream::connect(target), listener.accept());
        let stream = stream.unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(WRITE_STALL_TIMEOUT)
        );
    }
}
