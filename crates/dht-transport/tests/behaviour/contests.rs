//! Two connections of one peer: which one counts, and what becomes of the other.

use super::*;

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

/// Only a connection whose other end is there answers, whoever asks; a question holds no message back.
#[tokio::test(start_paused = true)]
async fn silent_connection_gives_no_answer() {
    let them = identity(9);
    let (_memory, node, mut channel) = dialled(1, &them).await;
    let connection = node.transport.connection(them.node_id()).unwrap();
    // Its earlier messages have been heard.
    sleep(Duration::from_secs(1)).await;
    assert!(!connection.answers().await, "nobody reads");
    let sent = node
        .transport
        .send(them.node_id(), body(1, 100), Priority::Direct)
        .unwrap();
    assert_eq!(soon(sent).await, Ok(()), "its socket took it");
    let answering = tokio::spawn(async move { answer_pings(&mut channel).await });
    for _ in 0..2 {
        let answers = tokio::join!(connection.answers(), connection.answers());
        assert_eq!(answers, (true, true));
    }
    node.transport.disconnect(them.node_id());
    assert!(answering.await.unwrap().ends_with(&[1; 100]));
    assert!(!connection.answers().await, "it has ended");
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
