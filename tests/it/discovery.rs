//! Nodes that find and announce each other, and messages that pass through several of them.

use std::sync::Arc;

use dht_core::{Destination, Encryption, Features, SendParams, Strategy};
use dht_node::{Node, SendError, SendOptions, SendState, StateKind, Subscription};
use dht_outbound::SearchError;

use crate::net::{
    builder, connect, fixed_config, fixed_node, is_connected, message, node, receive, secret, send,
    until, within,
};

/// Nodes with these seeds, each connected to the next. They look nobody up: discoveries find peers.
async fn chain<const N: usize>(seeds: [u8; N]) -> [Node; N] {
    let mut nodes = Vec::new();
    for seed in seeds {
        let mut config = fixed_config(false);
        config.lookups = false;
        nodes.push(within(builder(seed).config(config).start()).await.unwrap());
    }
    for pair in nodes.windows(2) {
        connect(&pair[0], &pair[1]).await;
    }
    nodes.try_into().unwrap()
}

fn knows(node: &Node, peer: &Node) -> bool {
    node.directory().find_by_key(peer.public_key()).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_to_unknown_key_finds_recipient() {
    let [alice, bob, carol] = chain([1, 2, 3]).await;
    let mut inbox = carol.subscribe();
    assert!(!knows(&alice, &carol));
    within(send(&alice, carol.public_key(), message("found you")))
        .await
        .unwrap();
    let received = receive(&mut inbox).await;
    assert_eq!(received.message, message("found you"));
    assert_eq!(received.sender, Some(*alice.public_key()));
    assert_eq!(
        received.via,
        alice.public_key().node_id(),
        "the message itself takes no detour"
    );
    assert!(knows(&alice, &carol) && knows(&carol, &alice));
    assert_eq!(bob.stats().delivered, 0, "relays read nothing");
    // A second message needs no search.
    within(send(&alice, carol.public_key(), message("again")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("again"));
    until(|| bob.stats().forwarded == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b123_dp09_client_is_found_through_chain() {
    let [a, b, c] = chain([1, 2, 3]).await;
    let d = within(builder(4).features(Features::CLIENT).start())
        .await
        .unwrap();
    connect(&d, &c).await;
    within(a.discover(d.public_key())).await.unwrap();
    let found = a.directory().find_by_key(d.public_key()).unwrap();
    assert_eq!(found.features(), Features::CLIENT);
    assert!(knows(&d, &a));
    assert!(knows(&a, &b) && knows(&b, &a) && knows(&b, &c) && knows(&c, &b));
    assert!(knows(&c, &d) && knows(&d, &c));
    // Nodes that pass a discovery on cannot read it.
    assert!(!knows(&b, &d) && !knows(&c, &a));
}

/// No node passes a discovery on: each is asked for nodes closer to the one that is sought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_needs_no_forwarding() {
    let mut nodes = Vec::new();
    for seed in 1..=4 {
        let mut config = fixed_config(false);
        config.forward = false;
        nodes.push(within(builder(seed).config(config).start()).await.unwrap());
    }
    for pair in nodes.windows(2) {
        connect(&pair[0], &pair[1]).await;
    }
    let [a, _, c, d] = &nodes[..] else {
        unreachable!()
    };
    let mut inbox = d.subscribe();
    assert!(!knows(a, c) && !knows(a, d));
    within(send(a, d.public_key(), message("asked around")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("asked around"));
}

/// Nobody answers at the only address that is known of a recipient. It is searched for, while a holder stores the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moved_recipient_is_searched_for() {
    let (alice, carol, bob) = (
        fixed_node(1).await,
        fixed_node(2).await,
        fixed_node(3).await,
    );
    connect(&alice, &carol).await;
    connect(&bob, &carol).await;
    let gone = format!("{}::/ip4/127.0.0.1/tcp/1", bob.public_key());
    alice.add_peer(&gone.parse().unwrap());
    let options = SendOptions::default();
    let sent = within(alice.send(bob.public_key(), message("you moved"), options)).await;
    let mut inbox = bob.subscribe();
    // Nobody else connects the two.
    until(|| is_connected(&alice, &bob)).await;
    assert_eq!(receive(&mut inbox).await.message, message("you moved"));
    let received = within(sent.unwrap().wait(StateKind::Received)).await;
    assert_eq!(received, Ok(SendState::Received));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hopeless_searches_end_with_cause() {
    let [alice, bob] = chain([1, 2]).await;
    assert!(matches!(
        within(alice.discover(alice.public_key())).await,
        Err(SearchError::CannotDiscoverThisNode)
    ));
    assert!(matches!(
        within(alice.dial_or_discover(alice.public_key())).await,
        Err(SearchError::CannotDiscoverThisNode)
    ));

    // Nobody to ask: no two minutes of waiting.
    let lonely = node(3).await;
    let nobody = secret(9).public_key();
    let Err(SearchError::NotSent(cause)) = within(lonely.discover(&nobody)).await else {
        panic!("nothing can be sent")
    };
    assert_eq!(cause, SendError::NobodySelected);
    let sent = within(send(&lonely, &nobody, message("x"))).await;
    let error = sent.unwrap_err();
    assert!(error.starts_with("recipient not found"), "{error}");
    assert!(matches!(
        within(lonely.join()).await,
        Err(SendError::NobodySelected)
    ));

    // Somebody to ask, but no time.
    let hasty = within(builder(4).discovery_seconds(1).start())
        .await
        .unwrap();
    connect(&hasty, &bob).await;
    assert!(matches!(
        within(hasty.discover(&nobody)).await,
        Err(SearchError::TimedOut)
    ));
    let sent = within(send(&hasty, &nobody, message("x"))).await;
    let error = sent.unwrap_err();
    assert!(error.starts_with("recipient not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn found_peer_is_dialled() {
    let [alice, _bob, carol] = chain([1, 2, 3]).await;
    within(alice.dial_or_discover(carol.public_key()))
        .await
        .unwrap();
    until(|| is_connected(&alice, &carol) && is_connected(&carol, &alice)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b122_dp10_join_introduces_joiner_on_path() {
    let [a, b, c] = chain([1, 2, 3]).await;
    assert!(!knows(&c, &a));
    let states = within(a.join()).await.unwrap();
    assert_eq!(states.len(), 1);
    until(|| knows(&c, &a)).await;
    let joiner = c.directory().find_by_key(a.public_key()).unwrap();
    assert_eq!(joiner.features(), Features::NODE);
    assert_eq!(joiner.claim().unwrap().addresses, a.listen_addresses());
    assert!(knows(&b, &a));
    // The application gets no join.
    let delivered = [&a, &b, &c].map(|node| node.stats().delivered);
    assert_eq!(delivered, [0; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b125_two_paths_deliver_once() {
    let [a, b, c, d] = chain([1, 2, 3, 4]).await;
    connect(&a, &c).await;
    let mut inbox = d.subscribe();
    let params = SendParams::builder()
        .propagate(Destination::PublicKey(*d.public_key()), vec![])
        .with_destination(Destination::PublicKey(*d.public_key()))
        .with_encryption(Encryption::EncryptFor(*d.public_key()))
        .finish();
    let states = within(a.request(params, message("once"))).await.unwrap();
    assert_eq!(states.len(), 2, "to both connected peers");
    let received = receive(&mut inbox).await;
    assert_eq!(received.message, message("once"));
    assert_eq!(received.sender, Some(*a.public_key()));
    assert_eq!(received.via, c.public_key().node_id());

    // C has got its second copy, the one by way of B: there is no more to come.
    until(|| c.stats().duplicates_dropped == 1).await;
    within(send(&c, d.public_key(), message("end")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("end"));
    until(|| d.stats().delivered == 2).await;
    let copies_too_many = [&a, &b, &d].map(|node| node.stats().duplicates_dropped);
    assert_eq!(copies_too_many, [0; 3]);
}

/// An undirected message goes round as often as the limit of rebroadcasts allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b127_undirected_message_circulates_to_limit() {
    // All with one clock, so that the copies they send are equal to the last byte.
    let clock = crate::net::clock();
    let start = |seed| {
        let clock = Arc::clone(&clock);
        within(
            builder(seed)
                .allowed_occurrences(3)
                .clock(clock as _)
                .start(),
        )
    };
    let (a, b, c) = (
        start(1).await.unwrap(),
        start(2).await.unwrap(),
        start(3).await.unwrap(),
    );
    connect(&a, &b).await;
    connect(&b, &c).await;
    connect(&c, &a).await;
    let nodes = [&a, &b, &c];
    let mut inboxes: Vec<Subscription> = nodes.iter().map(|node| node.subscribe()).collect();
    let id = |at: usize| nodes[at % 3].public_key().node_id();

    // From A, one step at a time: each passes it on to the next, not back to where it came from.
    for step in 0..8 {
        let exclude = vec![id(step + 2)];
        let sent = nodes[step % 3].propagate(Destination::Unknown, message("round"), exclude);
        let states = within(sent).await.unwrap();
        assert_eq!(states.len(), 1, "step {step}");
        let to = (step + 1) % 3;
        let received = receive(&mut inboxes[to]).await;
        assert_eq!(received.message, message("round"), "step {step}");
        assert_eq!(received.via, id(step), "step {step}");
    }

    // B, C and A have had it three, three and two times, and A knows it sent it itself.
    within(nodes[2].propagate(Destination::Unknown, message("round"), vec![id(1)]))
        .await
        .unwrap();
    until(|| a.stats().duplicates_dropped == 1).await;
    assert_eq!(a.stats().delivered, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explained_selection_is_the_real_one() {
    let [alice, bob, carol] = chain([1, 2, 3]).await;
    let explained = |strategy: Strategy| bob.explain(&strategy).explain();
    let (to_alice, to_carol) = (alice.public_key().node_id(), carol.public_key().node_id());

    assert_eq!(
        explained(Strategy::Broadcast {
            exclude: vec![to_carol]
        }),
        format!("broadcast: 1 chosen\n  {to_alice}: connected node, drawn at random")
    );
    let towards = Strategy::Propagate {
        destination: Destination::PublicKey(*carol.public_key()),
        exclude: vec![],
    };
    assert_eq!(
        explained(towards.clone()),
        format!("propagate: 1 chosen\n  {to_carol}: the destination, connected")
    );
    let own = Strategy::DirectPublicKey(*bob.public_key());
    assert_eq!(
        explained(own),
        "direct_public_key: 0 chosen, this node itself left out"
    );
    let nobody = Strategy::DirectPublicKey(secret(9).public_key());
    assert!(bob.explain(&nobody).is_empty());

    // The explanation is true of the send.
    let mut inbox = carol.subscribe();
    let params = SendParams::builder()
        .strategy(towards)
        .with_destination(Destination::PublicKey(*carol.public_key()));
    let states = within(bob.request(params.finish(), message("x")))
        .await
        .unwrap();
    assert_eq!(states.len(), 1);
    assert_eq!(receive(&mut inbox).await.message, message("x"));
}
