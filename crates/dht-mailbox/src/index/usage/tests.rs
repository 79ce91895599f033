use super::*;

fn recipient(n: u8) -> Recipient {
    Recipient::from_bytes([n; 32])
}

fn deliverer(n: u8) -> Deliverer {
    Deliverer::from_bytes([n; 32])
}

fn limits() -> Limits {
    Limits {
        capacity: Quota {
            rows: 10,
            bytes: 1_000,
        },
        per_recipient: Quota {
            rows: 4,
            bytes: 500,
        },
        per_deliverer: Quota {
            rows: 6,
            bytes: 800,
        },
        max_body_bytes: 100,
    }
}

const fn change(bytes: u64) -> Change {
    Change {
        bytes,
        retention: Retention::High,
    }
}

const fn newcomer(to: u8, by: u8, bytes: u64) -> Newcomer {
    Newcomer {
        recipient: Recipient::from_bytes([to; 32]),
        deliverer: Deliverer::from_bytes([by; 32]),
        retention: Retention::High,
        bytes,
    }
}

fn usage(rows: &[(u8, u8, u64)]) -> Usage {
    let mut usage = Usage::new(&limits());
    for (to, by, bytes) in rows {
        usage.add(recipient(*to), deliverer(*by), change(*bytes));
    }
    usage
}

/// Mailbox and deliverer that lose a row.
fn victim(usage: &Usage, full: Full, newcomer: &Newcomer) -> Option<(Recipient, Deliverer)> {
    let part = usage.eviction_victim(full, newcomer)?;
    usage.keys(Owners {
        mailbox: part.mailbox,
        deliverer: part.deliverer,
    })
}

#[test]
fn quotas_bound_rows_and_bytes() {
    let full = |usage: &Usage, bytes| usage.find_full(&limits(), &newcomer(1, 1, bytes));
    assert_eq!(full(&usage(&[(1, 2, 10); 3]), 10), None);
    assert_eq!(full(&usage(&[(1, 2, 10); 4]), 10), Some(Full::Mailbox));
    assert_eq!(full(&usage(&[(1, 2, 490)]), 10), None);
    assert_eq!(full(&usage(&[(1, 2, 490)]), 11), Some(Full::Mailbox));
    assert_eq!(full(&usage(&[(3, 2, 990)]), 11), Some(Full::Store));
    let check = |usage: &Usage, bytes| usage.check_deliverer(&limits(), &newcomer(1, 1, bytes));
    assert_eq!(check(&usage(&[(2, 1, 10); 5]), 10), Ok(()));
    let refused = Err(Refusal::DelivererQuota);
    assert_eq!(check(&usage(&[(2, 1, 10); 6]), 10), refused);
    assert_eq!(check(&usage(&[(2, 1, 790)]), 11), refused);
}

#[test]
fn the_largest_mailbox_makes_room() {
    let held = usage(&[(1, 1, 300), (2, 1, 100), (3, 1, 50)]);
    let victim = |to, bytes| victim(&held, Full::Store, &newcomer(to, 1, bytes));
    let of = |to| Some((recipient(to), deliverer(1)));
    assert_eq!(victim(3, 10), of(1));
    assert_eq!(victim(4, 10), of(1));
    assert_eq!(victim(1, 10), of(1));
    assert_eq!(victim(2, 250), of(2), "it would be the largest");
    assert_eq!(victim(9, 900), None, "nothing of its own to give");
}

#[test]
fn the_largest_deliverer_makes_room() {
    let invented: Vec<_> = (10..14).map(|to| (to, 1, 50)).collect();
    let held = usage(&[&invented[..], &[(1, 2, 200), (2, 3, 20)]].concat());
    let victim = |to, by, bytes| victim(&held, Full::Store, &newcomer(to, by, bytes));
    assert_eq!(victim(2, 3, 10), Some((recipient(13), deliverer(1))));
    assert_eq!(victim(9, 8, 10), Some((recipient(13), deliverer(1))));
    // The one that has most makes room for itself, and not by a mailbox that is no larger.
    assert_eq!(victim(12, 1, 10), Some((recipient(12), deliverer(1))));
    assert_eq!(victim(15, 1, 50), None);
    assert_eq!(victim(2, 2, 600), None);
}

#[test]
fn deliverers_share_a_mailbox() {
    let held = usage(&[(1, 1, 50), (1, 1, 50), (1, 1, 50), (1, 2, 50), (2, 3, 900)]);
    let victim = |by| victim(&held, Full::Mailbox, &newcomer(1, by, 10));
    assert_eq!(victim(4), Some((recipient(1), deliverer(1))));
    assert_eq!(victim(2), Some((recipient(1), deliverer(1))));
    assert_eq!(victim(1), None, "its own rows make no room");
}

#[test]
fn lower_classes_go_first() {
    let mut held = usage(&[(1, 1, 100), (1, 1, 100)]);
    let unmet = Change {
        retention: Retention::Unmet,
        ..change(10)
    };
    held.add(recipient(2), deliverer(2), unmet);
    let full = |retention| {
        let newcomer = Newcomer {
            retention,
            ..newcomer(3, 3, 10)
        };
        victim(&held, Full::Store, &newcomer)
    };
    assert_eq!(full(Retention::High), Some((recipient(2), deliverer(2))));
    assert_eq!(full(Retention::Unmet), None, "that has no more");
    assert_eq!(full(Retention::Low), None);
}

/// Many small rows weigh like few large ones.
#[test]
fn small_rows_weigh_with_their_overhead() {
    let held = usage(&[(1, 1, 1), (1, 1, 1), (1, 1, 1), (2, 2, 200)]);
    assert_eq!(
        victim(&held, Full::Store, &newcomer(3, 3, 1)),
        Some((recipient(1), deliverer(1))),
        "3 of 10 rows are more than 200 of 1000 bytes"
    );
}

#[test]
fn rows_that_went_leave_nothing() {
    let mut held = Usage::new(&limits());
    let one = held.add(recipient(1), deliverer(1), change(300));
    let two = held.add(recipient(2), deliverer(1), change(100));
    held.remove(one, change(300));
    assert_eq!(held.mailbox_number(recipient(1)), Some(one.mailbox));
    held.remove(two, change(100));
    held.release(one);
    held.release(two);
    assert_eq!(held.total(), Account::default());
    assert_eq!((held.mailboxes(), held.owners(), held.parts()), (0, 0, 0));
    assert!(held.largest.is_empty() && held.largest_parts.is_empty());
    assert!(held.largest_sums.is_empty());
    let again = held.add(recipient(3), deliverer(2), change(1));
    assert!(again.mailbox < 2, "numbers are used again");
}

#[test]
fn loaded_rows_count_like_added_ones() {
    let rows = [(1, 1, 300), (2, 1, 100), (1, 1, 20), (1, 2, 20)];
    let mut loaded = Usage::new(&limits());
    let owners = rows.map(|(to, by, bytes)| {
        let change = change(bytes);
        (loaded.load(recipient(to), deliverer(by), change), change)
    });
    loaded.rank(owners.into_iter());
    let added = usage(&rows);
    assert_eq!((loaded.total(), loaded.mailboxes()), (added.total(), 2));
    assert_eq!(
        (&loaded.parts, &loaded.shares),
        (&added.parts, &added.shares)
    );
    assert_eq!(loaded.largest, added.largest);
    assert_eq!(loaded.largest_parts, added.largest_parts);
    assert_eq!(loaded.largest_sums, added.largest_sums);
    assert_eq!(
        loaded.deliverer(deliverer(1)),
        added.deliverer(deliverer(1))
    );
    assert!(loaded.is_ranked(owners.into_iter()) && added.is_ranked(owners.into_iter()));
    assert!(!added.is_ranked(owners.into_iter().skip(1)));
}
