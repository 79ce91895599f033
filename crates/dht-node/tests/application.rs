//! Effects of the application on the node.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::Ipv4Addr, time::Duration};

use dht_core::{Address, Destination, DropReason, Entropy as _, SecretKey, SeededEntropy};
use dht_node::{Acceptance, Builder, Config, Message, Node, Received, Subscription};
use tokio::time::{interval, timeout};

/// Far beyond what any step takes: only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);

fn builder(seed: u64) -> Builder {
    let config = Config {
        listen: vec![Address::tcp(Ipv4Addr::LOCALHOST.into(), 0)],
        ..Config::default()
    };
    Node::builder(SecretKey::random(&mut SeededEntropy::new(seed).rng())).config(config)
}

async fn until(mut reached: impl FnMut() -> bool) {
    let mut looks = interval(Duration::from_millis(1));
    let reaching = async {
        while !reached() {
            looks.tick().await;
        }
    };
    timeout(LIMIT, reaching).await.unwrap();
}

async fn connect(from: &Node, to: &Node) {
    from.connect(&to.peer_address()).await.unwrap();
    until(|| !from.peers().is_empty() && !to.peers().is_empty()).await;
}

fn message(text: &'static str) -> Message {
    Message::new(1, text.as_bytes())
}

async fn receive(inbox: &mut Subscription) -> Received {
    timeout(LIMIT, inbox.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn own_messages_leave_for_nobody() {
    let (alice, bob) = (
        builder(1).start().await.unwrap(),
        builder(2).start().await.unwrap(),
    );
    connect(&alice, &bob).await;
    let (mut own, mut inbox) = (alice.subscribe(), bob.subscribe());
    let to_self = Destination::PublicKey(*alice.public_key());
    let sending = alice.propagate(to_self, message("note"), vec![]);
    // Without a home, a message is delivered once its application has taken it.
    let (sent, received) = tokio::join!(timeout(LIMIT, sending), async {
        let received = receive(&mut own).await;
        own.ack().await;
        received
    });
    assert_eq!((received.message, received.sender), (message("note"), None));
    assert!(sent.unwrap().unwrap().wait_single().await);
    alice.broadcast(message("last"), vec![]).await.unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("last"));
    for node in [alice, bob] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn panicking_validator_costs_its_message() {
    let alice = builder(1).start().await.unwrap();
    let bob = builder(2)
        .gossip_validator(|received: Received| async move {
            assert!(received.message != message("poison"), "a test");
            Acceptance::Accept
        })
        .start()
        .await
        .unwrap();
    connect(&alice, &bob).await;
    let mut inbox = bob.subscribe();
    for text in ["poison", "sound"] {
        alice.broadcast(message(text), vec![]).await.unwrap();
    }
    assert_eq!(receive(&mut inbox).await.message, message("sound"));
    until(|| bob.stats().drops.of(DropReason::Panicked) == 1).await;
    assert!(bob.failures().is_empty());
    for node in [alice, bob] {
        node.shutdown().await;
    }
}

/// A subscriber that panics over a message has not acked it: the next one gets it again.
#[cfg(feature = "spool")]
#[tokio::test]
async fn panicking_subscriber_loses_no_message() {
    let home = tempfile::tempdir().unwrap();
    let alice = builder(1).start().await.unwrap();
    let bob = builder(2).home(home.path()).start().await.unwrap();
    connect(&alice, &bob).await;
    let mut inbox = bob.subscribe();
    let subscriber = tokio::spawn(async move {
        receive(&mut inbox).await;
        panic!("a test");
    });
    alice.broadcast(message("hello"), vec![]).await.unwrap();
    assert!(timeout(LIMIT, subscriber).await.unwrap().is_err());
    assert_eq!(
        receive(&mut bob.subscribe()).await.message,
        message("hello")
    );
    assert!(bob.failures().is_empty());
    for node in [alice, bob] {
        node.shutdown().await;
    }
}
