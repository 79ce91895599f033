//! Two and more transports: dialling, tie-break, back-pressure, priorities, shutdown.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "behaviour/contests.rs"]
mod contests;
#[path = "behaviour/dialling.rs"]
mod dialling;
#[path = "behaviour/messages.rs"]
mod messages;
mod support;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Address, DeliveryError, DialFailure, Network, NodeIdentity, Priority, test_util::NOW,
};
use dht_peers::Direction;
use dht_transport::{
    Accepted, Acceptor, BoxFuture, ConnectionEvent, DialError, EnqueueError, InboundStream, Medium,
    Memory, Socket, StreamError, UpgradeError, noise::NoiseStream,
};
use support::{Node, Setup, body, identity, peer, soon};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex},
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Its acceptors fail some times, as in a process without free file descriptors.
struct Exhausted(Memory, usize);

struct Starved(Box<dyn Acceptor>, usize);

impl Medium for Exhausted {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        self.0.dial(address)
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async {
            let acceptor = self.0.listen(address).await?;
            Ok(Box::new(Starved(acceptor, self.1)) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        self.0.serves(address)
    }
}

impl Acceptor for Starved {
    fn local_address(&self) -> Address {
        self.0.local_address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            if self.1 > 0 {
                self.1 -= 1;
                return Err(io::Error::from_raw_os_error(24));
            }
            self.0.accept().await
        })
    }
}

/// The listener pauses between failures, and accepts again once descriptors are free.
#[tokio::test(start_paused = true)]
async fn exhausted_descriptors_end_no_listener() {
    let memory = Memory::default();
    let start = Instant::now();
    let b = Setup::memory(2, &memory).start_with(Exhausted(memory.clone(), 5));
    let (a, b) = (Node::memory(1, &memory).await, b.await);
    a.knows(&b);
    soon(a.transport.dial_known(&b.id())).await.unwrap();
    let waited = start.elapsed();
    let expected = Duration::from_millis(500)..Duration::from_secs(2);
    assert!(expected.contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn round_trips_need_an_answer() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    a.knows(&b);
    let connection = soon(a.transport.dial_known(&b.id())).await.unwrap();
    assert!(connection.round_trip().await.is_ok());
    assert!(a.offences(b.key()).is_empty() && b.offences(a.key()).is_empty());
    b.transport.disconnect(&a.id());
    soon(connection.closed()).await;
    assert_eq!(connection.round_trip().await, Err(StreamError::Closed));
}

// === other protocols ===

#[tokio::test(start_paused = true)]
async fn other_protocols_are_served_and_refused() {
    let memory = Memory::default();
    let protocol = Bytes::from_static(b"t/test/1");
    let (handler, mut streams) = mpsc::channel::<InboundStream>(1);
    let mut b = Setup::memory(2, &memory);
    b.serve = Some((protocol.clone(), handler));
    let b = b.start().await;
    let a = Node::memory(1, &memory).await;
    assert_eq!(
        a.transport.open(&b.id(), &protocol).await.err(),
        Some(StreamError::NotConnected)
    );
    a.transport
        .dial(b.key(), std::slice::from_ref(&b.address))
        .await
        .unwrap();

    let mut near = a.transport.open(&b.id(), &protocol).await.unwrap();
    near.write_all(b"question").await.unwrap();
    let mut far = soon(streams.recv()).await.unwrap();
    assert_eq!((far.peer.node_id, far.protocol), (a.id(), protocol.clone()));
    let mut got = [0; 8];
    far.stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"question");
    far.stream.write_all(b"answer").await.unwrap();
    far.stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    near.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"answer");

    // b does not know the protocol of a: negotiated, refused.
    let error = b.transport.open(&a.id(), &protocol).await.unwrap_err();
    assert_eq!(error, StreamError::NotSupported);

    // A busy owner sheds: the second stream is reset.
    let mut one = a.transport.open(&b.id(), &protocol).await.unwrap();
    one.write_all(b"1").await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let mut two = a.transport.open(&b.id(), &protocol).await.unwrap();
    two.write_all(b"2").await.unwrap();
    assert_eq!(soon(two.read(&mut [0])).await.unwrap_or(0), 0);
    drop(one);
}

#[tokio::test(start_paused = true)]
async fn a_liveness_session_echoes_if_allowed() {
    let memory = Memory::default();
    let closed = Node::memory(1, &memory).await;
    let mut setup = Setup::memory(2, &memory);
    setup.config.liveness_sessions = 1;
    let open = setup.start().await;
    let mut socket = peer::connect(&memory, &closed.address).await;
    socket.write_all(b"\xa7pingpong\n").await.unwrap();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
    let mut socket = peer::connect(&memory, &open.address).await;
    socket.write_all(b"\xa7pingpong\n").await.unwrap();
    let mut got = [0; 9];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"pingpong\n");
    let mut second = peer::connect(&memory, &open.address).await;
    second.write_all(b"\xa6pingpong\n").await.unwrap();
    assert_eq!(
        second.read(&mut [0]).await.unwrap(),
        0,
        "one session at a time"
    );
    drop(socket);
    sleep(Duration::from_millis(10)).await;
    let mut of_version_1 = peer::connect(&memory, &open.address).await;
    of_version_1.write_all(b"\xa6pingpong\n").await.unwrap();
    of_version_1.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"pingpong\n");
}

// === the end ===

#[tokio::test(start_paused = true)]
async fn shutdown_flushes_and_leaves_no_task() {
    let memory = Memory::default();
    let (a, mut b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    a.knows(&b);
    let deliveries: Vec<_> = (0..100)
        .map(|i| {
            a.transport
                .send(&b.id(), body(i, 5_000), Priority::Direct)
                .unwrap()
        })
        .collect();
    tokio::join!(a.transport.shutdown(Duration::from_secs(10)), async {
        for i in 0..100 {
            assert_eq!(b.message().await.frame[0], i);
        }
    });
    for delivery in deliveries {
        assert_eq!(soon(delivery).await, Ok(()));
    }
    let stats = a.transport.stats();
    assert_eq!((stats.tasks, stats.connections, stats.queues), (0, 0, 0));
    assert_eq!(
        a.transport
            .send(&b.id(), body(0, 1), Priority::Control)
            .err(),
        Some(EnqueueError::ShutDown)
    );
    let gone = a
        .transport
        .dial(b.key(), std::slice::from_ref(&b.address))
        .await;
    assert_eq!(gone.unwrap_err(), DialError::Cancelled);
    assert!(memory.dial(&a.address).await.is_err(), "nobody listens");
    b.settles_to(1).await;
}

/// The clock is paused: a shutdown that polls would take up to one poll interval.
#[tokio::test(start_paused = true)]
async fn shutdown_ends_with_last_message() {
    let memory = Memory::default();
    let (a, mut b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    a.knows(&b);
    soon(a.transport.dial_known(&b.id())).await.unwrap();
    let sent = a.transport.send(&b.id(), body(1, 5_000), Priority::Direct);
    let start = Instant::now();
    a.transport.shutdown(Duration::from_secs(10)).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(soon(sent.unwrap()).await, Ok(()));
    assert_eq!(b.message().await.frame[0], 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_meets_deadline_without_readers() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let mut setup = Setup::memory(2, &memory);
    setup.config.inbound_channel = 1;
    let b = setup.start().await;
    a.knows(&b);
    let delivery = a
        .transport
        .send(&b.id(), body(0, 8_000_000), Priority::Direct)
        .unwrap();
    let more: Vec<_> = (0..5)
        .map(|_| {
            a.transport
                .send(&b.id(), body(0, 8_000_000), Priority::Direct)
                .unwrap()
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    a.transport.shutdown(Duration::from_secs(4)).await;
    assert!(
        start.elapsed() <= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(a.transport.stats().queued_bytes, 0);
    for delivery in std::iter::once(delivery).chain(more) {
        let _resolved = soon(delivery).await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_stops_everything() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    a.transport
        .dial(b.key(), std::slice::from_ref(&b.address))
        .await
        .unwrap();
    drop(a);
    b.settles_to(1).await;
    assert_eq!(b.transport.connections().len(), 0);
}
