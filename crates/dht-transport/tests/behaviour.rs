//! Two and more transports: dialling, tie-break, back-pressure, priorities, shutdown.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{Address, DeliveryError, Network, NodeIdentity, Priority, test_util::NOW};
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

// === dialling ===

#[tokio::test(start_paused = true)]
async fn concurrent_dials_are_one_connection() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let addresses = [b.address.clone()];
    let dials = (0..10).map(|_| a.transport.dial(b.key(), &addresses));
    let ids: Vec<_> = soon(futures::future::join_all(dials))
        .await
        .into_iter()
        .map(|c| c.unwrap().id())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        (a.transport.stats().outbound, b.transport.stats().inbound),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn dial_tries_and_records_each_address() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let other = Node::memory(3, &memory).await;
    let nobody: Address = Address::memory(999);
    let foreign: Address = "/dns6/example.com/tcp/1".parse().unwrap();
    let addresses = [
        foreign.clone(),
        nobody.clone(),
        other.address.clone(),
        b.address.clone(),
    ];
    let refused = DialError::Connect(io::ErrorKind::ConnectionRefused);
    let wrong_key = DialError::Upgrade(UpgradeError::WrongKey);
    for (address, failure) in [(&nobody, &refused), (&other.address, &wrong_key)] {
        let dialled = soon(a.transport.dial(b.key(), std::slice::from_ref(address))).await;
        assert_eq!(dialled.unwrap_err(), *failure);
    }
    a.knows_at(b.key(), addresses.clone());
    let connection = soon(a.transport.dial(b.key(), &addresses)).await.unwrap();
    assert_eq!(*connection.address(), b.address);
    let record = a.directory.find(&b.id()).unwrap();
    let dials = record.addresses().iter().map(|known| {
        let failure = known.last_failure.as_deref().map(str::to_owned);
        (known.address.clone(), known.last_attempt, failure)
    });
    assert_eq!(
        dials.collect::<Vec<_>>(),
        [
            // An address no medium serves is not tried.
            (foreign, None, None),
            (nobody, Some(NOW), Some(refused.to_string())),
            (
                other.address.clone(),
                Some(NOW),
                Some(wrong_key.to_string())
            ),
            (b.address.clone(), Some(NOW), None),
        ]
    );
    assert!(record.addresses()[3].dial_time.mean().is_some());
}

#[tokio::test(start_paused = true)]
async fn silent_address_delays_no_next() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    // Accepts and says nothing.
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let addresses = [silent.local_address(), b.address.clone()];
    let _holding = tokio::spawn(async move {
        let held = silent.accept().await.unwrap();
        sleep(Duration::from_secs(1000)).await;
        drop(held);
    });
    let start = Instant::now();
    soon(a.transport.dial(b.key(), &addresses)).await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 300);
}

#[tokio::test(start_paused = true)]
async fn hopeless_dial_ends_in_time() {
    let memory = Memory::default();
    let mut a = Node::memory(1, &memory).await;
    let b = identity(2);
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let address = silent.local_address();
    let _holding = tokio::spawn(async move {
        let held = silent.accept().await.unwrap();
        sleep(Duration::from_secs(1000)).await;
        drop(held);
    });
    let start = Instant::now();
    let error = a
        .transport
        .dial(b.public_key(), &[address])
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Upgrade(_)), "{error:?}");
    assert!(start.elapsed() <= Duration::from_secs(15));
    assert!(matches!(
        a.event().await,
        ConnectionEvent::DialFailed { .. }
    ));
    assert_eq!(
        a.transport.dial(b.public_key(), &[]).await.unwrap_err(),
        DialError::NoAddresses
    );
    a.settles_to(1).await;
    assert_eq!(a.transport.stats().dials, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_can_be_cancelled() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let b = identity(2);
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let address = silent.local_address();
    let addresses = [address];
    let (result, _held, ()) = tokio::join!(
        a.transport.dial(b.public_key(), &addresses),
        silent.accept(),
        async {
            sleep(Duration::from_millis(10)).await;
            a.transport.cancel_dial(b.node_id());
        }
    );
    assert_eq!(result.unwrap_err(), DialError::Cancelled);
    a.settles_to(1).await;
}

#[tokio::test(start_paused = true)]
async fn banned_or_own_key_is_undialled() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let addresses = [b.address.clone()];
    a.ban(b.key());
    assert_eq!(
        a.transport.dial(b.key(), &addresses).await.unwrap_err(),
        DialError::Banned
    );
    assert_eq!(
        a.transport.dial(a.key(), &addresses).await.unwrap_err(),
        DialError::OwnKey
    );
    a.directory.unban(*b.key());
    // Our own listener behind somebody else's key.
    let own = [a.address.clone()];
    assert!(a.transport.dial(b.key(), &own).await.is_err());
    assert_eq!(a.transport.connections().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn inbound_connection_answers_waiting_dial() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let addresses = [silent.local_address()];
    let _holding = tokio::spawn(async move {
        let held = silent.accept().await.unwrap();
        sleep(Duration::from_secs(1000)).await;
        drop(held);
    });
    let start = Instant::now();
    let (dialled, _) = tokio::join!(a.transport.dial(b.key(), &addresses), async {
        sleep(Duration::from_secs(1)).await;
        b.transport
            .dial(a.key(), std::slice::from_ref(&a.address))
            .await
            .unwrap()
    });
    assert_eq!(dialled.unwrap().direction(), Direction::Inbound);
    assert_eq!(start.elapsed().as_secs(), 1);
}

/// Two addresses of one listener, a long way off.
struct Distant {
    memory: Memory,
    listener: Address,
}

const ONE_WAY: Duration = Duration::from_millis(400);

fn distant() -> [Address; 2] {
    [5_001, 5_002].map(Address::memory)
}

impl Medium for Distant {
    fn dial<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async {
            let there = self.memory.dial(&self.listener).await?;
            let (near, far) = duplex(64 * 1024);
            let (from_there, to_there) = tokio::io::split(there);
            let (from_here, to_here) = tokio::io::split(far);
            tokio::spawn(carry(from_there, to_here));
            tokio::spawn(carry(from_here, to_there));
            Ok(Socket::duplex(near))
        })
    }

    fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn serves(&self, address: &Address) -> bool {
        distant().contains(address)
    }
}

/// Takes bytes over, each of them [`ONE_WAY`] later.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(1_000);
    let depart = async move {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let _gone = sender
                .send((Instant::now() + ONE_WAY, buffer.split_at(count).0.to_vec()))
                .await;
        }
        sleep(ONE_WAY).await;
    };
    let arrive = async {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _gone = to.shutdown().await;
    };
    tokio::join!(depart, arrive);
}

/// Two addresses of a distant peer make one connection, which lasts.
#[tokio::test(start_paused = true)]
async fn distant_peer_gets_one_lasting_connection() {
    let memory = Memory::default();
    let b = Node::memory(2, &memory).await;
    let medium = Distant {
        memory: memory.clone(),
        listener: b.address.clone(),
    };
    let a = Setup::memory(1, &memory).start_with(medium).await;
    let connection = soon(a.transport.dial(b.key(), &distant())).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(connection.is_open());
    assert_eq!(
        a.transport.connection(&b.id()).map(|held| held.id()),
        Some(connection.id())
    );
    assert_eq!(b.transport.stats().inbound, 1);
}

// === two connections at once ===

#[tokio::test(start_paused = true)]
async fn simultaneous_dials_keep_smaller_ids_dial() {
    for (first, second) in [(1, 2), (2, 1)] {
        let memory = Memory::default();
        let mut a = Node::memory(first, &memory).await;
        let mut b = Node::memory(second, &memory).await;
        let (to_b, to_a) = ([b.address.clone()], [a.address.clone()]);
        let (x, y) = tokio::join!(
            a.transport.dial(b.key(), &to_b),
            b.transport.dial(a.key(), &to_a)
        );
        x.unwrap();
        y.unwrap();
        sleep(Duration::from_secs(5)).await;
        let (small, large) = if a.id() < b.id() { (&a, &b) } else { (&b, &a) };
        let direction =
            |of: &Node, to: &Node| of.transport.connection(&to.id()).unwrap().direction();
        assert_eq!(direction(small, large), Direction::Outbound);
        assert_eq!(direction(large, small), Direction::Inbound);
        // Accept loop and one connection each: the loser is gone.
        a.settles_to(2).await;
        b.settles_to(2).await;

        a.transport.disconnect(&b.id());
        sleep(Duration::from_secs(5)).await;
        for node in [&mut a, &mut b] {
            let mut disconnects = 0;
            while let Ok(event) = node.outlets.events.try_recv() {
                disconnects += usize::from(matches!(event, ConnectionEvent::Disconnected { .. }));
            }
            assert_eq!(disconnects, 1, "exactly one disconnect");
        }
    }
}

/// No message is lost or doubled when both sides dial at once.
#[tokio::test(start_paused = true)]
async fn simultaneous_dials_lose_no_message() {
    let memory = Memory::default();
    let (mut a, mut b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    a.knows(&b);
    b.knows(&a);
    let mut deliveries = Vec::new();
    for i in 0..50 {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let sent = from
                .transport
                .send(&to.id(), body(i, 20_000), Priority::Direct);
            deliveries.push(sent.unwrap());
        }
        sleep(Duration::from_millis(u64::from(i % 2))).await;
    }
    for node in [&mut a, &mut b] {
        let mut counts = [0; 50];
        for _ in 0..50 {
            counts[usize::from(node.message().await.frame[0])] += 1;
        }
        assert_eq!(counts, [1; 50]);
    }
    for delivery in deliveries {
        assert_eq!(soon(delivery).await, Ok(()));
    }
    sleep(Duration::from_secs(5)).await;
    assert!(a.outlets.messages.try_recv().is_err() && b.outlets.messages.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn replaced_connection_is_drained_silently() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let them = identity(9);
    let mut first = peer::identify(&memory, &node.address, &them).await;
    let event = node.event().await;
    assert!(
        matches!(
            event,
            ConnectionEvent::Connected {
                replaced: false,
                ..
            }
        ),
        "{event:?}"
    );
    let mut second = peer::identify(&memory, &node.address, &them).await;
    peer::ping(&mut second).await;
    let event = node.event().await;
    assert!(
        matches!(event, ConnectionEvent::Connected { replaced: true, .. }),
        "{event:?}"
    );

    sleep(Duration::from_secs(1)).await;
    first
        .write_all(&peer::messaging(1, b"\0\0\0\x03old"))
        .await
        .unwrap();
    first.flush().await.unwrap();
    assert_eq!(&node.message().await.frame[..], b"old");
    second
        .write_all(&peer::messaging(1, b"\0\0\0\x03new"))
        .await
        .unwrap();
    second.flush().await.unwrap();
    assert_eq!(&node.message().await.frame[..], b"new");

    let start = Instant::now();
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.unwrap();
    assert_eq!(
        start.elapsed().as_secs(),
        1,
        "two seconds after it was replaced"
    );
    assert!(
        node.outlets.events.try_recv().is_err(),
        "no event for the loser"
    );
    assert_eq!(node.transport.connections().len(), 1);

    drop(second);
    let event = node.event().await;
    assert!(
        matches!(
            event,
            ConnectionEvent::Disconnected {
                minimized: false,
                ..
            }
        ),
        "{event:?}"
    );
    assert!(matches!(node.event().await, ConnectionEvent::Offline));
    drop(first);
    node.settles_to(1).await;
    assert!(node.outlets.events.try_recv().is_err());
}

/// Nodes and hand-driven peers: of the pairs, one has the node with the smaller id, one the other.
fn both_orders() -> [(u64, u64); 2] {
    let pairs = [(1, 9), (9, 1)];
    let smaller = pairs.map(|(node, them)| identity(node).node_id() < identity(them).node_id());
    assert_ne!(smaller[0], smaller[1]);
    pairs
}

/// A node, and a connection that it dialled to a hand-driven peer, which has been heard.
async fn dialled(node: u64, them: &NodeIdentity) -> (Memory, Node, NoiseStream<Socket>) {
    let memory = Memory::default();
    let mut node = Node::memory(node, &memory).await;
    let mut listener = memory.listen(&Address::memory(0)).await.unwrap();
    let to = [listener.local_address()];
    let (dialled, mut channel) = tokio::join!(
        node.transport.dial(them.public_key(), &to),
        peer::accept(&mut *listener, them)
    );
    dialled.unwrap();
    peer::ping(&mut channel).await;
    node.connected().await;
    (memory, node, channel)
}

/// Answers every ping, and gives back the messages.
async fn answer_pings(channel: &mut NoiseStream<Socket>) -> Vec<u8> {
    let (mut header, mut payload) = ([0; 12], Vec::new());
    while channel.read_exact(&mut header).await.is_ok() {
        let [_, kind, .., a, b, c, d] = header;
        let value = u32::from_be_bytes([a, b, c, d]);
        if kind == 0 {
            let mut body = vec![0; usize::try_from(value).unwrap()];
            channel.read_exact(&mut body).await.unwrap();
            payload.extend(body);
        } else if kind == 2 && header[3] == u8::try_from(peer::SYN).unwrap() {
            let pong = peer::yamux(2, peer::ACK, 0, value);
            if channel.write_all(&pong).await.is_err() || channel.flush().await.is_err() {
                break;
            }
        }
    }
    payload
}

/// A peer whose connection died without an end, and that comes back, is heard within seconds whichever side dialled, and
/// no message to it is called sent that went to the dead connection meanwhile.
#[tokio::test(start_paused = true)]
async fn returning_peer_replaces_silent_connection() {
    for (node, them) in both_orders() {
        let them = identity(them);
        let (memory, mut node, _silent) = dialled(node, &them).await;
        let frame = body(1, 100);
        let early = node
            .transport
            .send(them.node_id(), frame.clone(), Priority::Direct)
            .unwrap();
        assert_eq!(soon(early).await, Ok(()), "its socket took it");

        let mut back = peer::identify(&memory, &node.address, &them).await;
        peer::ping(&mut back).await;
        sleep(Duration::from_millis(100)).await;
        let sent = node
            .transport
            .send(them.node_id(), frame, Priority::Direct)
            .unwrap();
        let answering = tokio::spawn(async move { answer_pings(&mut back).await });
        let start = Instant::now();
        assert_eq!(soon(sent).await, Ok(()));
        assert!(start.elapsed() < Duration::from_secs(5));
        sleep(Duration::from_secs(60)).await;
        let connection = node.transport.connection(them.node_id()).unwrap();
        assert_eq!(connection.direction(), Direction::Inbound);
        let event = node.event().await;
        assert!(
            matches!(event, ConnectionEvent::Connected { replaced: true, .. }),
            "{event:?}"
        );
        assert!(node.outlets.events.try_recv().is_err(), "nothing else");
        node.transport.disconnect(them.node_id());
        let payload = answering.await.unwrap();
        assert!(payload.ends_with(&[1; 100]), "the message came");
    }
}

/// The loser of two connections stays until the winner was heard, and comes back if that ends first: the peer may have
/// given the winner up.
#[tokio::test(start_paused = true)]
async fn loser_returns_when_winner_ends() {
    for (node, them) in both_orders() {
        for winner_speaks in [false, true] {
            let them = identity(them);
            let (memory, mut node, mut first) = dialled(node, &them).await;
            let first = tokio::spawn(async move { answer_pings(&mut first).await });
            let mut second = peer::identify(&memory, &node.address, &them).await;
            if winner_speaks {
                peer::ping(&mut second).await;
            }
            sleep(Duration::from_secs(1)).await;
            drop(second);
            sleep(Duration::from_secs(60)).await;
            let connection = node
                .transport
                .connection(them.node_id())
                .expect("one is left");
            assert_eq!(connection.direction(), Direction::Outbound);
            let frame = body(1, 100);
            let sent = node.transport.send(them.node_id(), frame, Priority::Direct);
            assert_eq!(soon(sent.unwrap()).await, Ok(()));
            while let Ok(event) = node.outlets.events.try_recv() {
                assert!(
                    matches!(event, ConnectionEvent::Connected { replaced: true, .. }),
                    "{event:?}"
                );
            }
            node.transport.disconnect(them.node_id());
            assert!(first.await.unwrap().ends_with(&[1; 100]));
            assert_eq!(node.transport.stats().outbound, 1, "not dialled again");
        }
    }
}

/// A winner that says nothing gives way to a loser that answers.
#[tokio::test(start_paused = true)]
async fn silent_winner_gives_way() {
    for (node, them) in both_orders() {
        let them = identity(them);
        let (memory, node, mut first) = dialled(node, &them).await;
        let _first = tokio::spawn(async move { answer_pings(&mut first).await });
        let _second = peer::identify(&memory, &node.address, &them).await;
        sleep(Duration::from_secs(60)).await;
        let connection = node.transport.connection(them.node_id()).unwrap();
        assert_eq!(connection.direction(), Direction::Outbound);
        assert!(connection.is_open());
        node.settles_to(2).await;
    }
}

/// Both connections of a peer end when it is disconnected, or banned for an offence on one of them.
#[tokio::test(start_paused = true)]
async fn disconnect_ends_both_connections() {
    for (node, them) in both_orders() {
        for offence in [false, true] {
            let them = identity(them);
            let (memory, node, mut first) = dialled(node, &them).await;
            let mut second = peer::identify(&memory, &node.address, &them).await;
            sleep(Duration::from_millis(1)).await;
            if offence {
                // Unknown flags of a negotiation.
                let bad = peer::data(peer::SYN, 1, b"\x09\xf8t/msg/0.1");
                second.write_all(&bad).await.unwrap();
                second.flush().await.unwrap();
            } else {
                assert!(node.transport.disconnect(them.node_id()));
            }
            sleep(Duration::from_secs(1)).await;
            assert!(node.transport.connection(them.node_id()).is_none());
            for channel in [&mut first, &mut second] {
                let mut rest = Vec::new();
                let end = timeout(Duration::from_secs(5), channel.read_to_end(&mut rest));
                assert!(end.await.is_ok());
            }
            node.settles_to(1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn close_sends_go_away_then_end() {
    let memory = Memory::default();
    let node = Node::memory(1, &memory).await;
    let them = identity(9);
    let mut channel = peer::identify(&memory, &node.address, &them).await;
    sleep(Duration::from_millis(1)).await;
    assert!(node.transport.disconnect(them.node_id()));
    let mut bytes = Vec::new();
    channel.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.ends_with(&peer::yamux(3, 0, 0, 0)), "{bytes:?}");
}

// === messages ===

#[tokio::test(start_paused = true)]
async fn slow_receiver_holds_sender_back() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let mut setup = Setup::memory(2, &memory);
    setup.budget = 1024 * 1024;
    setup.config.inbound_channel = 4;
    let mut b = setup.start().await;
    a.knows(&b);
    let frame = body(1, 100_000);
    let deliveries: Vec<_> = (0..200)
        .map(|_| {
            a.transport
                .send(&b.id(), frame.clone(), Priority::Direct)
                .unwrap()
        })
        .collect();
    sleep(Duration::from_secs(5)).await;
    // 20 MB wait at the sender; the receiver holds its budget, the windows and pipes hold the rest.
    let waiting = a.transport.stats().queued_bytes;
    assert!(waiting > 15_000_000, "{waiting} bytes wait");
    for _ in 0..200 {
        let message = b.message().await;
        assert_eq!(message.frame.len(), 100_000);
        assert!(b.budget.available() <= b.budget.total() - 100_000);
    }
    for delivery in deliveries {
        assert_eq!(soon(delivery).await, Ok(()));
    }
    assert_eq!(b.budget.available(), b.budget.total());
}

#[tokio::test(start_paused = true)]
async fn unreading_peer_costs_only_its_messages() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let mut setup = Setup::memory(2, &memory);
    setup.config.inbound_channel = 1;
    let stuck = setup.start().await;
    let mut fine = Node::memory(3, &memory).await;
    a.knows(&stuck);
    a.knows(&fine);
    let frame = body(1, 1_000_000);
    let start = Instant::now();
    let lost: Vec<_> = (0..10)
        .map(|_| {
            a.transport
                .send(&stuck.id(), frame.clone(), Priority::Direct)
                .unwrap()
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    let delivery = a
        .transport
        .send(&fine.id(), body(2, 100), Priority::Gossip)
        .unwrap();
    assert_eq!(fine.message().await.frame, body(2, 100));
    assert_eq!(soon(delivery).await, Ok(()));
    assert_eq!(
        start.elapsed().as_secs(),
        1,
        "nobody waited for the stuck one"
    );
    let mut failed = 0;
    for delivery in lost {
        failed += usize::from(delivery.await.is_err());
    }
    // Some fit into windows, pipes and the sessions of the stuck side.
    assert!(failed >= 5, "{failed} failed");
    assert!(start.elapsed() < Duration::from_secs(125));
}

/// A peer that keeps its connection alive and reads none of its messages is disconnected after two write time-outs, 60 s.
#[tokio::test(start_paused = true)]
async fn unreading_peer_is_cut_off() {
    let memory = Memory::default();
    let mut a = Node::memory(1, &memory).await;
    let mut setup = Setup::memory(2, &memory);
    setup.config.inbound_channel = 1;
    let stuck = setup.start().await;
    a.knows(&stuck);
    let send = || {
        let frame = body(1, 1_000_000);
        let sent = a.transport.send(&stuck.id(), frame, Priority::Stored);
        sent.unwrap()
    };
    let start = Instant::now();
    let unread: Vec<_> = (0..20).map(|_| send()).collect();
    a.connected().await;
    let end = timeout(Duration::from_secs(90), a.outlets.events.recv()).await;
    let end = end.expect("an end");
    assert!(
        matches!(end, Some(ConnectionEvent::Disconnected { .. })),
        "{end:?}"
    );
    let waited = start.elapsed().as_secs();
    assert!((60..=65).contains(&waited), "{waited} s");
    drop(unread);
}

/// Messages to an unreachable peer fail, and none waits longer than its lifetime.
#[tokio::test(start_paused = true)]
async fn messages_to_unreachable_peer_expire() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let b = identity(2);
    let silent: Vec<_> = futures::future::join_all(
        (0..8).map(|_| async { memory.listen(&Address::memory(0)).await.unwrap() }),
    )
    .await;
    let addresses = silent.iter().map(|silent| silent.local_address());
    a.knows_at(b.public_key(), addresses);
    let start = Instant::now();
    let delivery = a
        .transport
        .send(b.node_id(), body(0, 10), Priority::Direct)
        .unwrap();
    assert!(matches!(
        delivery.await,
        Err(DeliveryError::DialFailed | DeliveryError::Expired)
    ));
    assert!(
        start.elapsed() <= Duration::from_secs(61),
        "{:?}",
        start.elapsed()
    );
    a.settles_to(1).await;
    assert_eq!(a.transport.stats().queues, 0);
}

#[tokio::test(start_paused = true)]
async fn full_queue_sheds_least_important() {
    let memory = Memory::default();
    let mut setup = Setup::memory(1, &memory);
    setup.config.max_queued_messages = 3;
    let a = setup.start().await;
    let mut b = Node::memory(2, &memory).await;
    a.knows(&b);
    let send = |byte, priority| a.transport.send(&b.id(), body(byte, 10), priority);
    let gossip = send(1, Priority::Gossip).unwrap();
    let direct = [
        send(2, Priority::Direct).unwrap(),
        send(3, Priority::Direct).unwrap(),
    ];
    assert_eq!(
        send(4, Priority::Gossip).err(),
        Some(EnqueueError::QueueFull)
    );
    let control = send(5, Priority::Control).unwrap();
    assert_eq!(gossip.await, Err(DeliveryError::Dropped));
    for expected in [5, 2, 3] {
        assert_eq!(b.message().await.frame[0], expected);
    }
    for delivery in [control].into_iter().chain(direct) {
        assert_eq!(soon(delivery).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_survive_end_of_connection() {
    let memory = Memory::default();
    let (a, mut b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    a.knows(&b);
    soon(
        a.transport
            .send(&b.id(), body(1, 10), Priority::Direct)
            .unwrap(),
    )
    .await
    .unwrap();
    b.message().await;
    b.transport.disconnect(&a.id());
    let delivery = a
        .transport
        .send(&b.id(), body(2, 10), Priority::Direct)
        .unwrap();
    assert_eq!(b.message().await.frame, body(2, 10));
    assert_eq!(soon(delivery).await, Ok(()));
    assert_eq!(b.transport.stats().inbound, 2, "dialled again");
}

/// The reference throws away a messaging stream while it serves another of the same peer, if only that of a connection
/// that is about to end.
#[tokio::test(start_paused = true)]
async fn replaced_stream_ends_before_next_begins() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let them = identity(9);
    let send = |node: &Node, byte| {
        let frame = body(byte, 100);
        node.transport.send(them.node_id(), frame, Priority::Direct)
    };
    let mut first = peer::identify(&memory, &node.address, &them).await;
    peer::ping(&mut first).await;
    node.connected().await;
    let one = send(&node, 1).unwrap();
    assert_eq!(soon(peer::next_data(&mut first)).await.0, peer::SYN);
    assert_eq!(soon(one).await, Ok(()));

    let mut second = peer::identify(&memory, &node.address, &them).await;
    peer::ping(&mut second).await;
    node.connected().await;
    let two = send(&node, 2).unwrap();
    while soon(peer::next_data(&mut first)).await.0 != peer::FIN {}
    let ended = Instant::now();
    assert_eq!(soon(peer::next_data(&mut second)).await.0, peer::SYN);
    assert!(ended.elapsed() >= Duration::from_millis(100));
    assert_eq!(soon(two).await, Ok(()));
}

/// The peer shows its identity and refuses ours: a message that the socket took has not been sent.
#[tokio::test(start_paused = true)]
async fn refused_identity_sends_nothing() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let them = identity(9);
    let mut channel = peer::identify(&memory, &node.address, &them).await;
    node.connected().await;
    let frame = body(1, 100);
    let sent = node
        .transport
        .send(them.node_id(), frame, Priority::Direct)
        .unwrap();
    assert_eq!(soon(peer::next_data(&mut channel)).await.0, peer::SYN);
    drop(channel);
    // It listens nowhere, so that this is the only connection.
    let failed = soon(sent).await.unwrap_err();
    assert!(
        matches!(failed, DeliveryError::Refused | DeliveryError::DialFailed),
        "{failed}"
    );
}

/// A medium whose pipes hold almost nothing.
struct Narrow(mpsc::UnboundedSender<Socket>);

impl Medium for Narrow {
    fn dial<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async {
            let (near, far) = duplex(1024);
            self.0.send(Socket::other(far)).unwrap();
            Ok(Socket::duplex(near))
        })
    }

    fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn serves(&self, address: &Address) -> bool {
        *address == Address::memory(4242)
    }
}

#[tokio::test(start_paused = true)]
async fn delivery_resolves_when_socket_took_message() {
    let (sender, mut sockets) = mpsc::unbounded_channel();
    let them = identity(2);
    let setup = Setup::memory(1, &Memory::default());
    let a = setup.start_with(Narrow(sender)).await;
    a.knows_at(them.public_key(), [Address::memory(4242)]);
    let mut delivery = a
        .transport
        .send(them.node_id(), body(1, 5_000), Priority::Direct)
        .unwrap();

    let mut socket = sockets.recv().await.unwrap();
    assert_eq!(
        socket.read_u8().await.unwrap(),
        Network::LocalNet.wire_byte()
    );
    let entropy = Arc::new(dht_core::SeededEntropy::new(5));
    let (mut channel, _) = dht_transport::noise::respond(socket, them.secret_key(), entropy)
        .await
        .unwrap();
    channel.write_all(&peer::honest_frame(&them)).await.unwrap();
    channel.flush().await.unwrap();
    let mut head = [0; 3];
    channel.read_exact(&mut head).await.unwrap();
    channel
        .read_exact(&mut vec![
            0;
            usize::from(head[1]) + 256 * usize::from(head[2])
        ])
        .await
        .unwrap();

    peer::ping(&mut channel).await;

    // The message is in the multiplexer, but the pipe holds only a part of it.
    tokio::select! {
        biased;
        result = &mut delivery => panic!("{result:?} before the socket took it"),
        () = sleep(Duration::from_secs(5)) => {}
    }
    let mut got = vec![0; 5_000];
    let (read, result) = tokio::join!(
        async {
            loop {
                if channel.read(&mut got).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        },
        async {
            let result = soon(delivery).await;
            a.transport.disconnect(them.node_id());
            result
        }
    );
    let () = read;
    assert_eq!(result, Ok(()));
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
    second.write_all(b"\xa7pingpong\n").await.unwrap();
    assert_eq!(
        second.read(&mut [0]).await.unwrap(),
        0,
        "one session at a time"
    );
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
