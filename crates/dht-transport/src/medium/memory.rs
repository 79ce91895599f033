//! An in-process medium: ports in a table, pipes of bytes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::Ipv4Addr,
    sync::Arc,
};

use dht_core::{Address, Host};
use parking_lot::Mutex;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use super::{Accepted, Acceptor, BoxFuture, Medium, Socket};
use crate::channels;

/// Bytes each direction of a memory connection holds before the writer waits, like a socket buffer.
const PIPE_BYTES: usize = 256 * 1024;

/// A table of listening ports: `/memory/n` addresses of one instance reach each other. Clones share it.
///
/// ```
/// use dht_transport::{Medium, Memory};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let memory = Memory::default();
/// let mut listener = memory.listen(&"/memory/0".parse().unwrap()).await.unwrap();
/// let address = listener.local_address();
/// let (dialled, accepted) = tokio::join!(memory.dial(&address), listener.accept());
/// assert!(dialled.is_ok() && accepted.is_ok());
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory {
    ports: Arc<Mutex<BTreeMap<u64, mpsc::Sender<DuplexStream>>>>,
}

impl Medium for Memory {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let port = port_of(address)?;
            let listener = self.ports.lock().get(&port).cloned();
            let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = duplex(PIPE_BYTES);
            listener
                .try_send(theirs)
                .map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Socket::duplex(ours))
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let wanted = port_of(address)?;
            let (sender, incoming) = channels::BACKLOG.open();
            let mut ports = self.ports.lock();
            let port = if wanted == 0 {
                (1..=u64::from(u16::MAX))
                    .find(|port| !ports.contains_key(port))
                    .ok_or(io::ErrorKind::AddrNotAvailable)?
            } else {
                wanted
            };
            match ports.entry(port) {
                Entry::Occupied(_) => return Err(io::ErrorKind::AddrInUse.into()),
                Entry::Vacant(entry) => entry.insert(sender),
            };
            let memory = self.clone();
            Ok(Box::new(Listener {
                memory,
                port,
                incoming,
            }) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        port_of(address).is_ok()
    }
}

struct Listener {
    memory: Memory,
    port: u64,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl Acceptor for Listener {
    fn local_address(&self) -> Address {
        Address::memory(self.port)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let stream = self
                .incoming
                .recv()
                .await
                .ok_or(io::ErrorKind::NotConnected)?;
            Ok(Accepted {
                socket: Socket::duplex(stream),
                remote: Address::memory(0),
                source: Ipv4Addr::LOCALHOST.into(),
            })
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.memory.ports.lock().remove(&self.port);
    }
}

fn port_of(address: &Address) -> io::Result<u64> {
    match address.host() {
        Some(Host::Memory(port)) => Ok(port),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
