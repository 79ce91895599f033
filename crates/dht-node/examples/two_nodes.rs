//! Two nodes on loopback TCP, and an encrypted message from one to the other:
//! `cargo run -p dht-node --no-default-features --features tcp --example two_nodes`

use std::error::Error;

use dht_core::{Entropy as _, SecretKey};
use dht_node::{Message, Node, OsEntropy, SendOptions, StateKind};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = || SecretKey::random(&mut OsEntropy.rng());
    // Port 0 takes any free port; a node without an address to listen on only dials.
    let bob = Node::builder(key())
        .listen("/ip4/127.0.0.1/tcp/0".parse()?)
        .start()
        .await?;
    let alice = Node::builder(key()).start().await?;
    let mut inbox = bob.subscribe();

    // Bob's key and addresses in one string, `KEY::ADDRESS`, are all that Alice needs.
    let bobs_address = bob.peer_address();
    println!("bob is {bobs_address}");
    alice.add_peer(&bobs_address);
    let message = Message {
        message_type: 1,
        payload: "hello".into(),
    };
    let to = &bobs_address.public_key;
    let mut delivery = alice.send(to, message, SendOptions::default()).await?;
    delivery.wait(StateKind::Sent).await?;

    let received = inbox.recv().await.ok_or("bob stopped")?;
    assert_eq!(received.sender.as_ref(), Some(alice.public_key()));
    println!("bob received {:?}", received.message.payload);
    alice.shutdown().await;
    bob.shutdown().await;
    Ok(())
}
