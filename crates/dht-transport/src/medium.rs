//! The trait for carriers of bytes between nodes: TCP, memory, or one that a simulator brings.

use std::{future::Future, io, net::IpAddr, pin::Pin, sync::Arc};

use dht_core::Address;

#[cfg(feature = "memory")]
mod memory;
mod socket;
#[cfg(feature = "socks")]
mod socks;
#[cfg(feature = "tcp")]
mod tcp;

#[cfg(feature = "memory")]
pub use memory::Memory;
pub(crate) use socket::WireCounters;
pub use socket::{Socket, Stream};
#[cfg(feature = "socks")]
pub(crate) use socks::ProxyFailure;
#[cfg(feature = "socks")]
pub use socks::{ProxyFor, Socks};
#[cfg(feature = "tcp")]
pub use tcp::Tcp;

/// A boxed future, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Dials and listens; knows nothing of what runs above.
///
/// Implementations refuse an address they do not serve with [`io::ErrorKind::Unsupported`].
pub trait Medium: Send + Sync + 'static {
    /// Connects to `address`. The caller limits the time.
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>>;

    /// Binds to `address`; port 0 means any free one.
    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>>;

    /// Whether an address is of the kind this medium dials.
    fn serves(&self, address: &Address) -> bool;
}

impl<M: Medium + ?Sized> Medium for Arc<M> {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        (**self).dial(address)
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        (**self).listen(address)
    }

    fn serves(&self, address: &Address) -> bool {
        (**self).serves(address)
    }
}

/// A listener that is bound to an address.
pub trait Acceptor: Send + Sync + 'static {
    /// The address with the real port.
    fn local_address(&self) -> Address;

    /// Waits for the next socket.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;
}

/// A socket that a peer opened to this node.
#[derive(Debug)]
pub struct Accepted {
    /// The socket that was accepted.
    pub socket: Socket,
    /// Where it seems to come from; not an address to dial.
    pub remote: Address,
    /// IP address that the socket comes from, for limits; of a medium without any, the loopback address.
    pub source: IpAddr,
}

/// Several media behind one another: the first that serves an address takes it.
#[derive(Clone)]
pub(crate) struct Media(pub(crate) Vec<Arc<dyn Medium>>);

impl Media {
    fn of(&self, address: &Address) -> io::Result<&Arc<dyn Medium>> {
        self.0
            .iter()
            .find(|medium| medium.serves(address))
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn serves(&self, address: &Address) -> bool {
        self.of(address).is_ok()
    }

    pub(crate) async fn dial(&self, address: &Address) -> io::Result<Socket> {
        self.of(address)?.dial(address).await
    }

    /// Listens with the first medium that does: more addresses are listened on than dialled, such as names.
    pub(crate) async fn listen(&self, address: &Address) -> io::Result<Box<dyn Acceptor>> {
        for medium in &self.0 {
            match medium.listen(address).await {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                outcome => return outcome,
            }
        }
        Err(io::ErrorKind::Unsupported.into())
    }
}
