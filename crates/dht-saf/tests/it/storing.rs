//! Storing of messages: rows SF-01 to SF-18.

use std::collections::BTreeSet;

use bytes::Bytes;
use dht_core::{
    Content, DedupHash, Deliverer, Destination, Disposition, DropReason, Encryption, Features,
    MessageType, Signing, StoreOutcome, UnixSeconds, test_util,
};
use dht_mailbox::{Limits, NewRecord, Query, Quota, Recipient, Retention, Store, StoreConfig};
use dht_saf::{Config, Receipt};

use crate::world::{AWAY, Envelope, ME, NODE, NOW, OTHER, SENDER, World};

fn world() -> World {
    World::new(Config::default())
}

/// The one message that reached the next layer.
fn only(world: &World) -> Envelope {
    let mut passed = world.passed();
    assert_eq!(passed.len(), 1);
    passed.remove(0)
}

fn recipient(seed: u64) -> Recipient {
    Recipient::from(&test_util::public_key(seed))
}

#[tokio::test]
async fn sf01_client_has_no_store_layer() {
    for features in [Features::CLIENT, Features::MESSAGE_PROPAGATION] {
        let world = World::with(ME, features, Config::default(), StoreConfig::default());
        assert!(world.saf.store_layer().is_none(), "no layer, hence no call");
        assert!(world.saf.store().is_none());
    }
}

#[tokio::test]
async fn sf02_duplicate_is_passed_on_unmarked() {
    let world = world();
    let message = Envelope {
        occurrences: 2,
        ..world.unreadable(AWAY, 1)
    };
    world.store(message).await;
    assert_eq!(only(&world).stored, None);
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn sf03_b115_clear_unsigned_message_is_not_stored() {
    let world = world();
    let from = test_util::identity(SENDER);
    let message = world.open(test_util::clear(&from, Signing::Anonymous, b"x", 1));
    assert_eq!(world.store(message).await, Disposition::Delivered);
    assert_eq!(only(&world).stored, Some(StoreOutcome::NotStored));
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn sf04_b116_decrypted_message_is_not_stored() {
    let world = world();
    let from = test_util::identity(SENDER);
    let message = world.open(test_util::encrypted(
        &from,
        &test_util::public_key(ME),
        b"x",
        1,
    ));
    assert_eq!(world.store(message).await, Disposition::Delivered);
    assert_eq!(only(&world).stored, Some(StoreOutcome::NotStored));
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn sf05_b117_known_recipient_gets_one_row() {
    let world = world();
    world.connect(AWAY, Features::CLIENT);
    world.clock.advance(3);
    assert_eq!(
        world.store(world.unreadable(AWAY, 1)).await,
        Disposition::Stored
    );
    assert_eq!(only(&world).stored, Some(StoreOutcome::Stored));
    let store = world.saf.store().unwrap();
    let page = store
        .fetch(&Query::all(recipient(AWAY), world.now()))
        .unwrap();
    let [row] = &page.records[..] else {
        panic!("{page:?}")
    };
    assert_eq!(
        row.recipient.to_string(),
        test_util::public_key(AWAY).to_string()
    );
    assert!(world.now().saturating_since(row.stored_at) <= 5);
    let original = world.unreadable(AWAY, 1).opened;
    assert_eq!(row.body, original.body, "byte for byte");
    assert_eq!(row.header, dht_proto::encode(&original.header.to_proto()));
}

#[tokio::test]
async fn sf06_unknown_recipient_gets_high_priority() {
    let world = world();
    assert!(world.directory.is_empty());
    world.store(world.unreadable(AWAY, 1)).await;
    let rows = world.saf.store().unwrap().list(recipient(AWAY), 9).unwrap();
    assert_eq!(rows.len(), 1);
    // Kept as long as one of priority 10. In a full store it goes first.
    assert_eq!(rows[0].retention, Retention::Unmet);
    let days = 3 * 24 * 60 * 60;
    assert_eq!(
        rows[0].keep_until,
        world
            .unreadable(AWAY, 1)
            .opened
            .header
            .expires
            .unwrap()
            .min(NOW.saturating_add(days))
    );
}

#[tokio::test]
async fn met_recipient_gets_high_priority() {
    let world = world();
    world.connect(AWAY, Features::CLIENT);
    world
        .connections
        .remove(&test_util::public_key(AWAY).node_id());
    world.store(world.unreadable(AWAY, 1)).await;
    let rows = world.saf.store().unwrap().list(recipient(AWAY), 9).unwrap();
    assert_eq!(rows[0].retention, Retention::High);
    assert_eq!(rows[0].retention.number(), 10);
}

#[tokio::test]
async fn sf07_unreadable_unsigned_message_is_not_stored() {
    let world = world();
    let mut message = world.unreadable(AWAY, 1);
    message.opened.header.signature = Bytes::new();
    world.store(message).await;
    assert_eq!(only(&world).stored, Some(StoreOutcome::NotStored));
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn sf08_unreadable_discovery_is_forwarded_not_stored() {
    let world = world();
    let mut message = world.unreadable(AWAY, 1);
    message.opened.header.message_type = MessageType::Discovery;
    world.store(message).await;
    let passed = only(&world);
    assert_eq!(
        passed.stored,
        Some(StoreOutcome::NotStored),
        "the forward layer propagates it"
    );
    assert!(matches!(passed.opened.content, Content::Unreadable));
    assert!(passed.opened.header.message_type.is_forwardable());
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn sf09_expiring_this_second_is_not_expired() {
    for (expires, stored) in [(NOW.0, 1), (NOW.0 - 1, 0), (NOW.0 + 1, 1)] {
        let world = world();
        let mut message = world.unreadable(AWAY, 1);
        message.opened.header.expires = Some(UnixSeconds(expires));
        world.store(message).await;
        assert_eq!(world.held(), stored, "{expires}");
        assert_eq!(world.passed().len(), 1, "passed on in any case");
    }
}

#[tokio::test]
async fn sf10_few_known_nodes_widen_the_region() {
    let world = world();
    for seed in 100..107 {
        world.connect(seed, Features::NODE);
    }
    for seed in 200..220 {
        assert_eq!(
            world.store(world.unreadable(seed, seed)).await,
            Disposition::Stored
        );
    }
    assert_eq!(world.held(), 20);
    // With eight nodes and eight clients nearby, most strangers are out of it.
    for seed in 107..180 {
        world.connect(seed, Features::NODE);
        world.connect(seed + 1_000, Features::CLIENT);
    }
    for seed in 300..340 {
        world.store(world.unreadable(seed, seed)).await;
    }
    assert!(world.held() < 40, "{}", world.held());
}

#[tokio::test]
async fn sf11_repeated_message_is_marked_already_stored() {
    let world = world();
    world.store(world.unreadable(AWAY, 1)).await;
    assert_eq!(only(&world).stored, Some(StoreOutcome::Stored));
    assert_eq!(
        world.store(world.unreadable(AWAY, 1)).await,
        Disposition::Stored
    );
    assert_eq!(only(&world).stored, Some(StoreOutcome::AlreadyStored));
    assert_eq!(world.held(), 1);
}

fn row(to: u64, hash: u8, retention: Retention) -> NewRecord {
    NewRecord {
        recipient: recipient(to),
        deliverer: Deliverer::from(&test_util::public_key(NODE)),
        hash: DedupHash([hash; 32]),
        retention,
        expires: None,
        header: Bytes::copy_from_slice(&[hash]),
        body: Bytes::from_static(b"sealed"),
    }
}

fn headers(store: &Store, to: u64, now: UnixSeconds) -> Vec<u8> {
    let page = store.fetch(&Query::all(recipient(to), now)).unwrap();
    page.records.iter().map(|row| row.header[0]).collect()
}

#[tokio::test]
async fn sf12_b113_repeated_hash_adds_no_row() {
    let world = world();
    let store = world.saf.store().unwrap();
    let mut existed = Vec::new();
    for hash in [1, 2, 2] {
        let inserted = store.insert(row(AWAY, hash, Retention::High), NOW).await;
        existed.push(inserted.unwrap().already_existed());
    }
    assert_eq!(existed, [false, false, true]);
    assert_eq!(headers(store, AWAY, NOW), [1, 2]);
}

#[tokio::test]
async fn sf13_another_signature_makes_another_row() {
    let world = world();
    let (first, mut second) = (world.unreadable(AWAY, 1), world.unreadable(AWAY, 1));
    let other = world.unreadable(AWAY, 2).opened.header.signature;
    second.hash = dht_core::dedup_hash(&other, &second.opened.body);
    second.opened.header.signature = other;
    assert_eq!(first.opened.body, second.opened.body);
    world.store(first).await;
    world.store(second).await;
    assert_eq!(world.held(), 2);
}

#[tokio::test]
async fn sf14_b114_full_store_keeps_newest() {
    for (capacity, left) in [(2, vec![3, 4]), (4, vec![1, 2, 3, 4])] {
        let room = Quota {
            rows: capacity,
            bytes: 1 << 20,
        };
        let config = StoreConfig {
            limits: Limits {
                capacity: room,
                ..Limits::default()
            },
            ..StoreConfig::default()
        };
        let world = World::with(ME, Features::NODE, Config::default(), config);
        let store = world.saf.store().unwrap();
        for n in 1..=4 {
            let now = NOW.saturating_add(n.into());
            store
                .insert(row(AWAY, n, Retention::High), now)
                .await
                .unwrap();
        }
        let now = NOW.saturating_add(9);
        assert_eq!(
            headers(store, AWAY, now),
            left,
            "capacity is checked at insertion (D8)"
        );
    }
}

#[tokio::test]
async fn sf15_row_of_second_asked_from() {
    // The reference: not returned, and not deleted.
    let strict = World::new(Config {
        newest_first: true,
        ..Config::default()
    });
    // Repaired (D4): returned, and not deleted.
    let inclusive = world();
    for (world, rows) in [(strict, 0), (inclusive, 1)] {
        world.keep(AWAY, 1, 1).await;
        world.clock.advance(10);
        for _ in 0..2 {
            let answer = world.ask(AWAY, NOW.0, 0).await;
            assert_eq!((answer.messages.len(), world.held()), (rows, 1));
            // On a new connection it is asked for again.
            let (key, id) = (
                test_util::public_key(AWAY),
                test_util::public_key(AWAY).node_id(),
            );
            world.saf.disconnected(&id, Some(key.compressed()));
        }
    }
}

#[tokio::test]
async fn sf16_rows_are_found_by_node_id() {
    // There is no row without a key that has a node id: the id is derived from the key under which it lies.
    let world = world();
    world.keep(AWAY, 1, 1).await;
    let (_, account) = world.saf.store().unwrap().mailboxes(None, 9).unwrap()[0];
    assert_eq!(account.rows, 1);
    let (found, _) = world.saf.store().unwrap().mailboxes(None, 9).unwrap()[0];
    let id = found.public_key().unwrap().node_id();
    assert_eq!(id, test_util::public_key(AWAY).node_id());
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 1);
}

#[tokio::test]
async fn sf17_discoveries_are_not_served() {
    let world = world();
    let mut message = world.unreadable(AWAY, 1);
    message.opened.header.message_type = MessageType::Discovery;
    world.store(message).await;
    world.keep(AWAY, 1, 2).await;
    let answer = world.ask(AWAY, 0, 0).await;
    assert_eq!(answer.messages.len(), 1);
    assert_eq!(
        answer.messages[0].dht_header.as_ref().unwrap().message_type,
        0
    );
}

#[tokio::test]
async fn sf18_low_retention_ends_first() {
    let world = world();
    let store = world.saf.store().unwrap();
    store
        .insert(row(AWAY, 1, Retention::High), NOW)
        .await
        .unwrap();
    store
        .insert(row(OTHER, 2, Retention::Low), NOW)
        .await
        .unwrap();
    world.clock.advance(7 * 60 * 60);
    world.saf.clean_up().await;
    assert_eq!(headers(store, AWAY, world.now()), [1]);
    assert_eq!(world.held(), 1);
}

#[tokio::test]
async fn a_closed_store_stops_nothing_else() {
    let world = world();
    world.saf.store().unwrap().close();
    let disposition = world.store(world.unreadable(AWAY, 1)).await;
    assert_eq!(disposition, Disposition::Dropped(DropReason::NotForUs));
    assert_eq!(
        only(&world).stored,
        Some(StoreOutcome::NotStored),
        "forwarded as not stored"
    );
}

#[tokio::test]
async fn nothing_is_stored_for_banned_recipients() {
    let world = world();
    let key = test_util::public_key(AWAY);
    let until = NOW.saturating_add(60);
    world
        .directory
        .ban(key, until, dht_core::Severity::High, "test", NOW);
    world.store(world.unreadable(AWAY, 1)).await;
    assert_eq!(
        (only(&world).stored, world.held()),
        (Some(StoreOutcome::NotStored), 0)
    );
}

#[tokio::test]
async fn clear_messages_are_never_stored() {
    let world = world();
    let frames: BTreeSet<_> = [ME, AWAY].into_iter().collect();
    for to in frames {
        let from = test_util::identity(SENDER);
        let frame = test_util::frame(
            &from,
            Destination::PublicKey(test_util::public_key(to)),
            Encryption::Clear,
            Signing::Origin,
            b"readable",
            1,
        );
        world.store(world.open(frame)).await;
    }
    assert_eq!(world.held(), 0, "clear text is never kept");
}

/// A refusal passes with its cause: the next copy is considered anew, and its sender is told.
#[tokio::test]
async fn refused_message_is_stored_later() {
    let world = World::new(Config {
        deliverer_rate: 1,
        deliverer_burst: 1,
        ..Config::default()
    });
    let message = |n| world.unreadable(AWAY, n);
    world.keep(AWAY, 1, 1).await;
    let hash = message(2).hash;
    let meta = dht_dedup::DedupMeta {
        signed: true,
        expires: None,
    };
    world.dedup.record(&hash, meta, world.now());
    world.hand_over(SENDER, &hash);
    world.store(message(2)).await;
    assert_eq!(only(&world).stored, Some(StoreOutcome::NotStored));
    assert!(!world.dedup.may_be_stored_again(&hash, world.now()));
    let sender = test_util::public_key(SENDER).node_id();
    let receipt = || world.saf.receipt(&sender, &hash, |_| false);
    assert_eq!(receipt().await, Receipt::Neither);

    world.clock.advance(10);
    assert!(world.dedup.may_be_stored_again(&hash, world.now()));
    let waiting = receipt();
    assert_eq!(world.store(message(2)).await, Disposition::Stored);
    assert!(!world.dedup.may_be_stored_again(&hash, world.now()));
    assert_eq!(waiting.await, Receipt::Stored);
    assert_eq!(receipt().await, Receipt::Stored);
    assert_eq!(world.held(), 2);
}

/// Copies of a message that is never stored are repeats, though the store had no place for an earlier one.
#[tokio::test]
async fn final_refusals_make_copies_repeats() {
    let world = World::new(Config {
        deliverer_rate: 1,
        deliverer_burst: 1,
        ..Config::default()
    });
    let message = |n| world.unreadable(AWAY, n);
    world.keep(AWAY, 1, 1).await;
    let hash = message(2).hash;
    let meta = dht_dedup::DedupMeta {
        signed: true,
        expires: None,
    };
    world.dedup.record(&hash, meta, world.now());
    world.store(message(2)).await;
    world.clock.advance(10);
    assert!(world.dedup.may_be_stored_again(&hash, world.now()));
    let until = world.now().saturating_add(1000);
    let key = test_util::public_key(AWAY);
    world
        .directory
        .ban(key, until, dht_core::Severity::High, "test", world.now());
    world.store(message(2)).await;
    assert!(!world.dedup.may_be_stored_again(&hash, world.now()));
}
