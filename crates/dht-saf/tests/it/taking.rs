//! An application that takes messages slowly, later or not at all: what it has not taken is neither noted nor left behind.

use std::sync::Arc;

use dht_core::{Disposition, DropReason, Features, MessageType};
use dht_proto::store_forward::StoredMessagesResponse;
use dht_saf::FetchSummary;
use tokio::sync::Semaphore;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    asking::{summaries, world},
    world::{Envelope, NODE, NOW, OTHER, World, for_me, peer, protocol},
};

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

/// An application that takes nothing at all is no reason to ask for more; one that has no room for some is.
#[tokio::test]
async fn closed_inbox_ends_the_fetch() {
    for (reason, ends) in [
        (DropReason::NobodyListens, true),
        (DropReason::InboxFailed, true),
        (DropReason::InboxFull, true),
        (DropReason::InboxShareFull, false),
    ] {
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
        assert_eq!(world.last_request() == Some(first), ends, "{reason:?}");
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
