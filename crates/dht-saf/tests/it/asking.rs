//! Choice of the peers to ask, and the end of asking: rows SF-37 to SF-40.

use std::sync::Arc;

use dht_core::{Disposition, DropReason, Features, MessageType, test_util};
use dht_proto::store_forward::StoredMessagesResponse;
use dht_saf::{Config, FetchSummary, SafEvent};
use tokio::sync::Semaphore;
use tower::{Layer as _, ServiceExt as _};

use crate::world::{Envelope, ME, NODE, NOW, OTHER, World, for_me, peer, protocol};

fn world() -> World {
    World::new(Config::default())
}

fn received(world: &mut World) -> usize {
    let events = world.events().into_iter();
    events.filter(|event| *event == SafEvent::Received).count()
}

fn summaries(world: &mut World) -> Vec<FetchSummary> {
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

/// A message that the inbox had no room for is neither noted nor read: the peer is asked at once for what is behind it, and in its
/// own time for it again.
#[tokio::test]
async fn refused_message_is_asked_for_again() {
    let mut world = world();
    let node = world.connect(NODE, Features::NODE);
    world.saf.listen();
    let first = world.last_request().unwrap();
    let page =
        |from: u64, to: u64| -> Vec<_> { (from..to).map(|n| for_me(n, NOW.0 - 500 + n)).collect() };
    *world.next.1.lock() = Some(30);
    world.answer(NODE, first.request_id, page(0, 50)).await;
    assert_eq!(world.passed().len(), 30);
    assert_eq!(world.saf.ledger().received(), 30);
    let read = Some(dht_core::UnixSeconds(NOW.0 - 500 + 29));
    assert_eq!(world.watermark(NODE), read);
    let behind = world.last_request().unwrap();
    assert!(behind.continued && behind.request_id != first.request_id);
    assert_eq!(behind.since, first.since, "which proves nothing");
    // Strangers have no more room; this one does.
    *world.next.1.lock() = None;
    world.answer(NODE, behind.request_id, page(50, 51)).await;
    assert_eq!(world.passed().len(), 1);
    assert_eq!(world.watermark(NODE), read, "of what was left behind");
    let left = FetchSummary {
        asked: 1,
        answered: 1,
        new: 31,
        left: 20,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [left]);

    world.saf.tick().await;
    assert_eq!(world.last_request().unwrap(), behind, "not at once");
    world.clock.advance(10);
    world.saf.tick().await;
    let again = world.last_request().unwrap();
    assert_eq!(again.since, NOW.0 - 500 + 29 - 30);
    assert!(!again.continued);
    world.answer(NODE, again.request_id, page(0, 50)).await;
    let next = world.last_request().unwrap();
    assert_eq!(
        (next.since, next.continued),
        (NOW.0 - 500 + 49, false),
        "all before it was taken"
    );
    world.answer(NODE, next.request_id, page(49, 60)).await;
    assert_eq!(world.passed().len(), 29);
    let rest = FetchSummary {
        asked: 1,
        answered: 1,
        new: 29,
        known: 32,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [rest]);
    // Nothing is left, so nothing is asked for.
    world.clock.advance(10_000);
    world.saf.tick().await;
    assert_eq!(world.last_request().unwrap(), next);
    drop(node);
}

/// A repetition asks for what was left, and then for what is new, not for all that lies between.
#[tokio::test]
async fn repetitions_skip_known_pages() {
    let world = world();
    let _node = world.connect(NODE, Features::NODE);
    world.saf.listen();
    let page =
        |from: u64, to: u64| -> Vec<_> { (from..to).map(|n| for_me(n, NOW.0 - 500 + n)).collect() };
    *world.next.1.lock() = Some(30);
    let first = world.last_request().unwrap();
    world.answer(NODE, first.request_id, page(0, 50)).await;
    *world.next.1.lock() = None;
    for (from, to) in [(50, 100), (100, 150), (150, 160)] {
        let behind = world.last_request().unwrap();
        assert_eq!((behind.since, behind.continued), (first.since, true));
        world.answer(NODE, behind.request_id, page(from, to)).await;
    }
    assert_eq!(world.passed().len(), 140);
    let read = world.watermark(NODE);

    *world.next.1.lock() = Some(0);
    world.clock.advance(10);
    world.saf.tick().await;
    let again = world.last_request().unwrap();
    assert_eq!(
        (again.since, again.continued),
        (NOW.0 - 500 + 29 - 30, false)
    );
    world.answer(NODE, again.request_id, page(0, 50)).await;
    let new = world.last_request().unwrap();
    assert_eq!((new.since, new.continued), (NOW.0 - 500 + 159 - 30, true));
    *world.next.1.lock() = None;
    world.answer(NODE, new.request_id, page(129, 162)).await;
    assert_eq!(world.passed().len(), 2);
    assert_eq!(world.last_request(), Some(new), "there is no more");
    assert_eq!(world.watermark(NODE), read, "of what was left behind");

    // There is room: nothing is skipped from here on.
    world.clock.advance(10);
    world.saf.tick().await;
    let again = world.last_request().unwrap();
    world.answer(NODE, again.request_id, page(0, 50)).await;
    assert_eq!(world.passed().len(), 20);
    let next = world.last_request().unwrap();
    assert_eq!((next.since, next.continued), (NOW.0 - 500 + 49, false));
}

/// An application that takes nothing at all is no reason to ask for more.
#[tokio::test]
async fn closed_inbox_ends_the_fetch() {
    for reason in [DropReason::NobodyListens, DropReason::InboxFailed] {
        let world = world();
        let first = world.request(NODE);
        let application = tower::service_fn(move |_: Envelope| async move {
            Ok::<_, tower::BoxError>(Disposition::Dropped(reason))
        });
        let response = StoredMessagesResponse {
            messages: (0..50).map(|n| for_me(n, NOW.0 - 500 + n)).collect(),
            request_id: first.request_id,
            response_type: 0,
        };
        let message = protocol(NODE, MessageType::SafStoredMessages, &response);
        let layer = world.saf.layer();
        let taken = layer.layer(application).oneshot(message).await.unwrap();
        assert_eq!(taken, Disposition::Answered);
        assert_eq!(world.last_request(), Some(first));
        let before = dht_core::UnixSeconds(NOW.0 - 501);
        assert_eq!(world.watermark(NODE), Some(before));
    }
}

/// Its `since` would make it delete, so a stock node is asked for a longer page instead.
#[tokio::test]
async fn stock_nodes_send_more_once() {
    let world = world();
    world.know(NODE, Features::NODE, []);
    let page = |from: u64, to: u64| -> Vec<_> {
        let numbers = (from..to).rev();
        numbers.map(|n| for_me(n, NOW.0 - 500 + n)).collect()
    };
    *world.next.1.lock() = Some(0);
    let first = world.request(NODE);
    world.answer(NODE, first.request_id, page(71, 121)).await;
    let more = world.last_request().unwrap();
    assert_eq!((more.since, more.limit, more.continued), (0, 1024, false));
    *world.next.1.lock() = Some(1);
    world.answer(NODE, more.request_id, page(0, 121)).await;
    assert_eq!(world.passed().len(), 1);
    assert!(world.bans().is_empty());
    assert_eq!(world.last_request(), Some(more), "no longer one");
}

/// When the application acks, what it had no room for comes soon, however long it had none.
#[tokio::test]
async fn room_ends_the_wait() {
    let world = world();
    let _node = world.connect(NODE, Features::NODE);
    world.saf.listen();
    *world.next.1.lock() = Some(0);
    for _ in 0..6 {
        let request = world.last_request().unwrap();
        let left = vec![for_me(1, NOW.0 - 9)];
        world.answer(NODE, request.request_id, left).await;
        world.clock.advance(640);
        world.saf.tick().await;
    }
    let request = world.last_request().unwrap();
    let left = vec![for_me(1, NOW.0 - 9)];
    world.answer(NODE, request.request_id, left).await;
    world.clock.advance(10);
    world.saf.tick().await;
    assert_eq!(world.last_request(), Some(request));
    world.saf.room_made();
    world.saf.tick().await;
    assert_ne!(world.last_request(), Some(request));
}

/// Two peers store the same message, and the application takes its time: it gets one copy, and nothing is left.
#[tokio::test]
async fn message_under_way_is_awaited() {
    let mut world = world();
    let ids = [NODE, OTHER].map(|it| world.request(it).request_id);
    let gate = Arc::new(Semaphore::new(0));
    let application = {
        let gate = gate.clone();
        tower::service_fn(move |_: Envelope| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, tower::BoxError>(Disposition::Delivered)
            }
        })
    };
    let answer = |from, request_id| {
        let response = StoredMessagesResponse {
            messages: vec![for_me(1, NOW.0 - 9)],
            request_id,
            response_type: 0,
        };
        let message = protocol(from, MessageType::SafStoredMessages, &response);
        world
            .saf
            .layer()
            .layer(application.clone())
            .oneshot(message)
    };
    let (first, second) = (answer(NODE, ids[0]), answer(OTHER, ids[1]));
    let release = async {
        tokio::task::yield_now().await;
        gate.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (Disposition::Answered, Disposition::Answered)
    );
    let expected = FetchSummary {
        asked: 2,
        answered: 2,
        new: 1,
        known: 1,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [expected]);
}

/// A page whose delivery is cancelled was not received.
#[tokio::test]
async fn cancelled_pages_are_not_received() {
    let world = world();
    let id = world.request(NODE).request_id;
    let response = StoredMessagesResponse {
        messages: vec![for_me(1, NOW.0 - 9)],
        request_id: id,
        response_type: 0,
    };
    let message = protocol(NODE, MessageType::SafStoredMessages, &response);
    let idle = tower::service_fn(|_: Envelope| {
        std::future::pending::<Result<Disposition, tower::BoxError>>()
    });
    let mut delivery = Box::pin(world.saf.layer().layer(idle).oneshot(message));
    assert!(futures::poll!(&mut delivery).is_pending());
    drop(delivery);
    assert_eq!(
        (world.saf.ledger().received(), world.watermark(NODE)),
        (0, None)
    );
    world
        .saf
        .disconnected(&peer(NODE, Features::NODE).node_id, None);
    world.exchange(vec![for_me(1, NOW.0 - 9)]).await;
    assert_eq!(world.passed().len(), 1);
}

/// The application is slow with a page; the peer is not given up for that.
#[tokio::test]
async fn slow_application_gets_the_next_page() {
    let mut world = world();
    let request_id = world.request(NODE).request_id;
    let response = StoredMessagesResponse {
        messages: (0..50).map(|n| for_me(n, NOW.0 - 500 + n)).collect(),
        request_id,
        response_type: 0,
    };
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let application = {
        let (begun, gate) = (begun.clone(), gate.clone());
        tower::service_fn(move |_: Envelope| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.add_permits(1);
                drop(gate.acquire().await);
                Ok::<_, tower::BoxError>(Disposition::Delivered)
            }
        })
    };
    let handler = world.saf.layer().layer(application);
    let answer = protocol(NODE, MessageType::SafStoredMessages, &response);
    let taking = tokio::spawn(handler.oneshot(answer));
    drop(begun.acquire_many(50).await.unwrap());
    world.clock.advance(100);
    world.saf.tick().await;
    assert_eq!(summaries(&mut world), []);
    gate.add_permits(1);
    taking.await.unwrap().unwrap();
    let next = world.last_request().unwrap();
    assert_eq!(next.since, NOW.0 - 500 + 49);
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

/// The answer of [`NODE`] with two messages, taken by an application behind one layer.
async fn taken_by<S>(world: &World, application: S) -> Disposition
where
    S: tower::Service<Envelope, Response = Disposition, Error = tower::BoxError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let response = StoredMessagesResponse {
        messages: vec![for_me(1, NOW.0 - 9), for_me(2, NOW.0 - 8)],
        request_id: world.request(NODE).request_id,
        response_type: 0,
    };
    let message = protocol(NODE, MessageType::SafStoredMessages, &response);
    let service = world.saf.layer().layer(application);
    let limit = std::time::Duration::from_secs(5);
    let taken = tokio::time::timeout(limit, service.oneshot(message)).await;
    taken.expect("within the limit").unwrap()
}

#[tokio::test]
async fn refused_messages_are_not_received() {
    let mut world = world();
    let hashes = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&hashes);
    let refuses = tower::service_fn(move |message: Envelope| {
        seen.lock().push(message.hash);
        std::future::ready(Ok(Disposition::Dropped(DropReason::Refused)))
    });
    assert_eq!(taken_by(&world, refuses).await, Disposition::Answered);
    let expected = FetchSummary {
        asked: 1,
        answered: 1,
        refused: 2,
        ..FetchSummary::default()
    };
    assert_eq!(summaries(&mut world), [expected]);
    assert_eq!(world.saf.ledger().received(), 0);
    let hashes = hashes.lock().clone();
    assert_eq!(hashes.len(), 2);
    let node = peer(NODE, Features::NODE).node_id;
    for hash in hashes {
        world.hand_over(NODE, &hash);
        // Nothing is decided: an asker waits until its limit.
        assert!(futures::poll!(Box::pin(world.saf.receipt(&node, &hash, |_| false))).is_pending());
    }
    // Nor is the peer asked for it again and again.
    world.exchange(vec![for_me(1, NOW.0 - 9)]).await;
    assert!(world.passed().is_empty());
}

#[tokio::test]
async fn one_delivery_at_a_time() {
    let world = world();
    let application = tower::service_fn(|_: Envelope| async {
        tokio::task::yield_now().await;
        Ok(Disposition::Delivered)
    });
    let limited = tower::limit::ConcurrencyLimit::new(application, 1);
    assert_eq!(taken_by(&world, limited).await, Disposition::Answered);
    assert_eq!(world.saf.ledger().received(), 2);
}

/// The inbox was damaged: what it lost is taken again, live or out of a store.
#[tokio::test]
async fn lost_messages_are_taken_again() {
    let world = world();
    let _node = world.connect(NODE, Features::NODE);
    world.saf.listen();
    let first = world.last_request().unwrap();
    let page = || vec![for_me(1, NOW.0 - 9), for_me(2, NOW.0 - 8)];
    world.answer(NODE, first.request_id, page()).await;
    let lost = world.passed()[0].hash;
    assert!(world.saf.forget_lost(move |hash| *hash == lost).await);
    assert!(!world.saf.ledger().contains(&lost));
    assert_eq!(
        (world.saf.ledger().received(), world.dedup.count(&lost)),
        (1, 0)
    );
    let again = world.last_request().unwrap();
    assert!(again != first && again.since < first.since.max(NOW.0 - 9));
    world.answer(NODE, again.request_id, page()).await;
    let taken: Vec<_> = world.passed().iter().map(|it| it.hash).collect();
    assert_eq!(taken, [lost]);
}
