//! The application's say about gossip, the attribution profile, and what a node tells about drops.

use dht_core::{Destination, DropReason, NodeId, SendParams};
use dht_node::{Acceptance, AttributionProfile, Event, EventStream, Node, Received};

use crate::net::{
    builder, connect, fixed_config, fixed_node, message, node, receive, send, until, within,
};

async fn gossip(from: &Node, text: &'static str) {
    let params = SendParams::builder()
        .with_destination(Destination::Unknown)
        .force_origin();
    let params = params.flood(Vec::<NodeId>::new()).finish();
    within(from.request(params, message(text))).await.unwrap();
}

async fn next_drop(events: &mut EventStream) -> (NodeId, DropReason) {
    loop {
        if let Some(Event::Dropped { from, reason }) = within(events.recv()).await {
            return (from, reason);
        }
    }
}

fn by_text(gossip: Received) -> impl Future<Output = Acceptance> {
    let verdict = match &gossip.message.payload[..] {
        b"good" => Acceptance::Accept,
        b"boring" => Acceptance::Ignore,
        _ => Acceptance::Reject,
    };
    std::future::ready(verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_accepted_gossip_is_passed_on() {
    let author = fixed_node(1).await;
    let relay = builder(2).config(fixed_config(false));
    let relay = relay.gossip_validator(by_text).relay_gossip(true);
    let relay = within(relay.start()).await.unwrap();
    let reader = fixed_node(3).await;
    let (mut at_relay, mut at_reader) = (relay.subscribe(), reader.subscribe());
    let mut events = relay.events();
    connect(&author, &relay).await;
    connect(&relay, &reader).await;

    gossip(&author, "boring").await;
    let author_id = author.public_key().node_id();
    let refused = (author_id, DropReason::Refused);
    assert_eq!(next_drop(&mut events).await, refused);
    gossip(&author, "good").await;
    assert_eq!(receive(&mut at_relay).await.message, message("good"));
    let passed_on = receive(&mut at_reader).await;
    assert_eq!(passed_on.message, message("good"));
    assert_eq!(passed_on.sender, Some(*author.public_key()));
    assert_eq!(passed_on.via, relay.public_key().node_id());

    // Whoever signs what the application rejects is banned.
    gossip(&author, "bad").await;
    assert_eq!(next_drop(&mut events).await, refused);
    until(|| relay.peers().iter().all(|peer| peer.node_id != author_id)).await;
    assert_eq!(relay.stats().drops.of(DropReason::Refused), 2);
    // A message is counted once the application has taken it.
    until(|| (relay.stats().delivered, reader.stats().delivered) == (1, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_message_skips_the_validator() {
    let alice = node(1).await;
    let bob = builder(2).gossip_validator(|_| std::future::ready(Acceptance::Reject));
    let bob = within(bob.start()).await.unwrap();
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    within(send(&alice, bob.public_key(), message("hello")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("hello"));
}

/// An application that never answers loses the message, not the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_verdict_ignores_the_message() {
    let author = node(1).await;
    let slow = builder(2)
        .gossip_validator(|_| std::future::pending())
        .validation_deadline(std::time::Duration::from_millis(1));
    let slow = within(slow.start()).await.unwrap();
    let mut events = slow.events();
    connect(&author, &slow).await;
    gossip(&author, "anything").await;
    let (from, reason) = next_drop(&mut events).await;
    assert_eq!(
        (from, reason),
        (author.public_key().node_id(), DropReason::Refused)
    );
    assert_eq!(slow.stats().delivered, 0);
}

/// The profile is a setting: a forged signature gets the one who delivers it banned in the legacy profile only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_profile_bans_forgery_deliverer() {
    use dht_core::Clock as _;
    use dht_tests::load::{Kind, Peer, Traffic};
    for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
        let judge = within(builder(1).attribution(profile).start())
            .await
            .unwrap();
        let mut events = judge.events();
        let peer = within(Peer::connect(9, &judge.peer_address(), drop))
            .await
            .unwrap();
        let secret = peer.identity().secret_key();
        let expires = dht_node::SystemClock.now().saturating_add(3_600);
        let mut traffic = Traffic::new(9, secret, judge.public_key(), expires).unwrap();
        let mut junk = std::iter::from_fn(|| Some(traffic.next_message()))
            .filter_map(|(kind, frame)| (kind == Kind::Junk).then_some(frame));
        let frames = [junk.next().unwrap(), junk.next().unwrap()];
        for frame in frames {
            // The second may find the connection cut.
            let _sent = peer.send(frame).unwrap();
        }
        loop {
            if next_drop(&mut events).await.1 == DropReason::BadSignature {
                break;
            }
        }
        if profile == AttributionProfile::Legacy {
            until(|| !peer.is_connected()).await;
        } else {
            assert!(peer.is_connected());
            let banned = judge
                .directory()
                .is_banned(peer.identity().node_id(), dht_node::SystemClock.now());
            assert!(!banned);
        }
    }
}
