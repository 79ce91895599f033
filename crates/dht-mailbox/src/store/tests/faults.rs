//! Disks that fail, tear, fill up and lose power.

use std::collections::BTreeMap;

use super::*;
use crate::test_util::Faults;

#[test]
fn a_full_disk_refuses_and_recovers() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    for n in 0..10 {
        put(&store, message(n, 1, 300)).unwrap();
    }
    disk.set_faults(Faults {
        capacity: Some(disk.used() + 500),
        ..Faults::default()
    });
    let outcomes: Vec<_> = (10..30)
        .map(|n| (n, put(&store, message(n, 1, 300))))
        .collect();
    let refused: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_err())
        .map(|(n, _)| *n)
        .collect();
    assert!(refused.len() >= 15, "{outcomes:?}");
    assert!(
        outcomes
            .iter()
            .all(|(_, outcome)| matches!(outcome, Ok(_) | Err(StoreError::DiskFull)))
    );
    let stored: Vec<_> = (0..30).filter(|n| !refused.contains(n)).collect();
    assert_eq!(numbers(&store, 1), stored, "reading goes on");
    assert_sound(&store);

    disk.set_faults(Faults::default());
    for n in refused {
        put(&store, message(n, 1, 300)).unwrap();
    }
    assert_eq!(numbers(&store, 1).len(), 30);
    assert_sound(&store);
}

#[test]
fn a_copy_without_room_costs_nothing() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    block_on(store.checkpoint()).unwrap();
    for n in 0..200 {
        put(&store, message(n, 1, 30)).unwrap();
    }
    // The index has grown in memory, and finds no room for it.
    let full = Faults {
        capacity: Some(0),
        ..Faults::default()
    };
    disk.set_faults(full);
    assert!(matches!(
        block_on(store.checkpoint()),
        Err(StoreError::DiskFull)
    ));
    assert_eq!(numbers(&store, 1).len(), 200, "reading goes on");
    assert!(matches!(
        put(&store, message(200, 1, 30)),
        Err(StoreError::DiskFull)
    ));
    assert_eq!(numbers(&store, 1).len(), 200, "also after a refusal");
    assert_sound(&store);
    let killed = disk.kill();
    killed.set_faults(full);
    let again = Store::open_on(killed, small()).expect("opening needs no room");
    assert_eq!(numbers(&again, 1).len(), 200);
    drop(again);

    disk.set_faults(Faults::default());
    put(&store, message(200, 1, 30)).unwrap();
    block_on(store.checkpoint()).unwrap();
    for left in [disk.kill(), disk.crash(3)] {
        let again = Store::open_on(left, small()).unwrap();
        assert_eq!(numbers(&again, 1).len(), 201);
        assert_sound(&again);
    }
}

#[test]
fn truncated_index_copy_is_rewritten() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    drop(store);
    for cut in [1, 8, 4_096] {
        let left = disk.kill();
        let copy = left.open(crate::copy::COPY_NAME).unwrap();
        copy.write(0, &[0; 9]).unwrap();
        copy.set_size(cut).unwrap();
        let again = Store::open_on(left, small()).unwrap();
        assert_eq!(numbers(&again, 1), [1]);
        assert_sound(&again);
    }
}

/// A workload with every kind of request; what was acknowledged, and what was refused.
fn workload(store: &Store) -> (BTreeMap<u64, u8>, Vec<u64>) {
    let (mut stored, mut refused) = (BTreeMap::new(), Vec::new());
    for n in 0..60 {
        let to = (n % 3) as u8;
        match put(
            store,
            message(n, to, 200 + usize::try_from(n * 37 % 500).unwrap()),
        ) {
            Ok(_) => drop(stored.insert(n, to)),
            Err(_) => refused.push(n),
        }
        if n == 30 && block_on(store.purge(recipient(0))).is_ok() {
            stored.retain(|_, to| *to != 0);
        }
        if n == 45 {
            // The outcome does not matter, only that nothing is lost by it.
            let _ = block_on(store.checkpoint());
        }
    }
    (stored, refused)
}

/// `may_return`: messages that were refused, but whose bytes could not be taken back either.
fn assert_holds(
    store: &Store,
    stored: &BTreeMap<u64, u8>,
    may_return: &[u64],
    purge_failed: bool,
    when: &str,
) {
    for to in 0..3 {
        let expected: Vec<_> = stored
            .iter()
            .filter(|(_, t)| **t == to)
            .map(|(n, _)| *n)
            .collect();
        let mut found = numbers(store, to);
        found.retain(|n| !may_return.contains(n));
        if to == 0 && purge_failed {
            // A purge that fails may have taken a part.
            assert!(found.iter().all(|n| stored.contains_key(n)));
        } else {
            assert_eq!(found, expected, "mailbox {to} {when}");
        }
    }
    assert_eq!(
        store.verify().unwrap().faults,
        Vec::<String>::new(),
        "{when}"
    );
    assert_sound(store);
}

#[test]
fn every_operation_may_fail_once() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    let opening = disk.operations();
    let (stored, refused) = workload(&store);
    drop(store);
    assert_eq!((stored.len(), refused.len()), (49, 0));
    let total = disk.operations();
    assert!(total > opening + 100);

    for at in opening..total {
        for (span, tear) in [(1, false), (1, true), (5, true)] {
            let disk = FaultyDisk::new();
            let store = Store::open_on(disk.clone(), small()).unwrap();
            disk.set_faults(Faults {
                fail_at: Some(at),
                span,
                tear,
                capacity: None,
                ..Faults::default()
            });
            let context = format!("fault at {at} for {span}, torn {tear}");
            let (stored, refused) = workload(&store);
            let may_return = if span == 1 { &[][..] } else { &refused };
            disk.set_faults(Faults::default());
            // The next insertion mends what is broken.
            put(&store, message(1_000, 5, 10))
                .unwrap_or_else(|error| panic!("fault {at}: {error}"));
            let purge_failed = stored.values().any(|to| *to == 0) && stored.contains_key(&0);
            let holds = |store: &Store, when| {
                assert_holds(
                    store,
                    &stored,
                    may_return,
                    purge_failed,
                    &format!("{when}, {context}"),
                );
            };
            holds(&store, "at once");
            holds(&Store::open_on(disk.kill(), small()).unwrap(), "killed");
            holds(&Store::open_on(disk.crash(at), small()).unwrap(), "crashed");
        }
    }
}

#[test]
fn a_power_failure_takes_nothing_acknowledged() {
    for seed in 0..60_u64 {
        let disk = FaultyDisk::new();
        let store = Store::open_on(disk.clone(), small()).unwrap();
        let mut acknowledged = Vec::new();
        for n in 0..seed {
            let waiting: Vec<_> = (0..4)
                .map(|k| store.submit(message(n * 4 + k, 1, 150), NOW).unwrap())
                .collect();
            for (k, ticket) in waiting.into_iter().enumerate() {
                ticket.wait().unwrap();
                acknowledged.push(n * 4 + k as u64);
            }
        }
        let crashed = Store::open_on(disk.crash(seed), small()).unwrap();
        assert_eq!(numbers(&crashed, 1), acknowledged);
        assert_sound(&crashed);
    }
}
