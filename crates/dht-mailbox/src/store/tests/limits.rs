//! Lifetimes and quotas.

use super::*;

#[test]
fn classes_expire_at_their_own_time() {
    let store = Store::open_on(MemoryDisk::new(), small()).unwrap();
    put(
        &store,
        NewRecord {
            retention: Retention::Low,
            ..message(1, 1, 10)
        },
    )
    .unwrap();
    put(&store, message(2, 1, 10)).unwrap();
    put(
        &store,
        NewRecord {
            expires: Some(NOW.saturating_add(60)),
            ..message(3, 1, 10)
        },
    )
    .unwrap();
    let at = |seconds| {
        let now = NOW.saturating_add(seconds);
        let served: Vec<_> = everything(&store, 1, now).iter().map(number).collect();
        (served, block_on(store.expire(now)).unwrap())
    };
    assert_eq!(at(60), (vec![1, 2, 3], 0), "the last second counts");
    assert_eq!(at(61), (vec![1, 2], 1));
    assert_eq!(at(7 * 3_600), (vec![2], 1));
    assert_eq!(at(3 * 86_400), (vec![2], 0));
    assert_eq!(at(3 * 86_400 + 1), (vec![], 1));
    assert_eq!(store.stats().rows, 0);
    assert_sound(&store);
}

#[test]
fn time_limits_of_senders_are_optional() {
    let lifetimes = Lifetimes {
        honour_expires: false,
        ..Lifetimes::default()
    };
    let store = Store::open_on(
        MemoryDisk::new(),
        StoreConfig {
            lifetimes,
            ..small()
        },
    )
    .unwrap();
    put(
        &store,
        NewRecord {
            expires: Some(UnixSeconds(1)),
            ..message(1, 1, 10)
        },
    )
    .unwrap();
    assert_eq!(numbers(&store, 1), [1]);
}

#[test]
fn quotas_refuse_rows() {
    let room = |rows| Quota {
        rows,
        bytes: 1 << 20,
    };
    let limits = Limits {
        capacity: room(8),
        per_recipient: room(3),
        per_deliverer: room(5),
        max_body_bytes: 100,
    };
    let store = Store::open_on(MemoryDisk::new(), StoreConfig { limits, ..small() }).unwrap();
    let refusal = |record| match put(&store, record) {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(message(0, 1, 101)), Refusal::TooLarge);
    let past = NewRecord {
        expires: Some(UnixSeconds(NOW.0 - 1)),
        ..message(0, 1, 10)
    };
    assert_eq!(refusal(past), Refusal::Expired);
    for n in 0..3 {
        put(&store, message(n, 1, 100)).unwrap();
    }
    assert_eq!(refusal(message(3, 1, 10)), Refusal::RecipientQuota);
    // Deliverer 1 brought three for mailbox 1 and brings two more for mailbox 4.
    put(&store, message(4, 4, 10)).unwrap();
    put(&store, message(5, 4, 10)).unwrap();
    assert_eq!(refusal(message(6, 4, 10)), Refusal::DelivererQuota);
    put(&store, message(7, 2, 10)).expect("another mailbox still receives, from another deliverer");
    assert!(
        put(&store, message(0, 1, 10)).unwrap().already_existed(),
        "known, full or not"
    );
    assert_sound(&store);
}

#[test]
fn full_store_evicts_from_largest_mailbox() {
    let wide = Quota {
        rows: 100,
        bytes: 1 << 20,
    };
    let limits = Limits {
        capacity: Quota {
            rows: 6,
            bytes: 1 << 20,
        },
        per_recipient: wide,
        per_deliverer: wide,
        max_body_bytes: 1_000,
    };
    let store = Store::open_on(MemoryDisk::new(), StoreConfig { limits, ..small() }).unwrap();
    for n in 0..5 {
        let retention = if n == 2 {
            Retention::Low
        } else {
            Retention::High
        };
        put(
            &store,
            NewRecord {
                retention,
                ..message(n, 1, 100)
            },
        )
        .unwrap();
    }
    put(&store, message(5, 2, 100)).unwrap();
    put(&store, message(6, 2, 100)).unwrap();
    assert_eq!(numbers(&store, 1), [0, 1, 3, 4], "low before high");
    put(&store, message(7, 3, 100)).unwrap();
    assert_eq!(numbers(&store, 1), [1, 3, 4], "then the oldest");
    put(&store, message(8, 1, 100)).unwrap();
    assert_eq!(
        numbers(&store, 1),
        [3, 4, 8],
        "the largest makes room for itself"
    );
    assert_eq!(
        (numbers(&store, 2), numbers(&store, 3)),
        (vec![5, 6], vec![7])
    );
    let low = NewRecord {
        retention: Retention::Low,
        ..message(9, 4, 100)
    };
    assert!(
        matches!(put(&store, low), Err(StoreError::Refused(Refusal::Full))),
        "low does not push out high"
    );
    assert_eq!(store.stats().rows, 6);
    assert_sound(&store);
}
