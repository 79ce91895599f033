//! The short-lived node of a command, while no other runs on the home.

use std::{path::Path, sync::Arc};

use dht_core::{Claim, Features, PublicKey};
use dht_node::Node;
use tempfile::TempDir;

use crate::{address, other, run_to, start_with, stop, texts, within};

/// Claim of another node that a node holds.
fn claim(held_by: &Node, key: &PublicKey) -> Arc<Claim> {
    let record = held_by.directory().find_by_key(key).unwrap();
    Arc::clone(record.claim().unwrap())
}

/// Sends from a home to a node of this process, which takes the message.
async fn send(home: &Path, to: &Node) {
    let mut inbox = to.subscribe();
    let address = to.peer_address().to_string();
    let send = [
        "send", "--to", &address, "--text", "hi", "--wait", "received",
    ];
    let taking = async {
        within(inbox.recv()).await.unwrap();
        inbox.ack().await;
    };
    tokio::join!(run_to(0, home, &send), taking);
}

/// Peers go on to reach the node of the home at the addresses that it signed.
#[tokio::test]
async fn a_send_keeps_the_claim() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let peer = b.peer_address().to_string();
    let variables = [
        ("DHT_NODE_PUBLIC_ADDRESSES", "/ip4/127.0.0.1/tcp/18888"),
        ("DHT_NODE_PEERS", &peer),
    ];
    let (node, _) = start_with(&a, &variables).await;
    run_to(0, &a, &["ping", &peer]).await;
    let (key, _) = run_to(0, &a, &["id", "--json"]).await;
    let key: serde_json::Value = serde_json::from_str(&key).unwrap();
    let key: PublicKey = key["public_key"].as_str().unwrap().parse().unwrap();
    // Known once its connection is.
    within(b.dial_or_discover(&key)).await.unwrap();
    let before = claim(&b, &key);
    assert_eq!(before.addresses[0].to_string(), "/ip4/127.0.0.1/tcp/18888");
    assert_eq!(before.features, Features::NODE);
    stop(node).await;

    send(&a, &b).await;
    let fetch = ["inbox", "fetch", "--peer", &peer];
    run_to(0, &a, &fetch).await;
    assert_eq!(claim(&b, &key).encode(), before.encode());
    // A node that never met this one gets the same.
    let c = other(3).await;
    send(&a, &c).await;
    assert_eq!(claim(&c, &key).encode(), before.encode());
    tokio::join!(b.shutdown(), c.shutdown());
}

#[tokio::test]
async fn a_new_home_sends_as_client() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    send(&a, &b).await;
    let key = address(&a).await.public_key;
    assert_eq!(claim(&b, &key).features, Features::CLIENT);
    b.shutdown().await;
}

/// A message that a short-lived node could not deliver is delivered by the next node on the home.
#[tokio::test]
async fn undelivered_messages_stay() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let peer = b.peer_address().to_string();
    run_to(0, &a, &["init"]).await;
    let config = std::fs::read_to_string(a.join("config.toml")).unwrap();
    let config = config.replace("peers = []", &format!("peers = [{peer:?}]"));
    std::fs::write(a.join("config.toml"), config).unwrap();

    // The recipient is not there; the configured peer stores the message.
    let absent = dir.path().join("absent");
    let to = address(&absent).await.public_key.to_string();
    let send = ["send", "--to", &to, "--text", "late"];
    let (_, error) = run_to(
        6,
        &a,
        &[&send[..], &["--wait", "received", "--timeout", "2"]].concat(),
    )
    .await;
    assert!(error.contains("stays in the outbox"), "{error}");

    let fetch = ["inbox", "fetch", "--peer", &peer, "--json"];
    let other = ["send", "--to", &to, "--text", "other", "--wait", "stored"];
    while !texts(&run_to(0, &absent, &fetch).await.0).contains(&"late".to_owned()) {
        // Another node on the home, for as long as it sends another message.
        run_to(0, &a, &other).await;
    }
    b.shutdown().await;
}
