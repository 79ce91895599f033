//! The local networks of this machine: multicast DNS on UDP port 5353 (RFC 6762).

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use dht_stack::off_thread;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// Port of multicast DNS.
pub(super) const PORT: u16 = 5353;
/// Group of multicast DNS.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// An address of this machine, and the range of addresses that are on the same link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interface {
    pub(super) ip: Ipv4Addr,
    /// Leading bits that the addresses of the link have in common.
    pub(super) prefix: u8,
}

/// A carrier of messages to the nodes of local networks, and theirs to this one.
pub(super) trait Link: Send {
    /// The interfaces on which messages are sent and received from now on.
    fn interfaces(&mut self) -> impl Future<Output = io::Result<BTreeSet<Interface>>> + Send;

    /// Waits for a message; its length and where it came from. One that is longer than the buffer fills it.
    ///
    /// # Cancel safety
    /// No message is lost when the future is dropped.
    fn receive(
        &self,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddrV4)>> + Send;

    /// Sends a message to all nodes on the link of the interface with this address.
    fn send(
        &self,
        interface: Ipv4Addr,
        message: &[u8],
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// Multicast DNS over a socket that it shares with the other responders of this machine.
///
/// Over IPv4 only: of IPv6, messages come from link-local addresses, which no node can name to another.
#[derive(Debug)]
pub(super) struct Multicast {
    socket: UdpSocket,
    /// Interfaces on which it has joined the group.
    joined: BTreeSet<Ipv4Addr>,
}

impl Interface {
    /// Whether an address is on its link.
    pub(super) fn contains(&self, ip: Ipv4Addr) -> bool {
        let different = u32::from(self.ip) ^ u32::from(ip);
        different.leading_zeros() >= u32::from(self.prefix)
    }
}

impl Multicast {
    pub(super) fn open() -> io::Result<Self> {
        // Bound to the group, a socket takes no messages from others that are meant for this machine alone. Only Linux also
        // sends from such a socket.
        let to_group = cfg!(any(target_os = "linux", target_os = "android"));
        let ip = if to_group {
            GROUP
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
        if !to_group {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        // Section 11: so a receiver sees that no router passed it on.
        socket.set_multicast_ttl_v4(255)?;
        // To other nodes of this machine as well.
        socket.set_multicast_loop_v4(true)?;
        socket.bind(&SocketAddrV4::new(ip, PORT).into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            joined: BTreeSet::new(),
        })
    }
}

impl Link for Multicast {
    async fn interfaces(&mut self) -> io::Result<BTreeSet<Interface>> {
        let read = off_thread(true, if_addrs::get_if_addrs).await;
        let read = read.unwrap_or_else(|| Err(io::ErrorKind::Other.into()))?;
        let running = read
            .iter()
            .filter(|it| it.is_oper_up() && !it.is_loopback() && !it.is_p2p());
        let interfaces: BTreeSet<_> = running
            .filter_map(|interface| match &interface.addr {
                if_addrs::IfAddr::V4(address) => Some(Interface {
                    ip: address.ip,
                    prefix: address.prefixlen,
                }),
                if_addrs::IfAddr::V6(_) => None,
            })
            .collect();
        self.joined
            .retain(|ip| interfaces.iter().any(|it| it.ip == *ip));
        for Interface { ip, .. } in &interfaces {
            if !self.joined.contains(ip) {
                match self.socket.join_multicast_v4(GROUP, *ip) {
                    // The address was gone for a while, or another of the same interface has joined.
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        tracing::debug!(%ip, %error, "no multicast on an interface");
                    }
                    _ => {
                        self.joined.insert(*ip);
                    }
                }
            }
        }
        Ok(interfaces)
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        loop {
            if let (length, SocketAddr::V4(from)) = self.socket.recv_from(buffer).await? {
                return Ok((length, from));
            }
        }
    }

    async fn send(&self, interface: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        SockRef::from(&self.socket).set_multicast_if_v4(&interface)?;
        let sent = self.socket.send_to(message, (GROUP, PORT)).await;
        sent.map(|_bytes| ())
    }
}
