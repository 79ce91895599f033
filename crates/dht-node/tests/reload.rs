//! Settings that change while the node runs.

use dht_core::{Entropy as _, SecretKey, SeededEntropy, test_util::public_key};
use dht_node::{Config, Node};

#[tokio::test]
async fn listed_peers_are_banned_while_listed() {
    let secret = SecretKey::random(&mut SeededEntropy::new(1).rng());
    let (first, second) = (public_key(2), public_key(3));
    let with = |banned| Config {
        banned,
        listen: vec![],
        ..Config::default()
    };
    let start = Node::builder(secret).config(with(vec![first])).start();
    let node = start.await.unwrap();
    let banned = || {
        let bans = node.directory().banned(dht_core::UnixSeconds(0));
        bans.iter().map(|ban| ban.node_id).collect::<Vec<_>>()
    };
    assert_eq!(banned(), [first.node_id()]);
    let mut read = with(vec![second]);
    read.transport.max_connections = 7;
    read.memory_mib = 1;
    node.reload(&read).unwrap();
    assert_eq!(banned(), [second.node_id()]);
    let config = node.config();
    assert_eq!(config.banned, [second]);
    assert_eq!(config.transport.max_connections, 7);
    assert_eq!(
        config.memory_mib,
        Config::default().memory_mib,
        "needs a restart"
    );

    let mut wrong = with(vec![first]);
    wrong.transport.max_connections = 0;
    let error = node.reload(&wrong).unwrap_err();
    assert_eq!(error.key(), "transport.max_connections");
    assert_eq!(banned(), [second.node_id()], "nothing changes");
    assert_eq!(node.config().banned, [second]);
    node.shutdown().await;
}
