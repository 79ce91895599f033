//! Serving requests: rows SF-19 to SF-23.

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, Disposition, DropReason, Features, MessageType, test_util};
use dht_mailbox::{NewRecord, Recipient, Retention, StoreConfig};
use dht_proto::store_forward::StoredMessagesRequest;
use dht_saf::Config;

use crate::world::{AWAY, ME, NOW, OTHER, World, bodies, protocol};

fn world() -> World {
    World::new(Config::default())
}

#[tokio::test]
async fn sf19_b118_empty_mailbox_sends_empty_response() {
    let world = world();
    for since in [0, NOW.0 - 100] {
        assert_eq!(world.ask(AWAY, since, 50).await.messages.len(), 0);
    }
    assert_eq!(world.passed().len(), 0, "requests go no further");
}

#[tokio::test]
async fn sf20_request_without_since_deletes_nothing() {
    let world = world();
    world.keep(AWAY, 3, 1).await;
    world.keep(OTHER, 3, 10).await;
    world.clock.advance(100);
    for _ in 0..5 {
        assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 3);
    }
    assert_eq!(world.held(), 6);
}

#[tokio::test]
async fn sf21_response_holds_at_most_fifty() {
    let world = world();
    world.keep(AWAY, 60, 1).await;
    assert_eq!(world.ask(AWAY, 0, 1_000_000).await.messages.len(), 50);
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 50);
    assert_eq!(world.ask(AWAY, 0, 7).await.messages.len(), 7);
}

#[tokio::test]
async fn sf22_future_since_deletes_nothing() {
    // The reference deletes every older row, of everybody (D2).
    let world = world();
    world.keep(AWAY, 3, 1).await;
    world.keep(OTHER, 3, 10).await;
    world.clock.advance(100);
    world.ask(AWAY, 0, 0).await;
    for since in [world.now().0 + 1, 300_000_000_000, u64::MAX] {
        assert_eq!(world.ask(AWAY, since, 0).await.messages.len(), 0);
    }
    assert_eq!(world.held(), 6);
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 3);
}

#[tokio::test]
async fn sf23_a_client_does_not_serve() {
    let world = World::with(
        ME,
        Features::CLIENT,
        Config::default(),
        StoreConfig::default(),
    );
    let request = StoredMessagesRequest::default();
    let message = protocol(AWAY, MessageType::SafRequestMessages, &request);
    let swallowed = Disposition::Dropped(DropReason::RoleFilter);
    assert_eq!(world.handle(message).await, swallowed);
    assert!(world.node.sent.lock().is_empty() && world.passed().is_empty());
}

#[tokio::test]
async fn only_proven_own_rows_are_deleted() {
    let world = world();
    world.keep(AWAY, 2, 1).await;
    world.keep(OTHER, 2, 10).await;
    world.clock.advance(5);
    world.keep(AWAY, 1, 3).await;
    world.clock.advance(5);
    // A since without an answer before it proves nothing.
    world.ask(AWAY, NOW.0 + 9, 0).await;
    assert_eq!(world.held(), 5);
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 3);
    assert_eq!(
        world.ask(AWAY, NOW.0 + 5, 0).await.messages.len(),
        0,
        "the cursor is there"
    );
    assert_eq!(world.held(), 3, "the two old rows have arrived");
    assert_eq!(world.ask(OTHER, 0, 0).await.messages.len(), 2);
}

#[tokio::test]
async fn unsent_response_proves_nothing() {
    let world = world();
    world.keep(AWAY, 2, 1).await;
    world.clock.advance(5);
    *world.node.broken.lock() = true;
    world.ask(AWAY, 0, 0).await;
    *world.node.broken.lock() = false;
    world.ask(AWAY, NOW.0 + 1, 0).await;
    assert_eq!(world.held(), 2);
    *world.node.full.lock() = true;
    let request = StoredMessagesRequest::default();
    let message = protocol(AWAY, MessageType::SafRequestMessages, &request);
    let shed = Disposition::Dropped(DropReason::Overload);
    assert_eq!(world.handle(message).await, shed);
    *world.node.full.lock() = false;
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 2);
}

#[tokio::test]
async fn answers_keep_to_their_byte_budget() {
    let world = world();
    let store = world.saf.store().unwrap();
    for n in 1..=10 {
        let record = NewRecord {
            recipient: Recipient::from(&test_util::public_key(AWAY)),
            deliverer: Deliverer::from_bytes([2; 32]),
            hash: DedupHash([n; 32]),
            retention: Retention::High,
            expires: None,
            header: Bytes::new(),
            body: vec![n; 500_000].into(),
        };
        store.insert(record, NOW).await.unwrap();
    }
    let first = world.ask(AWAY, 0, 0).await;
    assert_eq!(first.messages.len(), 8, "4 MiB");
    let second = world.ask(AWAY, NOW.0, 0).await;
    assert!(
        bodies(&second)
            .iter()
            .all(|body| !bodies(&first).contains(body))
    );
}

#[tokio::test]
async fn requester_over_rate_gets_empty_response() {
    let world = World::new(Config {
        requester_rate: 1,
        requester_burst: 3,
        ..Config::default()
    });
    world.keep(AWAY, 1, 1).await;
    world.keep(OTHER, 1, 2).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(world.ask(AWAY, 0, 0).await.messages.len());
    }
    assert_eq!(answers, [1, 1, 1, 0, 0]);
    assert_eq!(world.ask(OTHER, 0, 0).await.messages.len(), 1);
    world.clock.advance(1);
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 1);
}

/// A peer that asks and does not read: what exceeds its rate is answered, and nothing waits for that answer.
#[tokio::test]
async fn answers_over_rate_keep_nothing() {
    let world = World::new(Config {
        requester_rate: 1,
        requester_burst: 3,
        ..Config::default()
    });
    world.keep(AWAY, 1, 1).await;
    *world.node.stalled.lock() = true;
    for _ in 0..5 {
        world.ask(AWAY, 0, 0).await;
    }
    assert_eq!(world.node.waiting.lock().len(), 3);
    // Each answer takes room from the share of the peer that asked.
    let asker = Some(Deliverer::from(&test_util::public_key(AWAY)));
    assert!(
        world
            .node
            .sent
            .lock()
            .iter()
            .all(|sent| sent.requester == asker)
    );
}

#[tokio::test]
async fn malformed_request_gets_no_response() {
    let world = world();
    let request = StoredMessagesRequest::default();
    let mut message = protocol(AWAY, MessageType::SafRequestMessages, &request);
    for parts in [vec![], vec![Bytes::from_static(b"\xff\xff")]] {
        message.opened.content = dht_core::Content::Readable {
            parts,
            origin: None,
        };
        let again = protocol(AWAY, MessageType::SafRequestMessages, &request);
        let sent = std::mem::replace(&mut message, again);
        let bad = Disposition::Dropped(DropReason::BadProtocolMessage);
        assert_eq!(world.handle(sent).await, bad);
    }
    message.occurrences = 2;
    let repeat = Disposition::Dropped(DropReason::Duplicate);
    assert_eq!(world.handle(message).await, repeat);
    assert!(world.node.sent.lock().is_empty() && world.bans().is_empty());
}
