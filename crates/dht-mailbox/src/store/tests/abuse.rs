//! Independence of mailboxes and deliverers from each other.

use super::*;

fn limits() -> Limits {
    let room = |rows| Quota {
        rows,
        bytes: rows * 1_000,
    };
    Limits {
        capacity: room(100),
        per_recipient: room(20),
        per_deliverer: room(50),
        max_body_bytes: 500,
    }
}

fn store() -> Store {
    let config = StoreConfig {
        limits: limits(),
        ..small()
    };
    Store::open_on(MemoryDisk::new(), config).unwrap()
}

fn by(deliverer: u8, record: NewRecord) -> NewRecord {
    NewRecord {
        deliverer: Deliverer::from_bytes([deliverer; 32]),
        ..record
    }
}

#[test]
fn stuffed_mailbox_leaves_others_room() {
    let store = store();
    let stuffed = (0..500).filter(|n| put(&store, by(1, message(*n, 1, 100))).is_ok());
    assert_eq!(stuffed.count(), 20);
    for n in 500..520 {
        put(&store, by(1, message(n, 2, 100))).unwrap();
    }
    assert_eq!(numbers(&store, 1), (0..20).collect::<Vec<_>>());
    assert_eq!(numbers(&store, 2).len(), 20);
    assert_sound(&store);
}

#[test]
fn large_messages_meet_byte_quota() {
    let mut limits = limits();
    limits.per_recipient.bytes = 5_000;
    let config = StoreConfig { limits, ..small() };
    let store = Store::open_on(MemoryDisk::new(), config).unwrap();
    let taken = (0..50).filter(|n| put(&store, by(1, message(*n, 1, 500))).is_ok());
    let each = crate::log::message_length(8, 500);
    assert_eq!(taken.count() as u64, 5_000 / each);
    put(&store, by(1, message(50, 2, 500))).unwrap();
    assert_sound(&store);
}

#[test]
fn deliverers_flood_spares_the_others() {
    let store = store();
    let mut refused = 0;
    for n in 0..2_000 {
        match put(&store, by(1, message(n, (n % 200) as u8, 100))) {
            Ok(_) => {}
            Err(StoreError::Refused(Refusal::DelivererQuota)) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 1_950);
    for n in 2_000..2_040 {
        put(&store, by(2, message(n, (n % 4) as u8, 100))).expect("half of the store is left");
    }
    assert_eq!(store.stats().rows, 90);
    assert_sound(&store);
}

#[test]
fn only_the_largest_mailboxes_are_evicted() {
    let store = store();
    put(&store, by(9, message(9_999, 250, 100))).unwrap();
    // More than the store holds, for five mailboxes.
    for n in 0..1_000 {
        let _ = put(&store, by((n % 4) as u8, message(n, (n % 5) as u8, 100)));
    }
    assert_eq!(numbers(&store, 250), [9_999], "the smallest is left alone");
    assert!(store.stats().rows <= 100);
    assert_sound(&store);
}

fn unmet(record: NewRecord) -> NewRecord {
    NewRecord {
        retention: Retention::Unmet,
        ..record
    }
}

/// Any number of mailboxes with one row, from many deliverers, takes nothing from a mailbox whose recipient was met.
#[test]
fn invented_mailboxes_take_no_honest_row() {
    let store = store();
    for n in 0..5 {
        put(&store, by(200, message(n, 250, 400))).unwrap();
    }
    let invented = (1_000..3_000).filter(|n| {
        let record = by((n % 97) as u8, message(*n, (n % 200) as u8, 10));
        put(&store, unmet(record)).is_ok()
    });
    assert!(invented.count() < 2_000, "some senders try other holders");
    assert_eq!(numbers(&store, 250), [0, 1, 2, 3, 4]);
    for n in 5..10 {
        put(&store, by(200, message(n, 250, 400))).expect("there is room for more");
    }
    assert_eq!(numbers(&store, 250).len(), 10);
    assert_sound(&store);
}

/// Deliverers that spread rows over any number of mailboxes take nothing from what another delivered to a small one,
/// whether none of the recipients was met or each of them.
#[test]
fn one_row_mailboxes_spare_small_one() {
    for retention in [Retention::Unmet, Retention::High] {
        let store = store();
        let row = |deliverer, n, to, size| NewRecord {
            retention,
            ..by(deliverer, message(n, to, size))
        };
        for n in 0..5 {
            put(&store, row(2, n, 250, 400)).unwrap();
        }
        for n in 1_000..3_000 {
            let _ = put(&store, row(1, n, (n % 200) as u8, 10));
            let _ = put(&store, row(3, n + 5_000, (n % 200) as u8, 10));
        }
        assert_eq!(numbers(&store, 250), [0, 1, 2, 3, 4], "{retention:?}");
        assert_sound(&store);
    }
}

/// A mailbox that one deliverer has filled has room for another deliverer.
#[test]
fn stuffed_mailbox_takes_other_deliverers() {
    let store = store();
    for n in 0..20 {
        put(&store, by(1, message(n, 1, 100))).unwrap();
    }
    let refused = put(&store, by(1, message(20, 1, 100)));
    assert!(matches!(
        refused,
        Err(StoreError::Refused(Refusal::RecipientQuota))
    ));
    for n in 100..110 {
        put(&store, by(2, message(n, 1, 100))).unwrap();
    }
    let half = (10..20).chain(100..110);
    assert_eq!(numbers(&store, 1), half.collect::<Vec<_>>());
    let refused = put(&store, by(2, message(110, 1, 100)));
    assert!(refused.is_err(), "both have their half");
    assert_sound(&store);
}

#[test]
fn refusals_leave_no_trace() {
    let store = store();
    for n in 0..20 {
        put(&store, by(1, message(n, 1, 100))).unwrap();
    }
    let before = store.stats();
    for n in 20..200 {
        assert!(put(&store, by(1, message(n, 1, 100))).is_err());
    }
    assert_eq!(store.stats(), before);
    // The refused message is not known: it is stored once there is room.
    block_on(store.purge(recipient(1))).unwrap();
    assert!(
        !put(&store, by(1, message(100, 1, 100)))
            .unwrap()
            .already_existed()
    );
}
