//! Choice of the peers to ask, and the end of asking: rows SF-37 to SF-40.

use dht_core::{Features, test_util};
use dht_saf::{Config, FetchSummary, SafEvent};

use crate::world::{ME, NODE, NOW, OTHER, World, for_me, peer};

pub(crate) fn world() -> World {
    World::new(Config::default())
}

fn received(world: &mut World) -> usize {
    let events = world.events().into_iter();
    events.filter(|event| *event == SafEvent::Received).count()
}

pub(crate) fn summaries(world: &mut World) -> Vec<FetchSummary> {
    let events = world.events().into_iter();
    events
        .filter_map(|event| match event {
            SafEvent::CaughtUp(summary) => Some(summary),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn sf37_answers_before_going_online_count() {
    let mut world = world();
    world.exchange(vec![]).await;
    assert_eq!(received(&mut world), 0);
    world.saf.online(1);
    assert_eq!(received(&mut world), 1);
    world.exchange(vec![]).await;
    world.saf.online(1);
    assert_eq!(received(&mut world), 0, "once in a run");
}

#[tokio::test]
async fn sf38_only_first_time_online_counts() {
    let mut world = world();
    world.saf.online(2);
    world.exchange(vec![]).await;
    world.saf.online(1);
    assert_eq!(received(&mut world), 0);
    world.exchange(vec![]).await;
    assert_eq!(received(&mut world), 1);
}

#[tokio::test]
async fn sf39_only_storing_peers_are_asked() {
    let world = world();
    world.saf.listen();
    for features in [Features::CLIENT, Features::MESSAGE_PROPAGATION] {
        let peer = world.connect(NODE, features);
        world.saf.connected(&peer);
    }
    assert!(world.node.sent.lock().is_empty());
    // Neither is one that is not in the directory.
    world.saf.connected(&peer(OTHER, Features::NODE));
    assert!(world.node.sent.lock().is_empty());
    let peer = world.connect(10, Features::NODE);
    world.saf.connected(&peer);
    assert_eq!(world.node.sent.lock().len(), 1);
    let request = world.last_request().unwrap();
    assert_eq!((request.since, request.limit), (0, 50));
    assert_ne!(request.request_id, 0);
}

#[tokio::test]
async fn sf40_few_peers_are_all_asked() {
    let world = World::new(Config {
        auto_request_closest: 6,
        ..Config::default()
    });
    world.saf.listen();
    for seed in 10..13 {
        let peer = world.connect(seed, Features::NODE);
        world.saf.connected(&peer);
    }
    assert_eq!(world.node.sent.lock().len(), 3);
    // With more, only the closest are.
    for seed in 13..40 {
        world.connect(seed, Features::NODE);
    }
    let mut peers: Vec<_> = (10..40).map(|seed| peer(seed, Features::NODE)).collect();
    peers.sort_by_key(|it| world.identity.node_id().distance(&it.node_id));
    for (at, peer) in peers.iter().enumerate() {
        world.node.sent.lock().clear();
        world.saf.connected(peer);
        assert_eq!(world.node.sent.lock().len(), usize::from(at < 6), "{at}");
    }
}

#[tokio::test]
async fn auto_request_off_asks_no_peer() {
    let world = World::new(Config {
        auto_request: false,
        ..Config::default()
    });
    world.saf.listen();
    let peer = world.connect(NODE, Features::NODE);
    world.saf.connected(&peer);
    assert!(world.node.sent.lock().is_empty());
    assert_eq!(world.saf.request_from_random_peers(), 1);
}

#[tokio::test]
async fn listen_waits_for_all_connected_peers() {
    let mut world = world();
    let mut ids = Vec::new();
    for seed in [NODE, OTHER] {
        world.connect(seed, Features::NODE);
    }
    world.saf.listen();
    for sent in world.node.sent.lock().iter() {
        let request: dht_proto::store_forward::StoredMessagesRequest =
            dht_proto::decode(sent.part.clone()).unwrap();
        ids.push((sent.to, request.request_id));
    }
    for seed in [NODE, OTHER] {
        assert_eq!(received(&mut world), 0);
        let key = test_util::public_key(seed);
        let (_, id) = ids.iter().find(|(to, _)| *to == key).unwrap();
        world.answer(seed, *id, vec![]).await;
    }
    assert_eq!(received(&mut world), 1);
}

#[tokio::test]
async fn limit_of_zero_asks_for_one() {
    let world = World::new(Config {
        max_returned: 0,
        ..Config::default()
    });
    assert_eq!(world.request(NODE).limit, 1);
    world.exchange(vec![for_me(1, NOW.0 - 9)]).await;
    assert!(world.bans().is_empty());
    assert_eq!(world.passed().len(), 1);
}

#[tokio::test]
async fn no_peer_is_asked_before_listen() {
    let mut world = world();
    let first = world.connect(NODE, Features::NODE);
    world.saf.connected(&first);
    assert!(world.node.sent.lock().is_empty());
    world.saf.listen();
    assert_eq!(world.node.sent.lock().len(), 1);
    world.saf.listen();
    assert_eq!(world.node.sent.lock().len(), 1, "once");
    let id = world.last_request().unwrap().request_id;
    world.answer(NODE, id, vec![]).await;
    assert_eq!(received(&mut world), 1);
}

#[tokio::test]
async fn summary_comes_after_the_last_response() {
    let mut world = world();
    let ids: Vec<u32> = [NODE, OTHER, 6]
        .map(|it| world.request(it).request_id)
        .into();
    let both = || vec![for_me(1, NOW.0 - 9), for_me(2, NOW.0 - 8)];
    world.answer(NODE, ids[0], both()).await;
    world
        .answer(OTHER, ids[1], [both(), vec![for_me(3, NOW.0)]].concat())
        .await;
    assert_eq!(summaries(&mut world), []);
    assert!(world.saf.is_fetching());
    // The third says nothing.
    world.clock.advance(30);
    world.saf.tick().await;
    assert_eq!(summaries(&mut world), []);
    world.clock.advance(1);
    world.saf.tick().await;
    let expected = FetchSummary {
        asked: 3,
        answered: 2,
        silent: 1,
        new: 3,
        known: 2,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [expected]);
    assert!(!world.saf.is_fetching());
    assert_eq!(world.passed().len(), 3);
}

#[tokio::test]
async fn unreachable_peers_count_as_silent() {
    let mut world = world();
    world.request(NODE);
    let id = peer(NODE, Features::NODE).node_id;
    world
        .saf
        .disconnected(&id, Some(test_util::public_key(NODE).compressed()));
    let silent = FetchSummary {
        asked: 1,
        silent: 1,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [silent]);
    *world.node.full.lock() = true;
    assert!(world.saf.request_from(&peer(NODE, Features::NODE)).is_err());
    assert_eq!(summaries(&mut world), [silent]);
    (*world.node.full.lock(), *world.node.broken.lock()) = (false, true);
    world.saf.request_from(&peer(NODE, Features::NODE)).unwrap();
    assert_eq!(summaries(&mut world), [silent]);
}

#[tokio::test]
async fn full_page_is_followed_by_request() {
    let mut world = world();
    let id = world.request(NODE).request_id;
    let page = |from: u64, count: u64| -> Vec<_> {
        (from..from + count)
            .map(|n| for_me(n, NOW.0 - 500 + n))
            .collect()
    };
    world.answer(NODE, id, page(0, 50)).await;
    let next = world.last_request().unwrap();
    assert_eq!(next.since, NOW.0 - 500 + 49, "without a margin");
    assert_ne!(next.request_id, id);
    world.answer(NODE, next.request_id, page(49, 50)).await;
    let last = world.last_request().unwrap();
    world.answer(NODE, last.request_id, page(98, 3)).await;
    assert_eq!(
        world.last_request().unwrap(),
        last,
        "not full, so this was all"
    );
    let expected = FetchSummary {
        asked: 1,
        answered: 1,
        new: 101,
        known: 2,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [expected]);
}

/// A `since` would make a stock node delete what it stores for others, and it has no older page.
#[tokio::test]
async fn stock_nodes_are_asked_without_since() {
    let world = world();
    world.know(NODE, Features::NODE, []);
    let first = world.request(NODE);
    let page: Vec<_> = (0..50).map(|n| for_me(n, NOW.0 - 500 + n)).collect();
    world.answer(NODE, first.request_id, page).await;
    assert_eq!(world.passed().len(), 50);
    assert_eq!(world.last_request(), Some(first));
    assert_eq!(world.request(NODE).since, 0);
}

/// The application asks while the question of the connection is still open: the peer is asked once more in the end,
/// however often it did.
#[tokio::test]
async fn a_peer_asked_twice_finishes_both() {
    let mut world = world();
    let [first, ..] = [(); 50].map(|()| world.request(NODE).request_id);
    let page = |from: u64, count: u64| -> Vec<_> {
        (from..from + count)
            .map(|n| for_me(n, NOW.0 - 500 + n))
            .collect()
    };
    assert_eq!(world.node.sent.lock().len(), 1);
    world.answer(NODE, first, page(0, 50)).await;
    let second = world.last_request().unwrap();
    world.answer(NODE, second.request_id, page(49, 3)).await;
    assert_eq!(summaries(&mut world), []);
    let third = world.last_request().unwrap();
    assert_eq!(third.since, NOW.0 - 500 + 51 - 30, "with the margin");
    // Messages that have come since the first question.
    world.answer(NODE, third.request_id, page(51, 3)).await;
    let expected = FetchSummary {
        asked: 1,
        answered: 1,
        new: 54,
        known: 2,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [expected]);
    assert_eq!(world.node.sent.lock().len(), 3);
}

#[tokio::test]
async fn newest_first_responder_is_asked_once() {
    let mut world = world();
    let id = world.request(NODE).request_id;
    let page = (0..50).rev().map(|n| for_me(n, NOW.0 - 500 + n)).collect();
    let before = world.node.sent.lock().len();
    world.answer(NODE, id, page).await;
    assert_eq!(world.node.sent.lock().len(), before);
    assert_eq!(summaries(&mut world).len(), 1);
}

#[tokio::test]
async fn a_repeated_page_ends_the_fetch() {
    let mut world = world();
    let page = || (0..50).map(|n| for_me(n, NOW.0 - 5)).collect::<Vec<_>>();
    let mut id = world.request(NODE).request_id;
    for _ in 0..9 {
        world.answer(NODE, id, page()).await;
        id = world.last_request().unwrap().request_id;
    }
    assert_eq!(world.node.sent.lock().len(), 2);
    assert_eq!(summaries(&mut world).len(), 1);
}

#[tokio::test]
async fn at_most_eight_peers_are_asked() {
    let world = world();
    for seed in 10..30 {
        world.connect(seed, Features::NODE);
    }
    world.connect(40, Features::CLIENT);
    assert_eq!(world.saf.request_from_random_peers(), 8);
    let sent = world.node.sent.lock();
    let mut asked: Vec<_> = sent.iter().map(|sent| sent.to).collect();
    asked.sort_by_key(|key| *key.as_bytes());
    asked.dedup();
    assert_eq!(asked.len(), 8, "each once");
    assert!(
        !asked.contains(&test_util::public_key(40)) && !asked.contains(&test_util::public_key(ME))
    );
}
