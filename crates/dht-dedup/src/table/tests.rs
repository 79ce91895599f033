use std::{collections::HashMap, thread};

use proptest::prelude::*;

use super::*;
use crate::MIN_RETENTION_SECONDS;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const SIGNED: DedupMeta = DedupMeta {
    signed: true,
    expires: None,
};
const UNSIGNED: DedupMeta = DedupMeta {
    signed: false,
    expires: None,
};

fn key(n: u64) -> DedupHash {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    DedupHash(key)
}

#[test]
fn b042_counts_are_inclusive_and_per_key() {
    let table = DedupTable::new(10, [0; 16]);
    let empty = DedupHash([0; 32]);
    let counts = [key(1), key(1), empty].map(|key| table.record(&key, UNSIGNED, NOW));
    assert_eq!(counts, [1, 2, 1]);
    assert_eq!(table.count(&key(1)), 2);
    assert_eq!(table.count(&key(2)), 0);
}

#[test]
fn b043_least_recently_seen_lapsed_entries_go() {
    let table = DedupTable::new(10, [0; 16]);
    for n in 0..20 {
        assert_eq!(table.record(&key(n), UNSIGNED, NOW), 1);
    }
    for n in 0..20 {
        assert_eq!(table.record(&key(n), UNSIGNED, NOW), 2);
    }
    let later = NOW.saturating_add(MIN_RETENTION_SECONDS + 1);
    assert_eq!(table.trim(later), 10);
    for n in 10..20 {
        assert_eq!(table.record(&key(n), UNSIGNED, later), 3);
    }
    for n in 0..10 {
        assert_eq!(table.record(&key(n), UNSIGNED, later), 1);
    }
}

#[test]
fn b045_concurrent_first_occurrences_are_counted() {
    let table = DedupTable::new(50_000, [1; 16]);
    let counts: Vec<u32> = thread::scope(|scope| {
        let table = &table;
        let workers: Vec<_> = (0..100)
            .map(|n| scope.spawn(move || table.record(&key(n), SIGNED, NOW)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    assert_eq!(counts, [1; 100]);
    assert_eq!(table.len(), 100);
}

#[test]
fn concurrent_copies_get_distinct_counts() {
    let table = DedupTable::new(50_000, [1; 16]);
    let mut counts: Vec<u32> = thread::scope(|scope| {
        let table = &table;
        let workers: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || table.record(&key(1), SIGNED, NOW)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn b049_unexpired_entries_are_not_trimmed() {
    let table = DedupTable::new(10, [0; 16]);
    for n in 0..99 {
        table.record(&key(n), UNSIGNED, NOW);
    }
    assert_eq!(table.trim(NOW), 0);
    assert_eq!(table.len(), 99);
    assert!((0..99).all(|n| table.count(&key(n)) == 1));
}

#[test]
fn unsigned_entries_go_before_signed() {
    let table = DedupTable::new(10, [0; 16]);
    assert_eq!(table.ceiling(), 100);
    for n in 0..50 {
        table.record(&key(n), SIGNED, NOW);
    }
    for n in 50..1_000 {
        table.record(&key(n), UNSIGNED, NOW);
        assert!(table.len() <= 100);
    }
    assert!(
        (0..50).all(|n| table.count(&key(n)) == 1),
        "signed entries outlive a flood of unsigned ones"
    );
    for n in 1_000..2_000 {
        table.record(&key(n), SIGNED, NOW);
        assert!(table.len() <= 100);
    }
    assert_eq!(table.count(&key(1_999)), 1);
    assert_eq!(table.count(&key(0)), 0);
}

/// At the ceiling one entry goes for each that comes, and the others stay.
#[test]
fn one_entry_goes_at_the_ceiling() {
    let table = DedupTable::new(10, [0; 16]);
    for n in 0..100 {
        table.record(&key(n), SIGNED, NOW);
    }
    table.record(&key(0), SIGNED, NOW);
    table.record(&key(100), SIGNED, NOW);
    assert_eq!(table.len(), 100);
    assert_eq!(table.count(&key(1)), 0, "the least recently seen one");
    assert_eq!(table.count(&key(0)), 2);
    assert!((2..=100).all(|n| table.count(&key(n)) == 1));
    // Of what has lapsed, as much goes as is beyond the capacity.
    let later = NOW.saturating_add(crate::MAX_RETENTION_SECONDS + 1);
    table.record(&key(101), SIGNED, later);
    assert_eq!(table.len(), 11);
}

/// The table has no write that can fail. What comes closest is a table without room: there too, a message that was
/// let through once is a repeat right after.
#[test]
fn b044_table_without_room_still_counts() {
    for capacity in [1, 3, 700] {
        let table = DedupTable::new(capacity, [6; 16]);
        for n in 0..20_000 {
            let meta = if n % 2 == 0 { SIGNED } else { UNSIGNED };
            assert_eq!(table.record(&key(n), meta, NOW), 1);
            assert_eq!(table.record(&key(n), meta, NOW), 2, "copy of {n}");
        }
        assert!(table.len() <= table.ceiling());
    }
}

#[test]
fn inserting_trims_by_itself() {
    let table = DedupTable::new(10, [0; 16]);
    for n in 0..50 {
        table.record(&key(n), UNSIGNED, NOW);
    }
    let later = NOW.saturating_add(MIN_RETENTION_SECONDS + 1);
    // Trimmed once in every 100 inserts.
    for n in 50..100 {
        table.record(&key(n), UNSIGNED, later);
    }
    assert_eq!(table.count(&key(0)), 0);
    assert_eq!(table.count(&key(99)), 1);
}

#[test]
fn repeat_never_shortens_retention() {
    let table = DedupTable::new(1, [0; 16]);
    let long = DedupMeta {
        signed: true,
        expires: Some(NOW.saturating_add(20 * 3_600)),
    };
    table.record(&key(1), long, NOW);
    table.record(&key(1), UNSIGNED, NOW);
    table.record(&key(2), long, NOW);
    assert_eq!(table.trim(NOW.saturating_add(20 * 3_600)), 0);
    assert_eq!(table.trim(NOW.saturating_add(21 * 3_600)), 1);
}

#[test]
fn own_messages_are_seeded_once() {
    let table = DedupTable::new(10, [0; 16]);
    assert_eq!(table.seed(&key(1), SIGNED, NOW), 1);
    assert_eq!(table.seed(&key(1), SIGNED, NOW), 1);
    assert_eq!(table.record(&key(1), SIGNED, NOW), 2);
}

#[test]
fn repeats_count_from_the_limit_on() {
    let table = DedupTable::new(10, [0; 16]);
    assert_eq!(table.record_repeat(&key(1), SIGNED, 1, NOW), None);
    assert_eq!(table.count(&key(1)), 0);
    table.record(&key(1), SIGNED, NOW);
    assert_eq!(table.record_repeat(&key(1), SIGNED, 2, NOW), None);
    assert_eq!(table.record_repeat(&key(1), SIGNED, 1, NOW), Some(2));
    assert_eq!(table.record_repeat(&key(1), SIGNED, 2, NOW), Some(3));
}

#[test]
fn snapshot_restores_unexpired_entries() {
    let table = DedupTable::new(5_000, [3; 16]);
    for n in 0..3_000 {
        table.record(&key(n), if n % 2 == 0 { SIGNED } else { UNSIGNED }, NOW);
    }
    table.record(&key(0), SIGNED, NOW);
    let snapshot = table.snapshot();
    assert_eq!(snapshot.len(), 3_000);

    let later = NOW.saturating_add(MIN_RETENTION_SECONDS + 1);
    let restored = DedupTable::new(5_000, [4; 16]);
    restored.record(&key(2), SIGNED, later);
    assert_eq!(restored.restore(snapshot, later), 1_500);
    assert_eq!(restored.len(), 1_500);
    assert_eq!(restored.count(&key(0)), 2);
    assert_eq!(restored.count(&key(1)), 0);
    assert_eq!(restored.record(&key(2), SIGNED, later), 2);
}

proptest! {
    /// Below the ceiling the table is a map of counts, whatever the order and the seed.
    #[test]
    fn counts_like_a_map(keys in proptest::collection::vec(0..40_u64, 0..200), seed in any::<[u8; 16]>()) {
        let table = DedupTable::new(10, seed);
        let mut model = HashMap::new();
        for n in keys {
            let expected = model.entry(n).and_modify(|occurrences| *occurrences += 1).or_insert(1_u32);
            prop_assert_eq!(table.record(&key(n), SIGNED, NOW), *expected);
        }
        prop_assert_eq!(table.len(), model.len());
    }

    /// At the ceiling, what goes is the least recently seen unsigned entry, or else signed one.
    #[test]
    fn eviction_follows_the_model(steps in proptest::collection::vec((0..40_u64, any::<bool>()), 0..400)) {
        let table = DedupTable::new(2, [5; 16]);
        // Key and whether it is signed, least recently seen first.
        let mut model: Vec<(u64, bool)> = Vec::new();
        for (n, signed) in steps {
            table.record(&key(n), DedupMeta { signed, expires: None }, NOW);
            match model.iter().position(|(known, _)| *known == n) {
                Some(at) => {
                    let known = model.remove(at);
                    model.push(known);
                }
                None => {
                    if model.len() == 20 {
                        model.remove(model.iter().position(|(_, signed)| !signed).unwrap_or(0));
                    }
                    model.push((n, signed));
                }
            }
            let kept = (0..40).filter(|n| table.count(&key(*n)) > 0);
            let mut expected: Vec<_> = model.iter().map(|(n, _)| *n).collect();
            expected.sort_unstable();
            prop_assert_eq!(kept.collect::<Vec<_>>(), expected);
        }
    }

    /// The ceiling holds for any mix, and what is newest is never what was evicted.
    #[test]
    fn the_ceiling_is_hard(capacity in 1..40_usize, entries in proptest::collection::vec((any::<u16>(), any::<bool>(), 0..200_000_u64), 0..800)) {
        let table = DedupTable::new(capacity, [5; 16]);
        let mut now = NOW;
        for (n, signed, pause) in entries {
            now = now.saturating_add(pause % 1_000);
            let occurrences = table.record(&key(n.into()), DedupMeta { signed, expires: None }, now);
            prop_assert!(occurrences >= 1);
            prop_assert_eq!(table.count(&key(n.into())), occurrences);
            prop_assert!(table.len() <= capacity * CEILING_FACTOR);
        }
    }
}

#[test]
fn refused_messages_are_forgotten() {
    let table = DedupTable::new(100, [0; 16]);
    let (key, meta) = (
        DedupHash([1; 32]),
        DedupMeta {
            signed: true,
            expires: None,
        },
    );
    let now = UnixSeconds(1_700_000_000);
    let reservation = table.reserve(&key, meta, now).unwrap();
    assert!(table.is_reserved(&key));
    // Whoever comes meanwhile is a repeat, and no restart remembers what is not committed.
    assert_eq!(table.reserve(&key, meta, now).unwrap_err(), 2);
    assert_eq!(table.record(&key, meta, now), 3);
    assert_eq!(table.record_repeat(&key, meta, 1, now), Some(4));
    assert_eq!(table.snapshot(), []);
    drop(reservation);
    assert_eq!((table.count(&key), table.is_reserved(&key)), (0, false));
    table.reserve(&key, meta, now).unwrap().commit();
    assert_eq!((table.count(&key), table.is_reserved(&key)), (1, false));
    assert_eq!(table.reserve(&key, meta, now).unwrap_err(), 2);
    assert_eq!(table.snapshot().len(), 1);
}

/// Of many threads that reserve one message, one at a time has it; whoever refuses it lets the next have it.
#[test]
fn one_claim_at_a_time() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let table = DedupTable::new(100, [0; 16]);
    let (key, meta) = (
        DedupHash([1; 32]),
        DedupMeta {
            signed: true,
            expires: None,
        },
    );
    let now = UnixSeconds(1_700_000_000);
    let (held, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    if let Ok(reservation) = table.reserve(&key, meta, now) {
                        assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(reservation);
                    }
                }
            });
        }
    });
    assert!(taken.into_inner() > 0);
    assert_eq!(table.count(&key), 0);
    table.reserve(&key, meta, now).unwrap().commit();
}

/// Whatever is entered meanwhile, and however long it takes: a reserved message is a repeat until its reservation ends.
#[test]
fn reserved_entries_are_never_evicted() {
    let table = DedupTable::new(4, [0; 16]);
    let meta = |signed| DedupMeta {
        signed,
        expires: None,
    };
    let key = |n: u32| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        DedupHash(hash)
    };
    let now = UnixSeconds(1_700_000_000);
    let reservation = table.reserve(&key(0), meta(false), now).unwrap();
    let later = now.saturating_add(MAX_DELIVERED_SECONDS + 1);
    for n in 1..1_000 {
        table.record(&key(n), meta(true), later);
    }
    table.trim(later);
    assert!(table.is_reserved(&key(0)));
    assert_eq!(table.reserve(&key(0), meta(false), later).unwrap_err(), 2);
    reservation.commit();
    assert_eq!(
        (table.count(&key(0)), table.is_reserved(&key(0))),
        (2, false)
    );
}

/// A sender tries for three days, and other nodes store the message as long.
#[test]
fn delivered_messages_outlive_relayed_ones() {
    const DAYS: u64 = 24 * 60 * 60;
    let table = DedupTable::new(10, [0; 16]);
    let expires = Some(NOW.saturating_add(3 * DAYS));
    let meta = DedupMeta {
        signed: true,
        expires,
    };
    table.reserve(&key(1), meta, NOW).unwrap().commit();
    table.record(&key(2), meta, NOW);
    let restored = DedupTable::new(10, [1; 16]);
    restored.restore(table.snapshot(), NOW);
    for table in [table, restored] {
        let last = NOW.saturating_add(3 * DAYS);
        for n in 3..50 {
            table.record(&key(n), UNSIGNED, last);
        }
        table.trim(last);
        assert_eq!(table.reserve(&key(1), meta, last).unwrap_err(), 2);
        assert_eq!(table.count(&key(2)), 0, "it is not remembered for longer");
    }
}

#[test]
fn refused_messages_are_no_repeats() {
    let (table, meta) = (DedupTable::new(100, [7; 16]), SIGNED);
    let key = DedupHash([1; 32]);
    let later = NOW.saturating_add(5);
    table.set_store_refused(&key, Some(NOW));
    assert!(!table.may_be_stored_again(&key, later) && table.is_empty());
    table.record(&key, meta, NOW);
    assert_eq!(table.record_repeat(&key, meta, 1, NOW), Some(2));
    table.set_store_refused(&key, Some(NOW));
    let soon = NOW.saturating_add(4);
    assert_eq!(table.record_repeat(&key, meta, 1, soon), Some(3));
    assert!(!table.may_be_stored_again(&key, soon));
    assert_eq!(table.record_repeat(&key, meta, 1, later), None);
    assert!(table.may_be_stored_again(&key, later));
    let set_back = UnixSeconds(NOW.0 - 1);
    assert!(
        table.may_be_stored_again(&key, set_back),
        "a clock may be set back"
    );
    assert_eq!(table.snapshot(), [], "a new run knows nothing of it");
    table.set_store_refused(&key, None);
    assert_eq!(table.record_repeat(&key, meta, 1, later), Some(4));
}

#[test]
fn lost_messages_are_new_again() {
    let table = DedupTable::new(100, [7; 16]);
    for n in 1..=3 {
        table.record(&key(n), SIGNED, NOW);
    }
    let reservation = table.reserve(&key(4), SIGNED, NOW).unwrap();
    assert_eq!(table.forget(|hash| *hash == key(2)), 1);
    assert_eq!(table.record(&key(2), SIGNED, NOW), 1);
    assert_eq!(table.forget(|hash| *hash != key(2)), 2);
    assert_eq!((table.count(&key(2)), table.count(&key(1))), (1, 0));
    reservation.commit();
    assert_eq!(table.count(&key(4)), 1);
}
