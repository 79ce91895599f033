//! The peer-sync service of a node, asked over a connection.

use std::{net::Ipv4Addr, sync::Arc};

use dht_core::{
    Address, Entropy as _, Features, Network, NodeIdentity, SeededEntropy, SharedClock,
};
use dht_node::{Config, Node, OsEntropy, SystemClock};
use dht_overlay::sync::{PEER_SYNC_PROTOCOL, PeerSyncClient};
use dht_stack::ByteBudget;
use dht_transport::{Connection, Outlets, Transport};

use crate::net::{any_port, secret, until, within};

/// A peer of a node, without a node of its own, and its connection.
struct Peer {
    connection: Arc<Connection>,
    _running: (Transport, Outlets),
}

async fn connect(seed: u8, node: &Node) -> Peer {
    let clock: SharedClock = Arc::new(SystemClock);
    let claimed = vec![Address::tcp(
        Ipv4Addr::LOCALHOST.into(),
        18_000 + u16::from(seed),
    )];
    let mut rng = SeededEntropy::new(1).rng();
    let now = clock.now();
    let identity = NodeIdentity::new(secret(seed), Features::NODE, claimed, now, &mut rng);
    let (transport, outlets) = Transport::builder(
        Arc::new(identity),
        Network::LocalNet,
        Arc::new(OsEntropy),
        clock,
        ByteBudget::new(16 << 20),
    )
    .start()
    .unwrap();
    let address = node.peer_address();
    let dial = transport.dial(&address.public_key, &address.addresses);
    let connection = within(dial).await.unwrap();
    let id = secret(seed).public_key().node_id();
    // The node enters the peer a moment after the peer has the connection.
    until(|| node.peers().iter().any(|peer| peer.node_id == id)).await;
    Peer {
        connection,
        _running: (transport, outlets),
    }
}

async fn node(seed: u8, features: Features) -> Node {
    let config = Config {
        listen: vec![any_port()],
        ..Config::default()
    };
    let node = Node::builder(secret(seed))
        .config(config)
        .features(features);
    within(node.start()).await.unwrap()
}

/// Behaviour of a stock node as soon as it has connected.
#[tokio::test]
async fn nodes_tell_of_connected_peers() {
    let node = node(1, Features::NODE).await;
    let _told_of = connect(2, &node).await;
    let asks = connect(3, &node).await;
    assert!(
        asks.connection
            .info()
            .protocols
            .contains(&PEER_SYNC_PROTOCOL)
    );
    let stream = within(asks.connection.open(&PEER_SYNC_PROTOCOL))
        .await
        .unwrap();
    let mut client = within(PeerSyncClient::connect(stream)).await.unwrap();
    for round in 0..2 {
        let mut peers = if round == 0 {
            within(client.peers(100, false)).await.unwrap()
        } else {
            within(client.closer_peers(None, 20, &[], false))
                .await
                .unwrap()
        };
        let peer = within(peers.next()).await.unwrap().unwrap();
        assert_eq!(peer.public_key, secret(2).public_key());
        assert_eq!(peer.claims.len(), 1);
        // Not of the peer that asks.
        assert_eq!(within(peers.next()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn clients_do_not_announce_peer_sync() {
    let client = node(1, Features::CLIENT).await;
    let peer = connect(2, &client).await;
    assert!(
        !peer
            .connection
            .info()
            .protocols
            .contains(&PEER_SYNC_PROTOCOL)
    );
}
