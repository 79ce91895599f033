//! Nodes and lines that go away and come back.

use dht_node::{Node, SendError};
use dht_outbound::DeliveryFailure;

use crate::net::{
    Line, LineState, connect, is_connected, message, node, receive, secret, until, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_with_its_key_and_port_is_reachable_again() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut to_alice = alice.subscribe();
    connect(&alice, &bob).await;
    let (key, listen) = (*bob.public_key(), bob.listen_addresses());
    within(bob.shutdown()).await;
    drop(bob);
    until(|| alice.peers().is_empty()).await;
    let sent = within(alice.send(&key, message("anybody?"))).await;
    assert!(
        matches!(
            sent,
            Err(SendError::NotDelivered(DeliveryFailure::PeerDialFailed))
        ),
        "{sent:?}"
    );

    let again = Node::builder(secret(2)).listen(listen[0].clone());
    let bob = within(again.start()).await.unwrap();
    assert_eq!(bob.listen_addresses(), listen);
    let mut to_bob = bob.subscribe();
    within(alice.send(&key, message("welcome back")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_bob).await.sender, Some(*alice.public_key()));
    // It has learned anew who Alice is.
    until(|| is_connected(&bob, &alice)).await;
    within(bob.send(alice.public_key(), message("thanks")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_alice).await.message, message("thanks"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_reached_after_a_dial_that_failed() {
    let (alice, bob) = (node(1).await, node(2).await);
    let line = Line::to(&bob, LineState::ClosesOne).await;
    let mut inbox = bob.subscribe();
    alice.add_peer(&line.peer_address(&bob));
    // The dial is tried twice before a message fails; whoever sends again finds the line open.
    if within(alice.send(bob.public_key(), message("second time lucky")))
        .await
        .is_err()
    {
        within(alice.send(bob.public_key(), message("second time lucky")))
            .await
            .unwrap();
    }
    line.reaches(LineState::Open).await;
    assert_eq!(
        receive(&mut inbox).await.message,
        message("second time lucky")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_peer_is_dialled_without_being_asked() {
    let bob = node(2).await;
    let mut inbox = bob.subscribe();
    let alice = Node::builder(secret(1)).peer(bob.peer_address());
    let alice = within(alice.start()).await.unwrap();
    until(|| !alice.peers().is_empty()).await;
    let states = within(alice.broadcast(message("here"), vec![]))
        .await
        .unwrap();
    assert_eq!(states.len(), 1);
    assert_eq!(receive(&mut inbox).await.message, message("here"));
}
