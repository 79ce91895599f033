//! Messages: back-pressure, priorities, expiry, and what became of them.

use super::*;

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
        Err(DeliveryError::DialFailed(_) | DeliveryError::Expired)
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

/// Stock nodes count the messages of a peer, over whichever connection they come, and ban it at 1 000 in 60 s.
#[tokio::test(start_paused = true)]
async fn pace_outlives_streams() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let mut setup = Setup::memory(2, &memory);
    setup.user_agent = "tari/basenode/6.3.0";
    let mut b = setup.start().await;
    a.knows(&b);
    let mut times = Vec::new();
    for round in 0..3 {
        let send = || {
            let sent = a.transport.send(&b.id(), body(1, 10), Priority::Direct);
            sent.unwrap()
        };
        let sent: Vec<_> = (0..400).map(|_| send()).collect();
        for message in 0..400 {
            b.message().await;
            times.push(Instant::now());
            if message == 100 {
                assert_eq!(a.transport.is_paced(&b.id()), round > 0);
            }
        }
        for delivery in sent {
            assert_eq!(soon(delivery).await, Ok(()));
        }
        b.transport.disconnect(&a.id());
        soon(async {
            while a.transport.stats().queues > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    let minutes = times.windows(1_000);
    let fewest = minutes.map(|minute| minute[999] - minute[0]).min();
    assert!(fewest >= Some(Duration::from_secs(60)), "{fewest:?}");
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

/// The sender of a message is told why its recipient was not reached.
#[tokio::test(start_paused = true)]
async fn failed_messages_name_the_cause() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let b = Node::memory(2, &memory).await;
    let mut other_network = Setup::memory(3, &memory);
    other_network.network = Network::Esmeralda;
    let other_network = other_network.start().await;
    let refused = io::ErrorKind::ConnectionRefused;
    let cases = [
        (DialFailure::WrongKey, b.address.clone()),
        (DialFailure::HandshakeEnded, other_network.address.clone()),
        (DialFailure::Connect(refused), Address::memory(9_999)),
        (
            DialFailure::NoAddresses,
            "/dns6/example.com/tcp/1".parse().unwrap(),
        ),
    ];
    for (seed, (cause, address)) in (10..).zip(cases) {
        let peer = identity(seed);
        a.knows_at(peer.public_key(), [address]);
        let sent = a
            .transport
            .send(peer.node_id(), body(0, 10), Priority::Direct);
        let failed = soon(sent.unwrap()).await.unwrap_err();
        assert_eq!(failed, DeliveryError::DialFailed(cause));
    }
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
        matches!(
            failed,
            DeliveryError::Refused | DeliveryError::DialFailed(_)
        ),
        "{failed}"
    );
}

/// The peer ends the connection before it says anything over it.
#[tokio::test(start_paused = true)]
async fn refused_identity_answers_no_ping() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let them = identity(9);
    let channel = peer::identify(&memory, &node.address, &them).await;
    node.connected().await;
    let connection = node.transport.connection(them.node_id()).unwrap();
    drop(channel);
    let pinged = soon(connection.round_trip()).await;
    assert_eq!(pinged, Err(StreamError::Refused));
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
