//! Room that the files and the index take.

use super::*;

#[test]
fn a_store_keeps_within_little_room() {
    let nothing = Quota { rows: 0, bytes: 0 };
    let config = |room| StoreConfig {
        limits: Limits {
            capacity: room,
            per_recipient: room,
            per_deliverer: room,
            ..Limits::default()
        },
        queue_bytes: 0,
        segment_bytes: 0,
        checkpoint_bytes: 0,
        ..StoreConfig::default()
    };
    for room in [
        nothing,
        Quota { rows: 9, ..nothing },
        Quota {
            bytes: 9_000,
            ..nothing
        },
        Quota { rows: 1, bytes: 1 },
    ] {
        let store = Store::open_on(FaultyDisk::new(), config(room)).unwrap();
        let refused = block_on(store.insert(message(1, 1, 10), NOW));
        assert!(
            matches!(refused, Err(StoreError::Refused(_))),
            "{refused:?}"
        );
        assert_eq!(block_on(store.expire(NOW)).unwrap(), 0);
        block_on(store.checkpoint()).unwrap();
        assert_sound(&store);
    }
    let one = Quota {
        rows: 1,
        bytes: 1_000,
    };
    let mut limits = config(one);
    limits.limits.per_recipient.rows = 2;
    limits.limits.per_deliverer.rows = 2;
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), limits.clone()).unwrap();
    for n in 1..20 {
        block_on(store.insert(message(n, 1, 10), NOW)).unwrap();
        assert_eq!(numbers(&store, 1), [n]);
    }
    assert_sound(&store);
    let killed = Store::open_on(disk.kill(), limits).unwrap();
    assert_eq!(numbers(&killed, 1), [19]);
    // Nothing is written while nothing happens.
    block_on(store.checkpoint()).unwrap();
    let before = disk.operations();
    for _ in 0..1_000 {
        std::thread::yield_now();
        let _ = numbers(&store, 1);
    }
    assert!(disk.operations() <= before + 64, "it came to rest");
}

#[test]
fn the_index_stays_within_its_memory() {
    let config = StoreConfig {
        index_bytes: 11_512,
        ..small()
    };
    let store = Store::open_on(MemoryDisk::new(), config).unwrap();
    for n in 0..200 {
        put(&store, message(n, (n % 4) as u8, 10)).unwrap();
        assert!(store.stats().index_bytes <= 11_512);
    }
    let rows = store.stats().rows;
    assert!((30..40).contains(&rows), "{rows}");
    assert!(numbers(&store, 3).contains(&199), "the newest are kept");
    assert_sound(&store);
}

#[test]
fn turnovers_do_not_grow_the_files() {
    let room = Quota {
        rows: 200,
        bytes: 1 << 30,
    };
    let limits = Limits {
        capacity: room,
        per_recipient: room,
        per_deliverer: room,
        ..Limits::default()
    };
    // Segments of a tenth of the content.
    let config = StoreConfig {
        limits,
        segment_bytes: 64 << 10,
        checkpoint_bytes: 128 << 10,
        ..small()
    };
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), config).unwrap();
    let mut sizes = Vec::new();
    for turn in 0..=12 {
        for n in 0..200 {
            // Mailboxes fill and empty at random, so that segments die in pieces.
            put(
                &store,
                message(turn * 200 + n, ((n * 7 + turn) % 23) as u8, 3_000),
            )
            .unwrap();
        }
        block_on(store.checkpoint()).unwrap();
        sizes.push(disk.used());
    }
    let settled = sizes[2];
    assert!(
        sizes[3..].iter().all(|size| *size < settled * 13 / 10),
        "{sizes:?}"
    );
    assert_sound(&store);
}

/// Rows that stay keep the segments of those that were evicted beside them, until these are compacted: without a
/// checkpoint, and without a removal.
#[test]
fn evictions_do_not_grow_the_files() {
    let capacity = Quota {
        rows: 200,
        bytes: 1 << 30,
    };
    let config = StoreConfig {
        limits: Limits {
            capacity,
            per_recipient: capacity,
            per_deliverer: capacity,
            ..Limits::default()
        },
        segment_bytes: 64 << 10,
        checkpoint_bytes: 64 << 10,
        ..small()
    };
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), config).unwrap();
    for n in 0..1_200 {
        // The rows of mailbox 0 make room; one in eight has a mailbox of its own, and stays.
        let to = if n % 8 == 0 { 1 + n / 8 } else { 0 };
        let to = u8::try_from(to).unwrap();
        put(&store, message(n, to, 3_000)).unwrap();
    }
    // The removal of files is work of another thread.
    let mut more = 1_200;
    while disk.used() > 3 * 200 * 3_000 {
        put(&store, message(more, 0, 3_000)).unwrap();
        more += 1;
        assert!(more < 20_000, "{} bytes", disk.used());
    }
    assert_sound(&store);
}

#[test]
fn compaction_frees_scattered_deletions() {
    let config = StoreConfig {
        segment_bytes: 32 << 10,
        checkpoint_bytes: 64 << 10,
        ..small()
    };
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), config.clone()).unwrap();
    for n in 0..400 {
        put(&store, message(n, (n % 4) as u8, 2_000)).unwrap();
    }
    block_on(store.checkpoint()).unwrap();
    let full = disk.used();
    for to in 1..4 {
        block_on(store.purge(recipient(to))).unwrap();
    }
    // Compaction runs beside what else there is to do.
    for n in 1_000..1_060 {
        put(&store, message(n, 9, 10)).unwrap();
        block_on(store.checkpoint()).unwrap();
    }
    let names = disk.names().unwrap();
    let segments = names
        .iter()
        .filter(|name| crate::log::segment_number(name).is_some());
    let log = segments
        .map(|name| disk.open(name).unwrap().size().unwrap())
        .sum::<u64>();
    // A quarter of the messages lives; a quarter of the log may be dead, and the bytes of one segment.
    assert!(log < full * 3 / 8, "{log} of {full}");
    assert_eq!(numbers(&store, 0).len(), 100);
    assert_sound(&store);
    let killed = Store::open_on(disk.kill(), config).unwrap();
    assert_eq!(everything(&killed, 0, NOW), everything(&store, 0, NOW));
    assert_sound(&killed);
}
