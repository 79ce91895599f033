mod abuse;
mod copies;
mod faults;
mod limits;
mod model;
mod room;
mod writer;

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer};

use super::*;
use crate::{
    config::{Durability, Lifetimes, Limits, Quota},
    disk::MemoryDisk,
    error::Refusal,
    query::Order,
    record::{Retention, StoredRecord},
    test_util::FaultyDisk,
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn recipient(n: u8) -> Recipient {
    Recipient::from_bytes([n; 32])
}

/// A message that `n` tells from all others, with a body of `size` bytes.
fn message(n: u64, to: u8, size: usize) -> NewRecord {
    let mut hash = [0xab; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    NewRecord {
        recipient: recipient(to),
        deliverer: Deliverer::from_bytes([to % 3; 32]),
        hash: DedupHash(hash),
        retention: Retention::High,
        expires: None,
        header: Bytes::from(n.to_le_bytes().to_vec()),
        body: Bytes::from(vec![n.to_le_bytes()[0]; size]),
    }
}

/// Small files, so that every path is taken within a few messages.
fn small() -> StoreConfig {
    StoreConfig {
        segment_bytes: 4_096,
        checkpoint_bytes: 8_192,
        ..StoreConfig::default()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn put(store: &Store, record: NewRecord) -> Result<Inserted, StoreError> {
    store.submit(record, NOW)?.wait()
}

fn everything(store: &Store, to: u8, now: UnixSeconds) -> Vec<StoredRecord> {
    let query = Query {
        limit: usize::MAX,
        max_bytes: usize::MAX,
        ..Query::all(recipient(to), now)
    };
    store.fetch(&query).unwrap().records
}

/// The `n` of every message in a mailbox.
fn numbers(store: &Store, to: u8) -> Vec<u64> {
    everything(store, to, NOW).iter().map(number).collect()
}

fn number(record: &StoredRecord) -> u64 {
    u64::from_le_bytes(record.header[..].try_into().unwrap())
}

fn assert_sound(store: &Store) {
    let found = store.verify().unwrap();
    assert_eq!(found.faults, Vec::<String>::new());
    assert_eq!(found.readable, found.rows);
    assert_eq!(store.stats().rows, found.rows);
}

#[test]
fn a_stored_row_is_served() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    let record = NewRecord {
        retention: Retention::Low,
        ..message(1, 1, 700)
    };
    let Inserted::Fresh(position) = put(&store, record.clone()).unwrap() else {
        panic!("it was new")
    };
    let found = everything(&store, 1, NOW);
    assert_eq!(
        found,
        [StoredRecord {
            id: position.id,
            recipient: recipient(1),
            stored_at: NOW,
            keep_until: NOW.saturating_add(6 * 60 * 60),
            hash: record.hash,
            retention: Retention::Low,
            header: record.header,
            body: record.body,
        }]
    );
    assert_eq!(everything(&store, 2, NOW), []);
}

#[test]
fn a_clash_changes_nothing() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    let before = everything(&store, 1, NOW);
    let again = NewRecord {
        retention: Retention::Low,
        body: Bytes::from_static(b"other"),
        ..message(1, 2, 10)
    };
    let answer = store
        .submit(again, NOW.saturating_add(99))
        .unwrap()
        .wait()
        .unwrap();
    assert!(answer.already_existed());
    assert_eq!(everything(&store, 1, NOW), before);
    assert_eq!((numbers(&store, 2), store.stats().rows), (vec![], 1));
}

#[test]
fn limits_and_orders_of_a_query() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    for n in 0..10 {
        store
            .submit(message(n, 1, 1_000), UnixSeconds(NOW.0 + n / 2))
            .unwrap()
            .wait()
            .unwrap();
    }
    let ask = |query: Query| {
        let page = store.fetch(&query).unwrap();
        (
            page.records.iter().map(number).collect::<Vec<_>>(),
            page.more,
        )
    };
    let all = Query::all(recipient(1), NOW);
    assert_eq!(ask(Query { limit: 3, ..all }), (vec![0, 1, 2], true));
    assert_eq!(
        ask(Query {
            limit: 3,
            order: Order::NewestFirst,
            ..all
        }),
        (vec![9, 8, 7], true)
    );
    assert_eq!(ask(Query { limit: 0, ..all }), (vec![], true));
    assert_eq!(ask(Query { limit: 10, ..all }), ((0..10).collect(), false));
    assert_eq!(
        ask(Query {
            from: Some(UnixSeconds(NOW.0 + 4)),
            ..all
        }),
        (vec![8, 9], false)
    );
    assert_eq!(
        ask(Query {
            max_bytes: 2_500,
            ..all
        }),
        (vec![0, 1], true)
    );
    assert_eq!(
        ask(Query {
            max_bytes: 1,
            ..all
        }),
        (vec![0], true),
        "at least one row"
    );
    let after = store.fetch(&Query { limit: 3, ..all }).unwrap().records[2].position();
    assert_eq!(
        ask(Query {
            after: Some(after),
            limit: 2,
            ..all
        }),
        (vec![3, 4], true)
    );
    assert_eq!(
        ask(Query {
            from: Some(UnixSeconds(u64::MAX)),
            ..all
        }),
        (vec![], false)
    );
}

#[test]
fn deletion_keeps_to_ids_and_owner() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    let mut rows = Vec::new();
    for n in 0..6 {
        let to = if n < 3 { 1 } else { 2 };
        let Inserted::Fresh(position) = put(&store, message(n, to, 10)).unwrap() else {
            panic!()
        };
        rows.push(position.id);
    }
    assert_eq!(
        block_on(store.delete(vec![rows[0], rows[3], RowId(999)], Some(recipient(1)))).unwrap(),
        1
    );
    assert_eq!(
        (numbers(&store, 1), numbers(&store, 2)),
        (vec![1, 2], vec![3, 4, 5])
    );
    assert_eq!(
        block_on(store.delete(vec![rows[3], rows[3]], None)).unwrap(),
        1
    );
    assert_eq!(block_on(store.purge(recipient(1))).unwrap(), 2);
    assert_eq!(
        (numbers(&store, 1), numbers(&store, 2)),
        (vec![], vec![4, 5])
    );
    assert_sound(&store);
}

#[test]
fn deleted_rows_can_be_stored_again() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    block_on(store.purge(recipient(1))).unwrap();
    assert!(!put(&store, message(1, 1, 10)).unwrap().already_existed());
    let again = Store::open_on(disk.kill(), small()).unwrap();
    assert_eq!(numbers(&again, 1), [1]);
    assert_sound(&again);
}

#[test]
fn a_restart_keeps_every_row() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    for n in 0..50 {
        put(&store, message(n, (n % 4) as u8, 300)).unwrap();
    }
    block_on(store.purge(recipient(3))).unwrap();
    let before: Vec<_> = (0..4).map(|to| everything(&store, to, NOW)).collect();
    let killed = Store::open_on(disk.kill(), small()).unwrap();
    let crashed = Store::open_on(disk.crash(7), small()).unwrap();
    drop(store);
    let closed = Store::open_on(disk, small()).unwrap();
    for again in [killed, crashed, closed] {
        assert_eq!(
            (0..4)
                .map(|to| everything(&again, to, NOW))
                .collect::<Vec<_>>(),
            before
        );
        assert_sound(&again);
        let Inserted::Fresh(position) = put(&again, message(99, 1, 10)).unwrap() else {
            panic!()
        };
        assert_eq!(position.id, RowId(51), "numbers are not used twice");
    }
}

#[test]
fn eventual_rows_survive_the_process() {
    let disk = FaultyDisk::new();
    let config = StoreConfig {
        durability: Durability::Eventual,
        ..small()
    };
    let store = Store::open_on(disk.clone(), config.clone()).unwrap();
    for n in 0..40 {
        put(&store, message(n, 1, 300)).unwrap();
    }
    let killed = Store::open_on(disk.kill(), config.clone()).unwrap();
    assert_eq!(numbers(&killed, 1), (0..40).collect::<Vec<_>>());
    for seed in 0..20 {
        // A power failure may take the last ones, but what is there is whole.
        let crashed = Store::open_on(disk.crash(seed), config.clone()).unwrap();
        let there = numbers(&crashed, 1);
        assert!(there.iter().all(|n| *n < 40));
        put(&crashed, message(100, 1, 300)).unwrap();
        assert!(numbers(&crashed, 1).contains(&100));
    }
    block_on(store.checkpoint()).unwrap();
    for seed in 0..20 {
        let crashed = Store::open_on(disk.crash(seed), config.clone()).unwrap();
        assert_eq!(numbers(&crashed, 1).len(), 40, "durable after a checkpoint");
        assert_sound(&crashed);
    }
}

#[test]
fn later_file_version_is_refused() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    drop(store);
    let mut head = *b"DHTSAF\x03\x00\x07\x00\x00\x00\x01\x02\x03\x04....";
    let check = crc32fast::hash(&head[..16]);
    head[16..].copy_from_slice(&check.to_le_bytes());
    disk.open(&crate::log::segment_name(7))
        .unwrap()
        .write(0, &head)
        .unwrap();
    let opened = Store::open_on(disk, small());
    assert!(
        matches!(opened, Err(StoreError::NewerFormat { found: 3, known: 2 })),
        "{opened:?}"
    );
}

#[test]
fn a_directory_belongs_to_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), small()).unwrap();
    assert!(matches!(
        Store::open(directory.path(), small()),
        Err(StoreError::Locked)
    ));
    put(&store, message(1, 1, 10)).unwrap();
    drop(store);
    let store = Store::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&store, 1), [1]);
}

#[test]
fn a_closed_store_says_so() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    let waiting = store.submit(message(1, 1, 10), NOW).unwrap();
    store.close();
    assert!(waiting.wait().is_ok(), "what is queued is committed");
    assert!(matches!(
        put(&store, message(2, 1, 10)),
        Err(StoreError::Closed)
    ));
}

#[test]
fn memory_answers_on_the_callers_thread() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    assert!(!store.blocks());
    let mut ticket = pin!(store.submit(message(1, 1, 10), NOW).unwrap());
    let answer = ticket
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(answer, Poll::Ready(Ok(_))), "{answer:?}");
}

#[test]
fn the_queue_is_bounded() {
    let store = Store::open_on(
        FaultyDisk::new(),
        StoreConfig {
            queue_bytes: 4_096,
            ..small()
        },
    )
    .unwrap();
    // One writer drains what one caller adds, so the bound is seen with a request of its whole size waiting.
    let outcomes: Vec<_> = (0..2_000)
        .map(|n| store.submit(message(n, 1, 3_000), NOW))
        .collect();
    assert!(
        outcomes
            .iter()
            .any(|outcome| matches!(outcome, Err(StoreError::Busy)))
    );
    for ticket in outcomes.into_iter().flatten() {
        ticket.wait().unwrap();
    }
}

#[test]
fn a_missing_copy_is_rebuilt() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    for n in 0..40 {
        put(&store, message(n, 1, 300)).unwrap();
    }
    drop(store);
    disk.remove(crate::copy::COPY_NAME).unwrap();
    let store = Store::open_on(disk, small()).unwrap();
    assert_eq!(numbers(&store, 1), (0..40).collect::<Vec<_>>());
    assert_sound(&store);
}

#[test]
fn readers_see_whole_commits() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let found = numbers(&store, 1);
                assert!(found.is_sorted(), "{found:?}");
                reads += 1;
            }
            reads
        });
        for n in 0..300 {
            put(&store, message(n, 1, 500)).unwrap();
            if n % 50 == 49 {
                block_on(store.purge(recipient(1))).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_sound(&store);
}
