//! A public network on loopback: real sockets, and addresses that every limit takes for those of strangers.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use dht_core::{Address, Host};
use dht_transport::{Accepted, Acceptor, BoxFuture, Medium, Socket};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// First byte of the addresses of this network: 20.a.b.c is 127.a.b.c. Nothing else is dialled.
const NETWORK: u8 = 20;

/// Second byte of hosts that answer nothing: a dial to them never ends.
const SILENT: u8 = 255;

/// Second byte of hosts that a test only counts dials to: they refuse.
const CLOSED: u8 = 254;

/// Bytes of `SO_SNDBUF` and `SO_RCVBUF` of each socket, so that what a peer can write unread does not depend on the machine. Linux
/// takes twice as many, and no more than twice `net.core.rmem_max` and `wmem_max`, which are 208 KiB by default.
pub const SOCKET_BUFFER: u32 = 128 * 1024;

/// A medium whose sockets come from one address of the network `20.0.0.0/8`.
#[derive(Clone, Debug)]
pub struct Loopback {
    source: Ipv4Addr,
    dials: Arc<Mutex<Dials>>,
    deaf: Arc<AtomicBool>,
}

/// Dials that a [`Loopback`] was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dials {
    /// Dials that neither succeeded nor failed so far.
    pub pending: usize,
    /// The most that were pending at once.
    pub most_pending: usize,
    /// Dials to each IP address.
    pub attempts: BTreeMap<Ipv4Addr, u64>,
    /// Ports that were dialled at each IP address.
    pub ports: BTreeMap<Ipv4Addr, BTreeSet<u16>>,
    /// Look-ups of host names that were begun; none is ever answered.
    pub lookups: u64,
}

/// Counts a dial as pending until dropped.
struct Pending<'a>(&'a Mutex<Dials>);

/// A socket that is read no more once its flag is set.
struct MayBeDeaf(TcpStream, Arc<AtomicBool>);

struct Listener(TcpListener, Address);

/// Address 20.a.b.c.
#[must_use]
pub const fn ip(a: u8, b: u8, c: u8) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK, a, b, c)
}

/// An address of a host that answers nothing.
#[must_use]
pub fn silent(host: u16, port: u16) -> Address {
    let [b, c] = host.to_be_bytes();
    Address::tcp(ip(SILENT, b, c).into(), port)
}

/// An address of a host that refuses every dial.
#[must_use]
pub fn closed(host: u16, port: u16) -> Address {
    let [b, c] = host.to_be_bytes();
    Address::tcp(ip(CLOSED, b, c).into(), port)
}

// === impl Loopback ===

impl Loopback {
    /// Dials from `source`, which is one of [`ip`].
    #[must_use]
    pub fn new(source: Ipv4Addr) -> Self {
        Self {
            source,
            dials: Arc::default(),
            deaf: Arc::default(),
        }
    }

    /// From now on nothing is read from the sockets that it dialled.
    pub fn turn_deaf(&self) {
        self.deaf.store(true, Relaxed);
    }

    /// Dials so far.
    #[must_use]
    pub fn dials(&self) -> Dials {
        self.dials.lock().clone()
    }

    /// A name server that never answers.
    ///
    /// # Errors
    /// None before the process ends.
    pub fn look_up(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        self.dials.lock().lookups += 1;
        loop {
            std::thread::park();
        }
    }

    fn count(&self, address: &Address) -> Pending<'_> {
        let mut dials = self.dials.lock();
        if let Some(Host::Ip(IpAddr::V4(ip), port)) = address.host() {
            *dials.attempts.entry(ip).or_default() += 1;
            dials.ports.entry(ip).or_default().insert(port);
        }
        dials.pending += 1;
        dials.most_pending = dials.most_pending.max(dials.pending);
        Pending(&self.dials)
    }
}

impl Medium for Loopback {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let _pending = self.count(address);
            let Some(Host::Ip(IpAddr::V4(ip), port)) = address.host() else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            match ip.octets() {
                [NETWORK, SILENT, ..] => return pending().await,
                [NETWORK, CLOSED, ..] => return Err(io::ErrorKind::ConnectionRefused.into()),
                _ => {}
            }
            let socket = buffered()?;
            socket.bind(SocketAddrV4::new(on_this_machine(self.source)?, 0).into())?;
            let to = SocketAddrV4::new(on_this_machine(ip)?, port);
            let stream = socket.connect(to.into()).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::other(MayBeDeaf(stream, Arc::clone(&self.deaf))))
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let Some(Host::Ip(IpAddr::V4(ip), port)) = address.host() else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let socket = buffered()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddrV4::new(on_this_machine(ip)?, port).into())?;
            let listener = socket.listen(1_024)?;
            let local = on_the_network(listener.local_addr()?);
            Ok(Box::new(Listener(listener, local)) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        matches!(address.host(), Some(Host::Ip(IpAddr::V4(_), _)))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.lock().pending -= 1;
    }
}

impl AsyncRead for MayBeDeaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1.load(Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl AsyncWrite for MayBeDeaf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Acceptor for Listener {
    fn local_address(&self) -> Address {
        self.1.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let (stream, remote): (TcpStream, SocketAddr) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            let remote = on_the_network(remote);
            let source = match remote.host() {
                Some(Host::Ip(ip, _)) => ip,
                _ => Ipv4Addr::LOCALHOST.into(),
            };
            Ok(Accepted {
                socket: Socket::tcp(stream),
                remote,
                source,
            })
        })
    }
}

/// A socket with the buffers of this network, which those that it accepts inherit.
fn buffered() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    Ok(socket)
}

fn on_this_machine(ip: Ipv4Addr) -> io::Result<Ipv4Addr> {
    match ip.octets() {
        [NETWORK, a, b, c] => Ok(Ipv4Addr::new(127, a, b, c)),
        _ => Err(io::ErrorKind::NetworkUnreachable.into()),
    }
}

fn on_the_network(socket: SocketAddr) -> Address {
    let ip = match socket.ip() {
        IpAddr::V4(v4) => {
            let [_, a, b, c] = v4.octets();
            ip(a, b, c).into()
        }
        other => other,
    };
    Address::tcp(ip, socket.port())
}
