//! Nodes and lines that go away and come back.

use dht_core::{Address, PeerAddress};
use dht_node::Node;

use crate::net::{
    Line, LineState, connect, fixed_node, is_connected, message, node, receive, secret, send,
    until, within,
};

/// A node that comes back with its key and port is reachable again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_node_is_reachable_again() {
    let (alice, bob) = (node(1).await, node(2).await);
    let mut to_alice = alice.subscribe();
    connect(&alice, &bob).await;
    let (key, listen) = (*bob.public_key(), bob.listen_addresses());
    within(bob.shutdown()).await;
    drop(bob);
    until(|| alice.peers().is_empty()).await;
    let sent = within(send(&alice, &key, message("anybody?"))).await;
    assert_eq!(
        sent,
        Err("peer could not be dialled: connection refused".to_owned())
    );

    let again = Node::builder(secret(2)).listen(listen[0].clone());
    let bob = within(again.start()).await.unwrap();
    assert_eq!(bob.listen_addresses(), listen);
    let mut to_bob = bob.subscribe();
    within(send(&alice, &key, message("welcome back")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_bob).await.sender, Some(*alice.public_key()));
    // It has learned anew who Alice is.
    until(|| is_connected(&bob, &alice)).await;
    within(send(&bob, alice.public_key(), message("thanks")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_alice).await.message, message("thanks"));
}

/// A node with a home knows whom it was connected to, whichever side dialled, without settings that name them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_node_knows_its_peers() {
    let home = tempfile::tempdir().unwrap();
    let start = || Node::builder(secret(1)).home(home.path());
    let listen = Address::tcp([127, 0, 0, 1].into(), 0);
    let alice = within(start().listen(listen).start()).await.unwrap();
    let (bob, carol) = (node(2).await, node(3).await);
    connect(&alice, &bob).await;
    connect(&carol, &alice).await;
    until(|| alice.peers().len() == 2).await;
    within(alice.shutdown()).await;
    drop(alice);

    let alice = within(start().start()).await.unwrap();
    let known = alice.directory().find(&bob.public_key().node_id());
    assert!(known.is_some_and(|bob| bob.is_proven() && !bob.is_seed()));
    assert!(alice.directory().is_anchor(&bob.public_key().node_id()));
    assert!(!alice.directory().is_anchor(&carol.public_key().node_id()));
    for peer in [&bob, &carol] {
        let mut inbox = peer.subscribe();
        within(send(&alice, peer.public_key(), message("me again")))
            .await
            .unwrap();
        assert_eq!(receive(&mut inbox).await.message, message("me again"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_message_survives_failed_dial() {
    let (alice, bob) = (fixed_node(1).await, fixed_node(2).await);
    let line = Line::to(&bob, LineState::ClosesOne).await;
    let mut inbox = bob.subscribe();
    alice.add_peer(&line.peer_address(&bob));
    within(send(&alice, bob.public_key(), message("second time lucky")))
        .await
        .unwrap();
    line.reaches(LineState::Open).await;
    assert_eq!(
        receive(&mut inbox).await.message,
        message("second time lucky")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_peer_is_dialled_unasked() {
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

/// The end of one dial is not taken for the end of the next, which starts the moment the first is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dial_after_failure_is_not_cancelled() {
    // Bound and not listening: nobody else gets the port, and connections are refused.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = bound.local_addr().unwrap();
    let nobody = PeerAddress {
        public_key: secret(9).public_key(),
        addresses: vec![Address::tcp(address.ip(), address.port())],
    };
    let alice = node(1).await;
    for round in 0..1_000 {
        let dialled = within(alice.connect(&nobody)).await;
        assert!(
            matches!(dialled, Err(ref error) if error.is_exhausted()),
            "{round}: {dialled:?}"
        );
    }
}

/// A peer that hangs up right after reading looks like a socket that died with the copy. If the copy was written before the end, it is
/// sent; else that is the one cause which is told, and the message stays in doubt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hang_up_after_copy_is_told() {
    let alice = node(1).await;
    for seed in 2..50 {
        let bob = node(seed).await;
        let (key, mut inbox) = (*bob.public_key(), bob.subscribe());
        alice.add_peer(&bob.peer_address());
        let reads = async {
            receive(&mut inbox).await;
            drop(bob);
        };
        let (sent, ()) = tokio::join!(within(send(&alice, &key, message("bye"))), reads);
        if let Err(error) = sent {
            assert_eq!(error, "the connection ended right after the copy");
        }
    }
}
