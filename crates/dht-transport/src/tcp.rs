//! TCP over IPv4 and IPv6, with names looked up by the operating system.

use std::{io, net::SocketAddr, time::Duration};

use dht_core::{Address, DnsKind, Host};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use crate::{Accepted, Acceptor, BoxFuture, Medium, Socket, Source};

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between unanswered questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Dials and listens on `/ip4|ip6/…/tcp/…`, dials `/dns/…` and `/dns4/…`.
///
/// TCP_NODELAY and keep-alive probes are on.
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
            let (stream, remote) = self.listener.accept().await?;
            prepare(&stream)?;
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
    SockRef::from(stream).set_tcp_keepalive(&probes)
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
