use dht_api::{
    Limits, Parts,
    types::{ErrorCode, MAX_BAN_SECONDS, NewBan, NewGossip, NodeEventKind},
};
use dht_core::PeerAddress;
use tokio::time::sleep;

use crate::served::{LOOK_AGAIN, Served, key, node, until, within};

/// Pages of two peers, each begun after the last of the page before.
#[tokio::test]
async fn all_peers_are_listed_in_pages() {
    let node = node().await;
    let mut known = Vec::new();
    for _ in 0..5 {
        let peer = PeerAddress {
            public_key: key(),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()],
        };
        node.add_peer(&peer);
        known.push(peer.public_key.node_id());
    }
    known.sort_unstable();
    let served = Served::over(Parts::new(node), Limits::default()).await;
    let (mut listed, mut after) = (Vec::new(), None);
    for length in [2, 2, 1, 0] {
        let page = served.client.peers(true, after, Some(2)).await.unwrap();
        assert_eq!((page.peers.len(), page.known), (length, 5));
        listed.extend(page.peers.iter().map(|peer| peer.node_id));
        after = listed.last().copied();
    }
    assert_eq!(listed, known);
}

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
    let peers = client.peers(false, None, None).await.unwrap();
    assert_eq!(peers.peers.len(), 1);
    assert_eq!(peers.peers[0].public_key, *bob.public_key().compressed());
    assert!(peers.peers[0].is_connected);

    let mut received = bob.subscribe();
    let gossip = NewGossip {
        message_type: 3,
        text: Some("all".into()),
        payload: None,
    };
    assert_eq!(client.gossip(&gossip).await.unwrap().peers, 1);
    let received = within(received.recv()).await;
    assert_eq!(received.unwrap().message.payload, "all");

    let mut events = client.events();
    let ban = NewBan {
        peer: bob.public_key().to_string(),
        seconds: Some(60),
        reason: Some("a\r\nb".into()),
    };
    let mut banned = Vec::new();
    let mut told = std::pin::pin!(async {
        loop {
            if let NodeEventKind::Banned { ban } = events.next().await.unwrap().unwrap().kind {
                break ban;
            }
        }
    });
    // Bans again until the stream is open and tells of it.
    let banning = async {
        loop {
            banned.push(client.ban(&ban).await.unwrap().bans[0].clone());
            tokio::select! {
                ban = &mut told => break ban,
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    };
    let ban = within(banning).await;
    assert_eq!(ban.reason, "a\r\nb");
    let now = client.bans().await.unwrap().bans;
    assert_eq!((now.len(), now[0].reason.as_str()), (1, "a\r\nb"));
    assert!(banned.contains(&ban), "{ban:?} {banned:?}");
    until(async || {
        client
            .peers(false, None, None)
            .await
            .unwrap()
            .peers
            .is_empty()
    })
    .await;
    let all = client.peers(true, None, None).await.unwrap().peers;
    assert!(all[0].is_banned);
    let error = client.peers(true, Some(all[0].node_id), Some(0)).await;
    assert_eq!(error.unwrap_err().code(), Some(ErrorCode::BadRequest));

    let id = bob.public_key().node_id().to_string();
    assert!(client.lift_ban(&id).await.unwrap().changed);
    assert!(!client.lift_ban(&id).await.unwrap().changed);
    for seconds in [0, MAX_BAN_SECONDS + 1] {
        let ban = NewBan {
            peer: id.clone(),
            seconds: Some(seconds),
            reason: None,
        };
        let error = client.ban(&ban).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BadRequest));
        let text = error.to_string();
        assert_eq!(text, "`seconds` is not in the range 1 to 4294967295");
    }
    let error = client.lift_ban("zz").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadRequest));
}

#[tokio::test]
async fn an_unreachable_peer_is_told() {
    let served = Served::start().await;
    let nobody = format!("{}::/ip4/127.0.0.1/tcp/1", key());
    let error = served.client.ping(nobody).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::PeerFailed));
    let zeros = "0".repeat(64);
    let dead = format!("{}::/ip4/127.0.0.1/tcp/0", key());
    for peer in ["x", &zeros, &dead] {
        let error = served.client.ping(peer).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BadRequest), "{error}");
    }
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
