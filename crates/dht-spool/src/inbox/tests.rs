use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds, test_util::public_key};
use futures::FutureExt as _;

use super::*;
use crate::{config::WriterConfig, faulty::FaultyDisk};

mod disk;
mod model;
mod rescue;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const ALL: Limit = Limit {
    rows: usize::MAX,
    bytes: usize::MAX,
};

fn row(number: u64) -> NewRow {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    NewRow {
        received_at: NOW,
        origin: number.is_multiple_of(2).then(|| public_key(1)),
        origin_is_proven: true,
        message_type: -7,
        payload: Bytes::from(format!("message {number}")),
        via: NodeId::from_bytes(&[3; NodeId::LENGTH]).unwrap(),
        deliverer: Deliverer::from_bytes([1; 32]),
        arrival: Arrival::Stored,
        hash: DedupHash(hash),
    }
}

/// A row by a deliverer and an origin of its own, so that no share bounds it.
fn row_of_its_own(number: u64) -> NewRow {
    let mut deliverer = [0; 32];
    deliverer[..8].copy_from_slice(&number.to_be_bytes());
    NewRow {
        deliverer: Deliverer::from_bytes(deliverer),
        origin: Some(public_key(number)),
        ..row(number)
    }
}

fn inbox(config: InboxConfig) -> Inbox {
    Inbox::in_memory(config)
}

fn on(disk: &FaultyDisk) -> Result<Inbox, SpoolError> {
    let journal = Arc::new(crate::disk::on(disk.file(), InboxConfig::default())?);
    Ok(Inbox { journal })
}

fn insert(inbox: &Inbox, numbers: impl IntoIterator<Item = u64>) {
    let tickets: Vec<_> = numbers
        .into_iter()
        .map(|number| inbox.insert(row(number)))
        .collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
}

fn ids(inbox: &Inbox, consumer: &str) -> Vec<RowId> {
    let rows = inbox.read(consumer, None, ALL).unwrap();
    rows.iter().map(|row| row.id).collect()
}

#[test]
fn rows_are_read_as_inserted() {
    let inbox = inbox(InboxConfig::default());
    insert(&inbox, [0, 1]);
    let rows = inbox.read(DEFAULT_CONSUMER, None, ALL).unwrap();
    let messages: Vec<_> = rows.into_iter().map(|row| row.message).collect();
    assert_eq!(messages, [row(0), row(1)]);
    let unknown = inbox.read("nobody", None, ALL);
    assert_eq!(unknown.unwrap_err(), SpoolError::UnknownConsumer);
}

#[test]
fn a_hash_is_inserted_once() {
    let config = InboxConfig {
        remember_seconds: 10,
        ..InboxConfig::default()
    };
    let inbox = inbox(config);
    // Both in one commit, then one after the other.
    let tickets = [inbox.insert(row(1)), inbox.insert(row(1))];
    let outcomes = tickets.map(|ticket| ticket.wait().unwrap());
    assert_eq!(outcomes, [Inserted::New(1), Inserted::AlreadyPresent]);
    inbox.ack(DEFAULT_CONSUMER, 1, NOW).wait().unwrap();
    assert_eq!(inbox.stats().rows, 0);
    let again = || inbox.insert(row(1)).wait().unwrap();
    assert_eq!(again(), Inserted::AlreadyPresent);
    inbox.expire(NOW.saturating_add(10)).wait().unwrap();
    assert_eq!(again(), Inserted::AlreadyPresent);
    let expiry = inbox.expire(NOW.saturating_add(11)).wait().unwrap();
    assert_eq!(expiry.forgotten, 1);
    assert_eq!(again(), Inserted::New(2));
}

#[test]
fn remembered_hashes_are_bounded() {
    let inbox = inbox(InboxConfig {
        remember_rows: 2,
        ..InboxConfig::default()
    });
    insert(&inbox, 1..=3);
    inbox.ack(DEFAULT_CONSUMER, 3, NOW).wait().unwrap();
    assert_eq!(inbox.stats().remembered, 2);
    assert_eq!(inbox.insert(row(1)).wait().unwrap(), Inserted::New(4));
}

/// Hashes of a deliverer of many messages are forgotten before those of one of few, also after a restart.
#[test]
fn flood_flushes_no_remembered_hash() {
    let disk = FaultyDisk::default();
    let config = InboxConfig {
        remember_rows: 10,
        ..InboxConfig::default()
    };
    let flood = |number| NewRow {
        deliverer: Deliverer::from_bytes([7; 32]),
        ..row(number)
    };
    let open = || Inbox {
        journal: Arc::new(crate::disk::on(disk.file(), config.clone()).unwrap()),
    };
    let inbox = open();
    insert(&inbox, 1..=3);
    inbox.ack(DEFAULT_CONSUMER, 3, NOW).wait().unwrap();
    for number in 100..200 {
        inbox.insert(flood(number)).wait().unwrap();
        let newest = inbox.stats().newest;
        inbox.ack(DEFAULT_CONSUMER, newest, NOW).wait().unwrap();
    }
    drop(inbox);
    let inbox = open();
    for number in 200..300 {
        inbox.insert(flood(number)).wait().unwrap();
        let newest = inbox.stats().newest;
        inbox.ack(DEFAULT_CONSUMER, newest, NOW).wait().unwrap();
    }
    assert_eq!(inbox.stats().remembered, 10);
    assert!((1..=3).all(|number| inbox.contains(&row(number).hash)));
    assert!((293..300).all(|number| inbox.contains(&row(number).hash)));
    assert!(!inbox.contains(&row(292).hash));
}

#[test]
fn durable_and_remembered_rows_are_contained() {
    let disk = FaultyDisk::default();
    let hash = |number| row(number).hash;
    let inbox = on(&disk).unwrap();
    assert!(!inbox.contains(&hash(1)));
    insert(&inbox, 1..=2);
    inbox.ack(DEFAULT_CONSUMER, 1, NOW).wait().unwrap();
    drop(inbox);
    let inbox = on(&disk).unwrap();
    assert!(inbox.contains(&hash(1)) && inbox.contains(&hash(2)));
    // One that is not committed yet is not.
    let contained = inbox.journal.look(|state| {
        let ticket = inbox.insert(row(3));
        (state.contains(&hash(3)), ticket)
    });
    assert!(!contained.0);
    contained.1.wait().unwrap();
    assert!(inbox.contains(&hash(3)));
    let over = NOW.saturating_add(inbox.config().remember_seconds + 1);
    inbox.expire(over).wait().unwrap();
    assert!(!inbox.contains(&hash(1)));
}

#[test]
fn a_row_waits_for_every_consumer() {
    let inbox = inbox(InboxConfig::default());
    insert(&inbox, 1..=2);
    assert!(inbox.add_consumer("late", Start::Newest).wait().unwrap());
    assert!(inbox.add_consumer("all", Start::Oldest).wait().unwrap());
    assert!(!inbox.add_consumer("all", Start::Oldest).wait().unwrap());
    insert(&inbox, 3..=4);
    assert_eq!(ids(&inbox, "late"), [3, 4]);
    assert_eq!(ids(&inbox, "all"), [1, 2, 3, 4]);
    inbox.ack(DEFAULT_CONSUMER, 4, NOW).wait().unwrap();
    inbox.ack("late", 3, NOW).wait().unwrap();
    assert_eq!(inbox.stats().rows, 4);
    inbox.ack_one("all", 2, NOW).wait().unwrap();
    assert_eq!(inbox.stats().rows, 3);
    inbox.remove_consumer("all", NOW).wait().unwrap();
    assert_eq!(inbox.stats().rows, 1, "1 and 3 were held for it alone");
    inbox.remove_consumer("late", NOW).wait().unwrap();
    let last = inbox.remove_consumer(DEFAULT_CONSUMER, NOW).wait();
    assert_eq!(last.unwrap_err(), SpoolError::LastConsumer);
}

#[test]
fn unordered_acks_move_the_cursor() {
    let inbox = inbox(InboxConfig {
        out_of_order_acks: 2,
        ..InboxConfig::default()
    });
    inbox.add_consumer("slow", Start::Oldest).wait().unwrap();
    insert(&inbox, 1..=5);
    let ack = |id| inbox.ack_one(DEFAULT_CONSUMER, id, NOW).wait();
    ack(3).unwrap();
    ack(3).unwrap();
    ack(5).unwrap();
    assert_eq!(ack(4).unwrap_err(), SpoolError::TooManyAcks);
    assert_eq!(ack(6).unwrap_err(), SpoolError::UnknownId);
    assert_eq!(ids(&inbox, DEFAULT_CONSUMER), [1, 2, 4]);
    ack(1).unwrap();
    ack(2).unwrap();
    ack(4).unwrap();
    let stats = inbox.stats();
    assert_eq!(
        (stats.consumers[0].cursor, stats.consumers[0].pending),
        (5, 0)
    );
    assert_eq!(stats.consumers[1].pending, 5);
}

#[test]
fn reads_keep_to_their_limit() {
    let inbox = inbox(InboxConfig::default());
    insert(&inbox, 1..=5);
    let read = |after, rows, bytes| {
        let rows = inbox.read(DEFAULT_CONSUMER, after, Limit { rows, bytes });
        rows.unwrap().iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(read(None, 2, 1000), [1, 2]);
    assert_eq!(read(Some(2), 2, 1000), [3, 4]);
    assert_eq!(read(Some(2), 9, 18), [3, 4]);
    assert_eq!(read(Some(2), 9, 1), [3], "one comes whatever its size");
    assert!(read(Some(5), 9, 1000).is_empty());
}

#[test]
fn a_full_inbox_drops_nothing() {
    let inbox = inbox(InboxConfig {
        max_rows: 2,
        max_bytes: 30,
        ..InboxConfig::default()
    });
    for number in 1..=2 {
        inbox.insert(row_of_its_own(number)).wait().unwrap();
    }
    let refused = inbox.insert(row_of_its_own(3)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Full);
    assert_eq!(
        inbox.insert(row(2)).wait().unwrap(),
        Inserted::AlreadyPresent
    );
    assert!(inbox.stats().full && inbox.stats().refused == 1);
    assert_eq!(inbox.stats().over_share, 0);
    inbox.ack(DEFAULT_CONSUMER, 1, NOW).wait().unwrap();
    assert!(!inbox.stats().full);
    let mut large = row_of_its_own(3);
    large.payload = Bytes::from(vec![0; 22]);
    let refused = inbox.insert(large).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Full);
    inbox.insert(row_of_its_own(3)).wait().unwrap();
    assert_eq!(ids(&inbox, DEFAULT_CONSUMER), [2, 3]);
    let mut larger = row(9);
    larger.payload = Bytes::from(vec![0; MAX_CONTENT_BYTES + 1]);
    let refused = inbox.insert(larger).wait().unwrap_err();
    assert!(matches!(refused, SpoolError::TooLarge { .. }));
}

/// A deliverer with new origins for each row leaves half of the inbox to others, also after a restart.
#[test]
fn one_deliverer_cannot_fill_it() {
    let disk = FaultyDisk::default();
    let config = InboxConfig {
        max_rows: 99,
        ..InboxConfig::default()
    };
    let open = || {
        let journal = crate::disk::on(disk.file(), config.clone()).unwrap();
        Inbox {
            journal: Arc::new(journal),
        }
    };
    let of_stranger = |number| NewRow {
        deliverer: Deliverer::from_bytes([7; 32]),
        ..row_of_its_own(number)
    };
    let inbox = open();
    let tickets: Vec<_> = (0..99).map(|n| inbox.insert(of_stranger(n))).collect();
    let held = tickets.into_iter().filter_map(|ticket| ticket.wait().ok());
    assert_eq!(held.count(), 50);
    let stats = inbox.stats();
    assert_eq!((stats.refused, stats.over_share), (49, 49));
    assert!(!stats.full, "it is full for one deliverer alone");
    drop(inbox);
    let inbox = open();
    let refused = inbox.insert(of_stranger(100)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::ShareFull);
    inbox.insert(row_of_its_own(101)).wait().unwrap();
    inbox.ack(DEFAULT_CONSUMER, 2, NOW).wait().unwrap();
    inbox.insert(of_stranger(102)).wait().unwrap();
}

/// The rows of unproven origins are counted by the holder that delivers them, also after a restart.
#[test]
fn strangers_cannot_fill_a_holders_share() {
    let disk = FaultyDisk::default();
    let config = InboxConfig {
        max_rows: 90,
        ..InboxConfig::default()
    };
    let open = || {
        let journal = crate::disk::on(disk.file(), config.clone()).unwrap();
        Inbox {
            journal: Arc::new(journal),
        }
    };
    let through_holder = |number, origin_is_proven| NewRow {
        deliverer: Deliverer::from_bytes([7; 32]),
        arrival: Arrival::Stored,
        origin_is_proven,
        ..row_of_its_own(number)
    };
    let inbox = open();
    let tickets: Vec<_> = (0..90)
        .map(|n| inbox.insert(through_holder(n, false)))
        .collect();
    let held = tickets.into_iter().filter_map(|ticket| ticket.wait().ok());
    assert_eq!(held.count(), 30);
    drop(inbox);
    let inbox = open();
    let refused = inbox.insert(through_holder(100, false));
    assert_eq!(refused.wait().unwrap_err(), SpoolError::ShareFull);
    assert!(
        !inbox.contains(&row(100).hash),
        "a refused message may come again"
    );
    inbox.insert(through_holder(101, true)).wait().unwrap();
    let rows = inbox.read(DEFAULT_CONSUMER, None, Limit::default());
    let rows = rows.unwrap().into_iter().map(|row| row.message);
    let (strangers, friends): (Vec<_>, Vec<_>) = rows.partition(|row| !row.origin_is_proven);
    assert_eq!((strangers.len(), friends.len()), (30, 1));
    assert!(strangers.iter().all(|row| row.arrival == Arrival::Stored));
}

#[test]
fn retention_removes_what_nobody_acked() {
    let inbox = inbox(InboxConfig {
        retention_seconds: 10,
        ..InboxConfig::default()
    });
    insert(&inbox, 1..=2);
    inbox.add_consumer("second", Start::Oldest).wait().unwrap();
    inbox.ack_one("second", 2, NOW).wait().unwrap();
    let none = inbox.expire(NOW.saturating_add(10)).wait().unwrap();
    assert_eq!(none, InboxExpiry::default());
    let expiry = inbox.expire(NOW.saturating_add(11)).wait().unwrap();
    assert_eq!(expiry.expired, 2);
    let stats = inbox.stats();
    assert_eq!((stats.rows, stats.bytes, stats.expired), (0, 0, 2));
    assert!(stats.consumers.iter().all(|consumer| consumer.pending == 0));
    let again = inbox.insert(row(1)).wait().unwrap();
    assert_eq!(again, Inserted::AlreadyPresent);
}

#[test]
fn consumers_are_bounded_and_named() {
    let inbox = inbox(InboxConfig {
        max_consumers: 2,
        ..InboxConfig::default()
    });
    for name in ["", "two words", "line\n", &"x".repeat(65)] {
        let added = inbox.add_consumer(name, Start::Newest).wait();
        assert_eq!(added.unwrap_err(), SpoolError::InvalidName);
    }
    inbox.add_consumer("b", Start::Newest).wait().unwrap();
    let third = inbox.add_consumer("c", Start::Newest).wait();
    assert_eq!(third.unwrap_err(), SpoolError::TooManyConsumers);
}

#[test]
fn a_full_queue_makes_callers_wait() {
    let config = InboxConfig {
        writer: WriterConfig {
            queue_requests: 2,
            ..WriterConfig::default()
        },
        ..InboxConfig::default()
    };
    let journal = crate::disk::on(FaultyDisk::default().file(), config).unwrap();
    let inbox = Inbox {
        journal: Arc::new(journal),
    };
    // The writer stops at the state, which this thread holds.
    let tickets = inbox
        .journal
        .look(|_| (1..=3).map(|n| inbox.insert(row(n))).collect::<Vec<_>>());
    assert!(format!("{:?}", tickets[2]).contains("waiting"));
    let outcomes = futures::executor::block_on(futures::future::join_all(tickets));
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(inbox.stats().rows, 3);
}

/// An inbox in memory has neither a thread nor a queue.
#[test]
fn request_in_memory_is_answered_immediately() {
    let inbox = inbox(InboxConfig::default());
    let ticket = inbox.insert(row(1));
    assert_eq!(format!("{ticket:?}"), "Ticket(ready)");
    assert_eq!(inbox.stats().rows, 1);
    assert_eq!(ticket.wait(), Ok(Inserted::New(1)));
}

#[test]
fn new_rows_are_announced() {
    let inbox = inbox(InboxConfig::default());
    let mut newest = inbox.newest();
    assert_eq!(*newest.borrow_and_update(), 0);
    insert(&inbox, 1..=2);
    futures::executor::block_on(newest.changed()).unwrap();
    assert!(*newest.borrow() >= 1);
    inbox.close();
    assert_eq!(inbox.insert(row(9)).wait().unwrap_err(), SpoolError::Closed);
    let read = inbox.read(DEFAULT_CONSUMER, None, ALL);
    assert_eq!(read.unwrap_err(), SpoolError::Closed);
}

#[test]
fn a_stopped_runtime_loses_no_request() {
    let disk = FaultyDisk::default();
    let inbox = on(&disk).unwrap();
    drop((1..=50).map(|n| inbox.insert(row(n))).collect::<Vec<_>>());
    drop(inbox);
    assert_eq!(on(&disk).unwrap().stats().rows, 50);
}

#[test]
fn the_config_is_serde_data() {
    let config: InboxConfig = serde_json::from_str(r#"{"max_rows": 5}"#).unwrap();
    let expected = InboxConfig {
        max_rows: 5,
        ..InboxConfig::default()
    };
    assert_eq!(config, expected);
    serde_json::from_str::<InboxConfig>(r#"{"rows": 5}"#).unwrap_err();
}

/// The watcher of a node learns that nothing is taken any more.
#[test]
fn dead_writer_is_reported() {
    let inbox = on(&FaultyDisk::default()).unwrap();
    let mut failed = std::pin::pin!(inbox.failed());
    assert_eq!(failed.as_mut().now_or_never(), None);
    let died = inbox
        .journal
        .submit::<()>(0, |_, _| panic!("a damaged page"));
    assert_eq!(died.wait(), Err(SpoolError::Damaged));
    futures::executor::block_on(failed);
    let refused = inbox.insert(row(1)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Damaged);
}
