//! Two transports, over memory and over TCP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use dht_core::{DeliveryError, DialFailure, Priority};
use dht_peers::Direction;
use dht_transport::{ConnectionEvent, DialError, EnqueueError, Memory};
use support::{Node, Setup, body, soon};

async fn talk(mut a: Node, mut b: Node) {
    a.knows(&b);
    let delivery = a
        .transport
        .send(&b.id(), body(1, 6_200), Priority::Direct)
        .unwrap();
    let message = b.message().await;
    assert_eq!(message.frame, body(1, 6_200));
    assert_eq!(message.source.public_key, *a.key());
    assert_eq!(message.source.node_id, a.id());
    assert!(message.permit.bytes() >= 6_200);
    assert_eq!(soon(delivery).await, Ok(()));

    // Back over the same connection, although b knows no address of a.
    let delivery = b
        .transport
        .send(&a.id(), body(2, 100), Priority::Direct)
        .unwrap();
    assert_eq!(a.message().await.frame, body(2, 100));
    assert_eq!(soon(delivery).await, Ok(()));
    assert_eq!(a.transport.connections().len(), 1);
    assert_eq!(b.transport.connections().len(), 1);

    let ConnectionEvent::Connected {
        connection,
        replaced: false,
    } = a.event().await
    else {
        panic!()
    };
    assert_eq!(connection.direction(), Direction::Outbound);
    assert_eq!(connection.peer().public_key, *b.key());
    assert_eq!(&*connection.info().user_agent, "test/1");
    assert_eq!(*connection.info().claim, *b.identity.claim());
    let ConnectionEvent::Connected {
        connection,
        replaced: false,
    } = b.event().await
    else {
        panic!()
    };
    assert_eq!(connection.direction(), Direction::Inbound);

    drop(message);
    assert!(a.transport.disconnect(&b.id()));
    let ConnectionEvent::Disconnected {
        node_id,
        minimized: true,
        refused: false,
    } = a.event().await
    else {
        panic!()
    };
    assert_eq!(node_id, b.id());
    let ConnectionEvent::Disconnected {
        node_id,
        minimized: false,
        refused: false,
    } = b.event().await
    else {
        panic!()
    };
    assert_eq!(node_id, a.id());
    assert!(matches!(a.event().await, ConnectionEvent::Offline));

    // Only the accept loop is left, and every byte of the budget is back.
    a.settles_to(1).await;
    b.settles_to(1).await;
    assert_eq!(b.budget.available(), b.budget.total());
    assert_eq!(a.transport.stats().queued_bytes, 0);
    assert_eq!(a.transport.stats().queues, 0);
    soon(a.transport.shutdown(Duration::from_secs(5))).await;
    a.settles_to(0).await;
}

#[tokio::test]
async fn messages_over_memory() {
    let memory = Memory::default();
    talk(
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    )
    .await;
}

#[tokio::test]
async fn messages_over_tcp() {
    talk(Setup::tcp(1).start().await, Setup::tcp(2).start().await).await;
}

#[tokio::test]
async fn messages_over_tcp_v6() {
    let mut setup = Setup::tcp(1);
    setup.listen = "/ip6/::1/tcp/0".parse().unwrap();
    talk(Setup::tcp(2).start().await, setup.start().await).await;
}

#[tokio::test]
async fn large_messages_arrive_in_order() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let mut b = Node::memory(2, &memory).await;
    a.knows(&b);
    let sizes = [
        0,
        1,
        3,
        65_507,
        65_503,
        65_519,
        200_000,
        8 * 1024 * 1024,
        17,
        1_000_000,
    ];
    let deliveries: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(i, size)| {
            let frame = body(u8::try_from(i).unwrap(), *size);
            a.transport.send(&b.id(), frame, Priority::Direct).unwrap()
        })
        .collect();
    for (i, size) in sizes.iter().enumerate() {
        let message = b.message().await;
        assert_eq!(message.frame.len(), *size);
        assert!(message.frame.iter().all(|byte| usize::from(*byte) == i));
    }
    for delivery in deliveries {
        assert_eq!(soon(delivery).await, Ok(()));
    }
    assert_eq!(b.transport.stats().inbound, 1);
}

#[tokio::test]
async fn refusals_before_anything_is_queued() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let b = Node::memory(2, &memory).await;
    let long = body(0, 8 * 1024 * 1024 + 1);
    let error = a.transport.send(&b.id(), long, Priority::Control).err();
    assert_eq!(error, Some(EnqueueError::TooLong(8 * 1024 * 1024 + 1)));
    let error = a
        .transport
        .send(&a.id(), body(0, 1), Priority::Control)
        .err();
    assert_eq!(error, Some(EnqueueError::OwnNodeId));
    // Nobody knows how to reach b.
    let delivery = a
        .transport
        .send(&b.id(), body(0, 1), Priority::Control)
        .unwrap();
    let failed = DeliveryError::DialFailed(DialFailure::UnknownPeer);
    assert_eq!(soon(delivery).await, Err(failed));
    assert_eq!(
        a.transport
            .dial(a.key(), std::slice::from_ref(&b.address))
            .await
            .err(),
        Some(DialError::OwnKey)
    );
    assert_eq!(
        a.transport.dial_known(&b.id()).await.err(),
        Some(DialError::UnknownPeer)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_dials_on_real_threads() {
    let mut a = Setup::tcp(1).start().await;
    let mut b = Setup::tcp(2).start().await;
    a.knows(&b);
    b.knows(&a);
    for round in 0..4 {
        let dials = (a.transport.clone(), b.transport.clone(), a.id(), b.id());
        let (to_b, to_a) = (
            tokio::spawn(async move { dials.0.dial_known(&dials.3).await }),
            tokio::spawn(async move { dials.1.dial_known(&dials.2).await }),
        );
        // A dial may be given up in favour of the other side's, never both.
        assert!(
            to_b.await.unwrap().is_ok() && to_a.await.unwrap().is_ok(),
            "round {round}"
        );
        let there = a
            .transport
            .send(&b.id(), body(round, 100), Priority::Direct)
            .unwrap();
        let back = b
            .transport
            .send(&a.id(), body(round, 100), Priority::Direct)
            .unwrap();
        assert_eq!(b.message().await.frame, body(round, 100));
        assert_eq!(a.message().await.frame, body(round, 100));
        assert_eq!((soon(there).await, soon(back).await), (Ok(()), Ok(())));
        // A dial that was answered by the other side's connection may still be on its way.
        while [&a, &b]
            .map(|node| node.transport.stats())
            .iter()
            .any(|s| s.dials + s.handshakes > 0)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        a.transport.disconnect(&b.id());
        a.settles_to(1).await;
        b.settles_to(1).await;
        for node in [&mut a, &mut b] {
            let (mut up, mut down) = (0, 0);
            while let Ok(event) = node.outlets.events.try_recv() {
                match event {
                    ConnectionEvent::Connected { replaced, .. } => up += usize::from(!replaced),
                    ConnectionEvent::Disconnected { .. } => down += 1,
                    _ => {}
                }
            }
            assert_eq!(up, down, "round {round}");
            assert!(up >= 1);
        }
    }
}

/// Version 6 of the reference bans at 1 000 messages in 60 s.
#[tokio::test(start_paused = true)]
async fn strict_stock_nodes_are_spared() {
    for (user_agent, least) in [("tari/node/6.3.0", 6), ("tari/node/1.0.0", 0)] {
        let memory = Memory::default();
        let a = Node::memory(1, &memory).await;
        let mut b = Setup {
            user_agent,
            ..Setup::memory(2, &memory)
        }
        .start()
        .await;
        a.knows(&b);
        let start = tokio::time::Instant::now();
        for _ in 0..450 {
            let message = a.transport.send(&b.id(), body(1, 10), Priority::Direct);
            drop(message.unwrap());
        }
        for _ in 0..450 {
            b.message().await;
        }
        assert_eq!(start.elapsed().as_secs(), least, "{user_agent}");
    }
}
