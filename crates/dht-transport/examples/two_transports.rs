//! Two transports exchange a frame over TCP: `cargo run -p dht-transport --example two_transports`.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Address, AddressPolicy, Clock as _, Entropy as _, Features, ManualClock, Network, NodeIdentity,
    Priority, SecretKey, SeededEntropy, UnixSeconds,
};
use dht_peers::{Directory, PeerRecord};
use dht_stack::ByteBudget;
use dht_transport::{Config, Outlets, Transport};

/// One end of the conversation.
struct End {
    transport: Transport,
    outlets: Outlets,
    identity: Arc<NodeIdentity>,
    directory: Directory,
}

/// Time of the example. Outside of examples: `SystemClock` of dht-core.
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (alice, mut bob) = (start(1)?, start(2)?);
    let address = bob
        .transport
        .listen(&"/ip4/127.0.0.1/tcp/0".parse()?)
        .await?;
    println!("bob listens on {address}");

    // Alice finds the key and the address of Bob in her directory.
    let record = PeerRecord::seed(*bob.identity.public_key(), Features::NODE, [address], NOW);
    alice.directory.add_or_update(record, NOW);
    let to = bob.identity.node_id();
    let delivery = alice
        .transport
        .send(to, Bytes::from_static(b"hello"), Priority::Direct)?;

    let message = bob.outlets.messages.recv().await.ok_or("bob stopped")?;
    println!(
        "bob received {:?} from {}",
        message.frame, message.source.node_id
    );
    assert_eq!(message.frame, "hello");
    assert_eq!(message.source.public_key, *alice.identity.public_key());
    delivery.await?;
    println!("the socket of alice took the whole message");
    Ok(())
}

fn start(seed: u64) -> Result<End, Box<dyn std::error::Error>> {
    let clock = Arc::new(ManualClock::new(NOW));
    // Outside of examples: `OsEntropy` of dht-core.
    let entropy = Arc::new(SeededEntropy::new(seed));
    let mut rng = entropy.rng();
    let addresses: Vec<Address> = vec!["/ip4/127.0.0.1/tcp/18189".parse()?];
    let secret = SecretKey::random(&mut rng);
    let identity = NodeIdentity::new(secret, Features::NODE, addresses, clock.now(), &mut rng);
    let identity = Arc::new(identity);
    let directory = Directory::new(*identity.node_id());
    let mut config = Config::default();
    // Peers on the same machine claim loopback addresses.
    config.identity.addresses = AddressPolicy { allow_test: true };
    let budget = ByteBudget::new(64 * 1024 * 1024);
    let network = Network::LocalNet;
    let (transport, outlets) =
        Transport::builder(Arc::clone(&identity), network, entropy, clock, budget)
            .config(config)
            .directory(directory.clone())
            .user_agent("example/1")
            .start()?;
    Ok(End {
        transport,
        outlets,
        identity,
        directory,
    })
}
