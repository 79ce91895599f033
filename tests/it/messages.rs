//! Messages between running nodes.

use dht_core::Destination;
use dht_node::{MAX_PAYLOAD_BYTES, SendError, SendOptions, SubmitError};

use crate::net::{
    connect, fixed_node, is_connected, message, node, receive, secret, send, until, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_message_names_its_sender() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut inbox = bob.subscribe();
    alice.add_peer(&bob.peer_address());
    within(send(&alice, bob.public_key(), message("hello")))
        .await
        .unwrap();
    let received = receive(&mut inbox).await;
    assert_eq!(received.sender, Some(*alice.public_key()));
    assert_eq!(received.via, alice.public_key().node_id());
    assert_eq!(received.message, message("hello"));

    // Bob has learned from the connection who and where Alice is.
    let mut answers = alice.subscribe();
    until(|| is_connected(&bob, &alice)).await;
    within(send(&bob, alice.public_key(), message("hi")))
        .await
        .unwrap();
    assert_eq!(receive(&mut answers).await.sender, Some(*bob.public_key()));
    until(|| bob.stats().delivered == 1 && bob.stats().memory_used_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_every_length_arrive_unchanged() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    for length in [0, 1, 31, 32, 33, 256 * 1024, MAX_PAYLOAD_BYTES] {
        let payload: Vec<u8> = (0..length)
            .map(|at| u8::try_from(at % 251).unwrap_or(0))
            .collect();
        within(send(&alice, bob.public_key(), message(payload.clone())))
            .await
            .unwrap();
        let received = receive(&mut inbox).await;
        assert_eq!(received.message.payload.len(), length);
        assert!(received.message.payload == payload, "{length} bytes differ");
    }
    until(|| bob.stats().memory_used_bytes == 0).await;
    assert_eq!(bob.stats().dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsendable_message_names_its_cause() {
    let (alice, bob) = (node(1).await, node(2).await);
    let anything = || message("x");
    assert!(matches!(
        within(alice.broadcast(anything(), vec![])).await,
        Err(SendError::NobodySelected)
    ));
    // Nor anybody to ask where a recipient is.
    let sent = within(send(&alice, &secret(9).public_key(), anything())).await;
    let error = sent.unwrap_err();
    assert!(error.starts_with("recipient not found"), "{error}");
    connect(&alice, &bob).await;

    let too_long = vec![0; MAX_PAYLOAD_BYTES + 1];
    assert!(matches!(
        within(alice.send(bob.public_key(), message(too_long.clone()), SendOptions::default())).await,
        Err(SubmitError::Send(SendError::TooLarge { bytes, .. })) if bytes == MAX_PAYLOAD_BYTES + 1
    ));
    assert!(matches!(
        within(alice.broadcast(message(too_long), vec![])).await,
        Err(SendError::TooLarge { .. })
    ));
    assert!(matches!(
        within(alice.broadcast(anything(), vec![bob.public_key().node_id()])).await,
        Err(SendError::NobodySelected)
    ));
    assert_eq!((bob.stats().delivered, bob.stats().dropped), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_gets_every_message() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut inboxes = [bob.subscribe(), bob.subscribe()];
    drop(bob.subscribe());
    alice.add_peer(&bob.peer_address());
    within(send(&alice, bob.public_key(), message("both")))
        .await
        .unwrap();
    for inbox in &mut inboxes {
        assert_eq!(receive(inbox).await.message, message("both"));
    }
}

/// A broadcast reaches each connected peer once and no peer farther away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcast_reaches_only_direct_peers() {
    let (alice, bob, carol) = (
        fixed_node(1).await,
        fixed_node(2).await,
        fixed_node(3).await,
    );
    connect(&alice, &bob).await;
    connect(&carol, &bob).await;
    let mut inboxes = [&alice, &bob, &carol].map(dht_node::Node::subscribe);

    let states = within(bob.broadcast(message("to both"), vec![]))
        .await
        .unwrap();
    assert_eq!(within(states.wait_all()).await.0.len(), 2);
    for at in [0, 2] {
        let received = receive(&mut inboxes[at]).await;
        assert_eq!(received.message, message("to both"));
        assert_eq!(received.sender, None, "a clear message names nobody");
        assert_eq!(received.via, bob.public_key().node_id());
    }
    let states = within(alice.broadcast(message("to bob"), vec![]))
        .await
        .unwrap();
    assert_eq!(states.len(), 1);
    assert_eq!(receive(&mut inboxes[1]).await.message, message("to bob"));

    // The next message shows that nothing came in between.
    within(send(&alice, bob.public_key(), message("end")))
        .await
        .unwrap();
    within(send(&bob, carol.public_key(), message("end")))
        .await
        .unwrap();
    within(send(&bob, alice.public_key(), message("end")))
        .await
        .unwrap();
    for inbox in &mut inboxes {
        assert_eq!(receive(inbox).await.message, message("end"));
    }
    until(|| carol.stats().delivered == 2).await;
    assert_eq!(carol.stats().duplicates_dropped, 0);
}

/// A message that is passed on is delivered once on each node, and its further copies are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebroadcast_is_delivered_once_per_node() {
    let (alice, bob, carol) = (
        fixed_node(1).await,
        fixed_node(2).await,
        fixed_node(3).await,
    );
    connect(&alice, &bob).await;
    connect(&carol, &bob).await;
    let mut inboxes = [&alice, &bob, &carol].map(dht_node::Node::subscribe);
    let news = || message("news");

    let states = within(alice.propagate(Destination::Unknown, news(), vec![]))
        .await
        .unwrap();
    assert_eq!(within(states.wait_all()).await.0.len(), 1);
    let received = receive(&mut inboxes[1]).await;
    assert_eq!(received.message, news());

    // Bob passes it on, to where it came from too; Alice knows her own message.
    let states = within(bob.propagate(Destination::Unknown, received.message, vec![]))
        .await
        .unwrap();
    assert_eq!(within(states.wait_all()).await.0.len(), 2);
    assert_eq!(receive(&mut inboxes[2]).await.message, news());
    until(|| alice.stats().duplicates_dropped == 1).await;

    // Carol passes it back; Bob has had it, and sent it.
    within(carol.propagate(Destination::Unknown, news(), vec![]))
        .await
        .unwrap();
    until(|| bob.stats().duplicates_dropped == 1).await;

    within(send(&alice, bob.public_key(), message("end")))
        .await
        .unwrap();
    within(send(&bob, carol.public_key(), message("end")))
        .await
        .unwrap();
    within(send(&bob, alice.public_key(), message("end")))
        .await
        .unwrap();
    for inbox in &mut inboxes {
        assert_eq!(receive(inbox).await.message, message("end"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_dials_lose_no_message() {
    for round in 0..10 {
        let (alice, bob) = (node(2 * round + 1).await, node(2 * round + 2).await);
        let (mut to_alice, mut to_bob) = (alice.subscribe(), bob.subscribe());
        alice.add_peer(&bob.peer_address());
        bob.add_peer(&alice.peer_address());
        let (there, back) = within(async {
            tokio::join!(
                send(&alice, bob.public_key(), message("there")),
                send(&bob, alice.public_key(), message("back")),
            )
        })
        .await;
        there.unwrap();
        back.unwrap();
        assert_eq!(receive(&mut to_bob).await.message, message("there"));
        assert_eq!(receive(&mut to_alice).await.message, message("back"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sender_can_be_answered_at_once() {
    let alice = node(1).await;
    let mut answers = alice.subscribe();
    for seed in 2..100 {
        let bob = node(seed).await;
        let mut inbox = bob.subscribe();
        alice.add_peer(&bob.peer_address());
        within(send(&alice, bob.public_key(), message("?")))
            .await
            .unwrap();
        let sender = receive(&mut inbox).await.sender.unwrap();
        within(send(&bob, &sender, message("!"))).await.unwrap();
        receive(&mut answers).await;
    }
}
