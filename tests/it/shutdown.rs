//! A node stops in order, soon, and for good.

use std::time::Duration;

use dht_node::{Node, SHUTDOWN_LIMIT, SendError, SendOptions, SubmitError};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;

use crate::net::{
    Line, LineState, builder, connect, fixed_config, fixed_node, message, node, numbered, receive,
    send, until, within,
};

/// Below every other limit that a shutdown could wait for by mistake (30 s and more), and well above its own.
const SOON: Duration = Duration::from_secs(20);

/// Shuts down and checks that nothing was waited for that has its own, longer limit.
async fn stop(node: &Node) {
    const { assert!(SOON.as_secs() > 2 * SHUTDOWN_LIMIT.as_secs()) };
    let start = Instant::now();
    within(node.shutdown()).await;
    let took = start.elapsed();
    assert!(took < SOON, "a shutdown took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_before_shutdown_arrive() {
    const COUNT: u32 = 100;
    let (alice, bob) = (node(1).await, node(2).await);
    let mut inbox = bob.subscribe();
    let mut own = alice.subscribe();
    connect(&alice, &bob).await;
    let mut sends: FuturesUnordered<_> = (0..COUNT)
        .map(|at| send(&alice, bob.public_key(), numbered(at, 1024)))
        .collect();
    within(async {
        while let Some(sent) = sends.next().await {
            sent.unwrap();
        }
    })
    .await;
    stop(&alice).await;
    assert_eq!(
        crate::net::receive_numbers(&mut inbox, COUNT).await,
        crate::net::each_once(COUNT)
    );
    assert_eq!(within(own.recv()).await, None);
    until(|| bob.peers().is_empty()).await;
}

/// A node under load stops although its application does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loaded_node_stops_without_a_reader() {
    let busy = within(builder(1).memory_mib(1).start()).await.unwrap();
    let mut inbox = busy.subscribe();
    // They do not know each other: a search for one that is gone asks whom a node is connected to, for two minutes.
    let flooders = [
        fixed_node(2).await,
        fixed_node(3).await,
        fixed_node(4).await,
    ];
    for flooder in &flooders {
        connect(flooder, &busy).await;
    }
    let mut sends: FuturesUnordered<_> = flooders
        .iter()
        .flat_map(|flooder| (0..100).map(move |at| (flooder, at)))
        .map(|(flooder, at)| send(flooder, busy.public_key(), numbered(at, 60 * 1024)))
        .collect();
    within(async {
        while !crate::net::is_full(&busy) {
            tokio::select! {
                Some(_) = sends.next() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    stop(&busy).await;
    // The messages of the inbox are still there, then it ends.
    let mut held = 0;
    while within(inbox.recv()).await.is_some() {
        held += 1;
    }
    assert!((1..300).contains(&held), "{held}");
    // Everybody who was held back is told.
    let refused = within(
        sends
            .filter(|sent| std::future::ready(sent.is_err()))
            .count(),
    )
    .await;
    assert!(refused > 0);
    for flooder in &flooders {
        until(|| flooder.peers().is_empty()).await;
        stop(flooder).await;
    }
}

/// Copies and goodbyes wait for a peer that vanished, deliveries for an application that does not read. From the shutdown on the
/// clock moves only while everything waits for it: the time is that of the deadlines, on any machine.
#[tokio::test]
async fn held_up_steps_end_in_time() {
    let busy = builder(1).config(fixed_config(false)).memory_mib(1);
    let busy = within(busy.start()).await.unwrap();
    let (flooder, vanished) = (fixed_node(2).await, fixed_node(3).await);
    let _unread = busy.subscribe();
    connect(&flooder, &busy).await;
    let line = Line::to(&vanished, LineState::Open).await;
    within(busy.connect(&line.peer_address(&vanished)))
        .await
        .unwrap();
    until(|| !vanished.peers().is_empty()).await;
    line.set(LineState::Dead);
    let large = |at| numbered(at, 60 * 1024);
    let mut inbound: FuturesUnordered<_> = (0..100)
        .map(|at| send(&flooder, busy.public_key(), large(at)))
        .collect();
    let mut outbound: FuturesUnordered<_> = (0..200)
        .map(|at| send(&busy, vanished.public_key(), large(at)))
        .collect();
    within(async {
        while !crate::net::is_full(&busy) || busy.stats().queued_bytes == 0 {
            tokio::select! {
                Some(_) = inbound.next() => {}
                Some(_) = outbound.next() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    tokio::time::pause();
    let start = Instant::now();
    let stopped = async {
        busy.shutdown().await;
        start.elapsed()
    };
    let (took, ..) = tokio::join!(stopped, inbound.count(), outbound.count());
    assert!(took <= SHUTDOWN_LIMIT, "{took:?}");
    assert!(took > SHUTDOWN_LIMIT / 2, "nothing held it up: {took:?}");
}

/// After a shutdown nothing is accepted, and a second shutdown does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_shutdown_is_harmless() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    within(async { tokio::join!(bob.shutdown(), bob.shutdown()) }).await;
    stop(&bob).await;
    until(|| alice.peers().is_empty()).await;

    let options = SendOptions::default();
    let sent = within(bob.send(alice.public_key(), message("late"), options)).await;
    assert!(
        matches!(sent, Err(SubmitError::Send(SendError::Closed))),
        "{sent:?}"
    );
    let sent = within(bob.broadcast(message("late"), vec![])).await;
    assert!(matches!(sent, Err(SendError::Closed)), "{sent:?}");
    assert_eq!(bob.peers(), []);
    assert_eq!(within(bob.subscribe().recv()).await, None);
    let sent = within(send(&alice, bob.public_key(), message("too late"))).await;
    assert_eq!(
        sent,
        Err("peer could not be dialled: connection refused".to_owned())
    );
    assert_eq!(within(inbox.recv()).await, None);
    assert!(within(bob.connect(&alice.peer_address())).await.is_err());
    assert_eq!((alice.stats().delivered, alice.stats().dropped), (0, 0));
    assert_eq!(bob.stats().connections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vanished_peer_delays_no_shutdown() {
    let (alice, bob) = (fixed_node(1).await, fixed_node(2).await);
    let line = Line::to(&bob, LineState::Open).await;
    let mut inbox = bob.subscribe();
    within(alice.connect(&line.peer_address(&bob)))
        .await
        .unwrap();
    within(send(&alice, bob.public_key(), message("before")))
        .await
        .unwrap();
    receive(&mut inbox).await;
    line.set(LineState::Dead);

    // More than the sockets of a dead line take: these wait for a window that never opens.
    let mut sends: FuturesUnordered<_> = (0..40)
        .map(|at| send(&alice, bob.public_key(), numbered(at, 1024 * 1024)))
        .collect();
    let ended = async {
        let mut failed = 0;
        while let Some(sent) = sends.next().await {
            failed += u32::from(sent.is_err());
        }
        failed
    };
    let (failed, ()) = within(async { tokio::join!(ended, stop(&alice)) }).await;
    assert!(failed > 0, "what cannot be sent any more is told so");
    // The other side has nothing to send, only a goodbye nobody answers.
    stop(&bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_node_is_gone() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    let address = crate::net::socket_address(&bob);
    drop(bob);
    assert_eq!(within(inbox.recv()).await, None);
    until(|| alice.peers().is_empty()).await;
    // Its port is free again.
    within(async {
        while std::net::TcpListener::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
