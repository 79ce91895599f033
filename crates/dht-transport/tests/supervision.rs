//! Panics in tasks of the transport cost what the task was about, and are counted.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use dht_core::{Address, Priority};
use dht_transport::{Accepted, Acceptor, BoxFuture, ConnectionEvent, Medium, Memory, Socket};
use support::{Node, Setup, body, soon};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A memory medium with parts that panic.
#[derive(Clone, Default)]
struct Fragile {
    memory: Memory,
    /// Number of times that a listener panics before it accepts.
    accept_panics: Arc<AtomicUsize>,
    /// Reads of sockets that were dialled panic.
    read_panics: Arc<AtomicBool>,
}

struct FragileAcceptor(Box<dyn Acceptor>, Arc<AtomicUsize>);

struct FragileSocket(Socket, Arc<AtomicBool>);

impl Medium for Fragile {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async {
            let socket = self.memory.dial(address).await?;
            Ok(Socket::other(FragileSocket(
                socket,
                Arc::clone(&self.read_panics),
            )))
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async {
            let inner = self.memory.listen(address).await?;
            let acceptor = FragileAcceptor(inner, Arc::clone(&self.accept_panics));
            Ok(Box::new(acceptor) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        self.memory.serves(address)
    }
}

impl Acceptor for FragileAcceptor {
    fn local_address(&self) -> Address {
        self.0.local_address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        let left = self.1.load(Ordering::Relaxed);
        self.1.store(left.saturating_sub(1), Ordering::Relaxed);
        assert_eq!(left, 0, "a test");
        self.0.accept()
    }
}

impl AsyncRead for FragileSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(!self.1.load(Ordering::Relaxed), "a test");
        Pin::new(&mut self.get_mut().0).poll_read(cx, out)
    }
}

impl AsyncWrite for FragileSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn listener_accepts_after_panics() {
    let medium = Fragile::default();
    medium.accept_panics.store(5, Ordering::Relaxed);
    let setup = Setup::memory(1, &Memory::default());
    let node = setup.start_with(medium.clone()).await;
    let other = Node::memory(2, &medium.memory).await;
    let to = [node.address.clone()];
    soon(other.transport.dial(node.key(), &to)).await.unwrap();
    assert_eq!(node.transport.stats().panics, 5);
}

#[tokio::test(start_paused = true)]
async fn listener_that_only_panics_is_reported() {
    let medium = Fragile::default();
    medium.accept_panics.store(usize::MAX, Ordering::Relaxed);
    let setup = Setup::memory(1, &Memory::default());
    let mut node = setup.start_with(medium).await;
    let event = node.event().await;
    assert!(
        matches!(&event, ConnectionEvent::ListenerFailed { address } if *address == node.address),
        "{event:?}"
    );
    node.settles_to(0).await;
}

/// The connection whose task panics ends, as its owner is told; others stay.
#[tokio::test(start_paused = true)]
async fn panicking_connection_ends_alone() {
    let medium = Fragile::default();
    let memory = medium.memory.clone();
    let setup = Setup::memory(1, &Memory::default());
    let mut node = setup.start_with(medium.clone()).await;
    let (fragile, mut sound) = (
        Node::memory(2, &memory).await,
        Node::memory(3, &memory).await,
    );
    let to = [fragile.address.clone()];
    soon(node.transport.dial(fragile.key(), &to)).await.unwrap();
    node.connected().await;
    let to = [node.address.clone()];
    soon(sound.transport.dial(node.key(), &to)).await.unwrap();
    node.connected().await;

    medium.read_panics.store(true, Ordering::Relaxed);
    let _lost = fragile
        .transport
        .send(&node.id(), body(1, 100), Priority::Direct)
        .unwrap();
    let event = node.event().await;
    assert!(
        matches!(event, ConnectionEvent::Disconnected { node_id, .. } if node_id == fragile.id()),
        "{event:?}"
    );
    assert_eq!(node.transport.stats().panics, 1);
    assert_eq!(node.transport.connections().len(), 1);
    let sent = node
        .transport
        .send(&sound.id(), body(2, 100), Priority::Direct)
        .unwrap();
    assert_eq!(sound.message().await.frame, body(2, 100));
    assert_eq!(soon(sent).await, Ok(()));
}
