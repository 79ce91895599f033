//! The copy of the index: its crash order, and stores whose copy or log is damaged.

use super::*;
use crate::{
    copy::{COPY_NAME, NEW_COPY_NAME},
    test_util::Faults,
};

/// Rows that come and go over many segments, with a copy in the middle.
fn filled(disk: &FaultyDisk) -> Store {
    let store = Store::open_on(disk.clone(), small()).unwrap();
    for n in 0..40 {
        put(&store, message(n, (n % 3) as u8, 300)).unwrap();
        if n == 20 {
            block_on(store.checkpoint()).unwrap();
        }
    }
    block_on(store.purge(recipient(0))).unwrap();
    store
}

fn assert_filled(store: &Store, when: &str) {
    for to in 0..3_u8 {
        let expected: Vec<_> = (0..40)
            .filter(|n| to != 0 && n % 3 == u64::from(to))
            .collect();
        assert_eq!(numbers(store, to), expected, "mailbox {to}, {when}");
    }
    assert_sound(store);
}

/// The bytes of a file.
fn content(disk: &FaultyDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read(0, &mut bytes).unwrap();
    bytes
}

fn segments(disk: &FaultyDisk) -> Vec<String> {
    let mut names = disk.names().unwrap();
    names.retain(|name| crate::log::segment_number(name).is_some());
    names.sort();
    names
}

#[test]
fn a_crash_between_steps_loses_nothing() {
    let mut failed = 0;
    for step in 0.. {
        let disk = FaultyDisk::new();
        let store = filled(&disk);
        // Whatever was under way has ended.
        let _ = block_on(store.checkpoint());
        put(&store, message(100, 1, 10)).unwrap();
        block_on(store.delete(vec![RowId(101)], None)).unwrap();
        block_on(store.purge(recipient(9))).unwrap();
        let before = disk.operations();
        disk.set_faults(Faults {
            fail_at: Some(before + step),
            span: u64::MAX,
            ..Faults::default()
        });
        let outcome = block_on(store.checkpoint());
        failed += u32::from(outcome.is_err());
        for seed in 0..4 {
            for (left, when) in [(disk.crash(seed), "crashed"), (disk.kill(), "killed")] {
                let again = Store::open_on(left, small()).unwrap();
                let mut there = numbers(&again, 1);
                there.retain(|n| *n != 100);
                assert_eq!(
                    there,
                    (0..40).filter(|n| n % 3 == 1).collect::<Vec<_>>(),
                    "{when}"
                );
                assert!(numbers(&again, 0).is_empty(), "{when} before step {step}");
                assert_sound(&again);
            }
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert!(failed >= 6, "{failed} steps");
}

#[test]
fn opening_reads_only_the_end() {
    let disk = FaultyDisk::new();
    drop(filled(&disk));
    let before = disk.operations();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    assert_filled(&store, "closed");
    assert_eq!(disk.operations(), before, "nothing is written");
    // Everything before the copy's position is not read: a damaged record there is noticed when it is fetched.
    let first = segments(&disk).remove(0);
    drop(store);
    let file = disk.open(&first).unwrap();
    file.write(700, &[0xee; 8]).unwrap();
    let store = Store::open_on(disk, small()).unwrap();
    assert_eq!(store.stats().damaged, 0);
    let rows: usize = (0..3).map(|to| numbers(&store, to).len()).sum();
    assert_eq!((rows, store.stats().damaged), (25, 1));
    let _ = numbers(&store, 1);
    let _ = numbers(&store, 2);
    assert_eq!(store.stats().damaged, 1, "counted once");
}

#[test]
fn a_damaged_copy_is_made_again() {
    let disk = FaultyDisk::new();
    drop(filled(&disk));
    let length = content(&disk, COPY_NAME).len();
    for at in (0..length).step_by(97).chain(length - 20..length) {
        let left = disk.kill();
        let file = left.open(COPY_NAME).unwrap();
        let mut byte = [0];
        file.read(at as u64, &mut byte).unwrap();
        file.write(at as u64, &[byte[0] ^ 0x20]).unwrap();
        let store = Store::open_on(left.clone(), small()).unwrap();
        // Rows may come back whose deletion went with its segment; nothing is missing.
        for to in 1..3_u8 {
            let expected: Vec<_> = (0..40).filter(|n| n % 3 == u64::from(to)).collect();
            assert_eq!(numbers(&store, to), expected, "changed at {at}");
        }
        assert_sound(&store);
        block_on(store.checkpoint()).unwrap();
        drop(store);
        assert!(content(&left, COPY_NAME).len() > 100);
    }
    for cut in [0, 1, 35, 36, 44, length - 1] {
        let left = disk.kill();
        left.open(COPY_NAME).unwrap().set_size(cut as u64).unwrap();
        let store = Store::open_on(left, small()).unwrap();
        assert_eq!(numbers(&store, 1).len(), 13, "cut at {cut}");
        assert_sound(&store);
    }
}

#[test]
fn outdated_index_copy_is_not_used() {
    let disk = FaultyDisk::new();
    let store = filled(&disk);
    block_on(store.checkpoint()).unwrap();
    let old = content(&disk, COPY_NAME);
    // All segments of then are removed.
    for to in 1..3 {
        block_on(store.purge(recipient(to))).unwrap();
    }
    for n in 200..230 {
        put(&store, message(n, 5, 300)).unwrap();
        block_on(store.checkpoint()).unwrap();
    }
    drop(store);
    let file = disk.open(COPY_NAME).unwrap();
    file.set_size(0).unwrap();
    file.write(0, &old).unwrap();
    let store = Store::open_on(disk, small()).unwrap();
    assert_eq!(numbers(&store, 5), (200..230).collect::<Vec<_>>());
    assert_sound(&store);
}

#[test]
fn an_unfinished_copy_is_left_alone() {
    let disk = FaultyDisk::new();
    drop(filled(&disk));
    disk.open(NEW_COPY_NAME)
        .unwrap()
        .write(0, b"DHTSAFI")
        .unwrap();
    let store = Store::open_on(disk, small()).unwrap();
    assert_filled(&store, "with half a copy");
}

#[test]
fn a_changed_byte_costs_one_message() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    for n in 0..24 {
        let tickets: Vec<_> = (0..2)
            .map(|k| store.submit(message(n * 2 + k, 1, 150), NOW).unwrap())
            .collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
    }
    drop(store);
    disk.remove(COPY_NAME).unwrap();
    for name in segments(&disk) {
        for at in (0..content(&disk, &name).len()).step_by(13) {
            let left = disk.kill();
            let file = left.open(&name).unwrap();
            let mut byte = [0];
            file.read(at as u64, &mut byte).unwrap();
            file.write(at as u64, &[byte[0] ^ 0x04]).unwrap();
            let store = Store::open_on(left, small()).unwrap();
            let there = numbers(&store, 1);
            assert!(there.len() >= 47, "{name} at {at}: {there:?}");
            assert!(there.is_sorted());
            let lost = 48 - there.len() as u64;
            assert!(store.stats().damaged >= lost);
            assert_sound(&store);
            // The lost one can be stored again.
            for n in 0..48 {
                put(&store, message(n, 1, 150)).unwrap();
            }
            assert_eq!(numbers(&store, 1).len(), 48);
        }
    }
}

#[test]
fn a_home_of_version_1_opens() {
    let disk = FaultyDisk::new();
    let fixture = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/version-1/");
        std::fs::read(format!("{path}{name}")).unwrap()
    };
    let load = |disk: &FaultyDisk, damage: Option<(u32, usize)>| {
        for number in 0..4 {
            let name = crate::log::segment_name(number);
            let mut bytes = fixture(&name);
            if let Some((_, at)) = damage.filter(|(segment, _)| *segment == number) {
                bytes[at] ^= 0x01;
            }
            disk.open(&name).unwrap().write(0, &bytes).unwrap();
        }
        disk.open("index.redb").unwrap().write(0, b"redb").unwrap();
    };
    load(&disk, None);
    let store = Store::open_on(disk.clone(), small()).unwrap();
    let there = |store: &Store| -> Vec<u8> {
        let all = (0..3).flat_map(|to| everything(store, to, NOW));
        let mut all: Vec<_> = all.map(|record| record.header[0]).collect();
        all.sort_unstable();
        all
    };
    let expected: Vec<u8> = (0..24)
        .filter(|n| n % 3 != 2 && ![0, 4].contains(n))
        .collect();
    assert_eq!(there(&store), expected);
    assert_sound(&store);
    put(&store, message(500, 7, 10)).unwrap();
    block_on(store.checkpoint()).unwrap();
    assert!(!disk.names().unwrap().contains(&"index.redb".to_owned()));
    drop(store);
    let store = Store::open_on(disk, small()).unwrap();
    assert_eq!((there(&store), numbers(&store, 7)), (expected, vec![500]));

    // A changed byte costs one record of such a log, too: a message, or the deletions in its batch.
    for number in 0..3 {
        let length = fixture(&crate::log::segment_name(number)).len();
        for at in (16..length).step_by(11) {
            let disk = FaultyDisk::new();
            load(&disk, Some((number, at)));
            let store = Store::open_on(disk, small()).unwrap();
            let there = there(&store);
            let rest = (0..24).filter(|n| n % 3 != 2 && ![0, 4].contains(n));
            let lost = rest.filter(|n| !there.contains(n)).count();
            assert!(lost <= 1, "{number} at {at}: {there:?}");
            assert_sound(&store);
        }
    }
}
