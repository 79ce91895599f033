//! A peer cannot wipe, flood or starve a store.

use bytes::Bytes;
use dht_core::Features;
use dht_core::{
    Content, DedupHash, Deliverer, Disposition, DropReason, MessageType, RemotePeer, Severity,
    StoreOutcome, UnixSeconds, test_util,
};
use dht_mailbox::{Limits, NewRecord, Quota, Recipient, Retention, StoreConfig};
use dht_proto::store_forward::StoredMessagesResponse;
use dht_saf::{Config, FetchSummary, Receipt, SafEvent};
use futures::FutureExt as _;

use crate::world::{AWAY, Envelope, ME, NODE, NOW, OTHER, World, for_me, protocol};

fn world() -> World {
    World::new(Config::default())
}

#[tokio::test]
async fn a_future_since_deletes_nothing() {
    let world = world();
    for to in [AWAY, OTHER, 50, 51] {
        world.keep(to, 5, to * 100).await;
    }
    world.clock.advance(1_000);
    // A stranger, and the recipient itself, with and without an answer before.
    for from in [99, AWAY, AWAY] {
        for since in [world.now().0 + 1, u64::MAX / 2, u64::MAX] {
            world.ask(from, since, 0).await;
            world.ask(from, 0, 0).await;
        }
    }
    assert_eq!(world.held(), 20);
}

#[tokio::test]
async fn repeated_zero_since_is_rate_limited() {
    let world = world();
    world.keep(AWAY, 100, 1).await;
    let mut messages = 0;
    for _ in 0..1_000 {
        messages += world.ask(AWAY, 0, 0).await.messages.len();
    }
    assert_eq!(messages, 320 * 50, "the burst of one requester");
    assert_eq!(world.held(), 100);
    // A rest later it gets its message.
    world.clock.advance(10);
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 50);
}

#[tokio::test]
async fn unrequested_responses_leave_no_trace() {
    let world = world();
    let id = world.request(NODE).request_id;
    for n in 0..500_u32 {
        let messages = vec![for_me(u64::from(n % 5), NOW.0 - 5)];
        let outcome = world.answer(OTHER, n, messages).await;
        assert_eq!(outcome, Disposition::Dropped(DropReason::Unrequested));
    }
    assert!(world.passed().is_empty() && world.bans().is_empty());
    assert_eq!(world.saf.ledger().received(), 0);
    // The one that was asked is heard.
    world.answer(NODE, id, vec![for_me(1, NOW.0 - 5)]).await;
    assert_eq!(world.passed().len(), 1);
}

#[tokio::test]
async fn huge_response_is_refused_before_decoding() {
    let world = world();
    let id = world.request(NODE).request_id;
    let mut message = protocol(
        NODE,
        MessageType::SafStoredMessages,
        &StoredMessagesResponse {
            request_id: id,
            ..StoredMessagesResponse::default()
        },
    );
    // Field 1, length 0, a million times: two megabytes on the wire, hundreds in memory.
    let bomb = Bytes::from([0x0a, 0x00].repeat(1_000_000));
    message.opened.content = Content::Readable {
        parts: vec![bomb],
        origin: None,
    };
    let outcome = world.handle(message).await;
    assert_eq!(
        outcome,
        Disposition::Dropped(DropReason::BadProtocolMessage)
    );
    assert_eq!(world.bans(), [Severity::High]);
    assert!(world.passed().is_empty());
    // Unasked, it is not even looked at.
    assert!(!world.saf.is_fetching());
}

#[tokio::test]
async fn full_mailbox_leaves_room_for_another() {
    let limits = Limits {
        per_recipient: Quota {
            rows: 10,
            bytes: 1 << 20,
        },
        ..Limits::default()
    };
    let store = StoreConfig {
        limits,
        ..StoreConfig::default()
    };
    let world = World::with(ME, Features::NODE, Config::default(), store);
    let mut kept = 0;
    for n in 0..30 {
        world.store(world.unreadable(AWAY, n)).await;
        kept += u32::from(world.passed()[0].stored == Some(StoreOutcome::Stored));
    }
    assert_eq!(kept, 10, "the rest is passed on, and not kept");
    world.keep(OTHER, 5, 100).await;
    assert_eq!(world.ask(OTHER, 0, 0).await.messages.len(), 5);
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 10);
}

#[tokio::test]
async fn a_flood_keeps_out_no_other() {
    let config = Config {
        deliverer_rate: 5,
        deliverer_burst: 20,
        ..Config::default()
    };
    let limits = Limits {
        capacity: Quota {
            rows: 100,
            bytes: 1 << 20,
        },
        per_deliverer: Quota {
            rows: 50,
            bytes: 1 << 19,
        },
        ..Limits::default()
    };
    let store = StoreConfig {
        limits,
        ..StoreConfig::default()
    };
    let world = World::with(ME, Features::NODE, config, store);
    let from = |seed: u64, message: Envelope| Envelope {
        source: RemotePeer::new(test_util::public_key(seed), Features::NODE).into(),
        ..message
    };
    let mut flooded = 0;
    let mut honest = 0;
    let mut last = DedupHash([0; 32]);
    for second in 0..20 {
        for n in 0..50 {
            // To many recipients, so that no mailbox is full.
            let message = world.unreadable(1_000 + n, second * 100 + n);
            last = message.hash;
            world.store(from(NODE, message)).await;
            flooded += u32::from(world.passed()[0].stored == Some(StoreOutcome::Stored));
        }
        let message = world.unreadable(AWAY, 5_000 + second);
        world.store(from(OTHER, message)).await;
        honest += u32::from(world.passed()[0].stored == Some(StoreOutcome::Stored));
        world.clock.advance(1);
    }
    assert_eq!(honest, 20, "every one");
    assert_eq!(flooded, 50, "rate first, then half of the store");
    // The sender of what was refused learns it at once, and gives the message to other holders.
    world.hand_over(NODE, &last);
    let asker = test_util::public_key(NODE).node_id();
    let told = world.saf.receipt(&asker, &last, |_| false).now_or_never();
    assert_eq!(told, Some(Receipt::Neither));
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 20);
}

/// Any peer can put signed messages into a mailbox that do not decrypt; the oldest are served first.
#[tokio::test]
async fn invalid_rows_do_not_hide_others() {
    let mut world = world();
    let id = world.request(NODE).request_id;
    let rubbish = |n: u64| {
        let mut message = for_me(n, NOW.0 - 500 + n);
        let mut body = message.body.to_vec();
        body.reverse();
        message.body = body.into();
        message
    };
    world.answer(NODE, id, (0..50).map(rubbish).collect()).await;
    assert!(world.passed().is_empty() && world.bans().is_empty());
    let next = world.last_request().unwrap();
    assert_eq!(
        next.since,
        NOW.0 - 500 + 49,
        "it asks on behind the rubbish"
    );
    let behind = vec![rubbish(49), for_me(50, NOW.0 - 400)];
    world.answer(NODE, next.request_id, behind).await;
    assert_eq!(world.passed().len(), 1);
    let summaries = world.events();
    assert!(
        summaries.contains(&SafEvent::CaughtUp(FetchSummary {
            asked: 1,
            answered: 1,
            new: 1,
            refused: 51,
            ..FetchSummary::default()
        })),
        "{summaries:?}"
    );
}

/// A requester that asks without end and reads nothing is answered, and little is kept for it.
#[tokio::test]
async fn unread_answers_keep_nothing() {
    let world = world();
    *world.node.stalled.lock() = true;
    for _ in 0..400 {
        assert!(world.ask(AWAY, 0, 0).await.messages.is_empty());
    }
    assert_eq!(world.node.waiting(), 16);
    world.ask(OTHER, 0, 0).await;
    assert_eq!(world.node.waiting(), 17);
    world.node.release();
}

/// A requester that asks again and again for all it may have, and never reads an answer.
#[tokio::test]
async fn unread_responses_leave_room_for_others() {
    let world = world();
    let store = world.saf.store().unwrap();
    for (n, to) in (0..10).zip([AWAY, OTHER].into_iter().cycle()) {
        let record = NewRecord {
            recipient: Recipient::from(&test_util::public_key(to)),
            deliverer: Deliverer::from_bytes([2; 32]),
            hash: DedupHash([n; 32]),
            retention: Retention::High,
            expires: None,
            header: Bytes::new(),
            body: vec![0; 500_000].into(),
        };
        store.insert(record, NOW).await.unwrap();
    }
    *world.node.stalled.lock() = true;
    let mut answered = 0;
    for _ in 0..40 {
        answered += usize::from(!world.ask(AWAY, 0, 0).await.messages.is_empty());
    }
    assert_eq!(answered, 3, "8 MiB of answers");
    assert_eq!(world.ask(OTHER, 0, 0).await.messages.len(), 5);
    world.node.release();
    assert_eq!(world.ask(AWAY, 0, 0).await.messages.len(), 5);
}

/// The clock of this node was set back. A requester bans for messages stored in the future, and asks for none before the
/// newest it has.
#[tokio::test]
async fn future_rows_are_served_now() {
    let world = world();
    world.keep(AWAY, 1, 1).await;
    world.clock.set(UnixSeconds(NOW.0 - 600));
    world.keep(AWAY, 1, 2).await;
    let times = |response: StoredMessagesResponse| -> Vec<u64> {
        response.messages.iter().map(|it| it.stored_at).collect()
    };
    assert_eq!(times(world.ask(OTHER, 0, 0).await), []);
    assert_eq!(times(world.ask(AWAY, NOW.0 - 30, 0).await), [NOW.0 - 30; 2]);
    assert_eq!(times(world.ask(AWAY, 0, 0).await), [NOW.0 - 600; 2]);
    world.clock.set(NOW);
    assert_eq!(times(world.ask(AWAY, NOW.0 - 30, 0).await), [NOW.0; 2]);
    assert_eq!(world.held(), 2);
}
