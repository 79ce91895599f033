use std::time::Duration;

use dht_api::{
    Limits, Parts,
    types::{ErrorCode, NewBan, NewGossip, NodeEventKind},
};
use tokio::time::{sleep, timeout};

use crate::served::{Served, key, node};

#[tokio::test]
async fn peers_are_reached_and_banned() {
    let served = Served::over(Parts::new(node().await), Limits::default()).await;
    let (client, bob) = (&served.client, node().await);
    let error = client.discover(bob.public_key()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NobodyConnected));

    let pong = client.ping(bob.peer_address().to_string()).await.unwrap();
    assert!(!pong.was_connected && pong.dial_micros.is_some());
    let pong = client.ping(bob.public_key().to_string()).await.unwrap();
    assert!(pong.was_connected && pong.dial_micros.is_none());
    let peers = client.peers(false, None).await.unwrap();
    assert_eq!(peers.peers.len(), 1);
    assert_eq!(peers.peers[0].public_key, *bob.public_key());
    assert!(peers.peers[0].is_connected);

    let mut received = bob.subscribe();
    let gossip = NewGossip {
        message_type: 3,
        text: Some("all".into()),
        payload: None,
    };
    assert_eq!(client.gossip(&gossip).await.unwrap().peers, 1);
    let received = timeout(Duration::from_secs(5), received.recv()).await;
    assert_eq!(received.unwrap().unwrap().message.payload, "all");

    let mut events = client.events();
    let banning = async {
        // The stream is open before the ban.
        sleep(Duration::from_millis(300)).await;
        let ban = NewBan {
            peer: bob.public_key().to_string(),
            seconds: Some(60),
            reason: Some("a\r\nb".into()),
        };
        client.ban(&ban).await.unwrap()
    };
    let (event, banned) = tokio::join!(timeout(Duration::from_secs(5), events.next()), banning);
    assert_eq!(banned.bans[0].reason, "a\r\nb");
    let NodeEventKind::Banned { ban } = event.unwrap().unwrap().unwrap().kind else {
        panic!("another event");
    };
    assert_eq!(*ban, banned.bans[0]);
    assert_eq!(client.bans().await.unwrap().bans, banned.bans);
    while !client.peers(false, None).await.unwrap().peers.is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(client.peers(true, None).await.unwrap().peers[0].is_banned);

    let id = bob.public_key().node_id().to_string();
    assert!(client.lift_ban(&id).await.unwrap().changed);
    assert!(!client.lift_ban(&id).await.unwrap().changed);
    let error = client.lift_ban("zz").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadRequest));
}

#[tokio::test]
async fn an_unreachable_peer_is_told() {
    let served = Served::start().await;
    let nobody = format!("{}::/ip4/127.0.0.1/tcp/1", key());
    let error = served.client.ping(nobody).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::PeerFailed));
    let error = served.client.ping("x").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadRequest));
}

#[tokio::test]
async fn the_status_is_the_node() {
    let served = Served::start().await;
    served.receive([b"x".to_vec()]).await;
    let status = served.client.status().await.unwrap();
    assert_eq!(status.public_key, *served.parts.node.public_key());
    assert_eq!((status.network.as_str(), status.ready), ("localnet", true));
    assert_eq!(status.inbox.unwrap().messages, 1);
    let store = served.client.store().await.unwrap();
    assert_eq!((store.inbox, store.outbox), (status.inbox, status.outbox));
    let config = served.client.config().await.unwrap().config;
    assert_eq!(config["network"], "localnet");
    let error = served.client.fetch().await.unwrap_err();
    assert!(error.code().is_some());
}
