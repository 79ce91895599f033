//! Bounds of an outbox, and the shares of recipients.

use super::*;

#[test]
fn a_full_outbox_refuses() {
    let outbox = outbox(OutboxConfig {
        max_rows: 2,
        max_bytes: 30,
        ..OutboxConfig::default()
    });
    put(&outbox, named(1, "a"));
    put(&outbox, entry(2));
    let refused = outbox.put(entry(3)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Full);
    let again = outbox.put(named(1, "a")).wait().unwrap();
    assert_eq!(again, Put::Existing(1));
    assert!(outbox.stats().full && outbox.stats().refused == 1);
    let large = outbox.set_frame(2, Bytes::from(vec![0; 13])).wait();
    assert_eq!(large.unwrap_err(), SpoolError::Full);
    outbox.update(1, Transition::Received, NOW).wait().unwrap();
    assert!(!outbox.stats().full);
    assert_eq!(put(&outbox, entry(3)), 3);
}

/// A message that was sent to a peer without receipts, or that as many holders store as were wanted, takes no room.
#[test]
fn ended_entries_leave_their_room() {
    let config = OutboxConfig {
        max_rows: 8,
        max_bytes: 800,
        ..OutboxConfig::default()
    };
    let disk = FaultyDisk::default();
    let mut outbox = on(&disk, config.clone());
    let (retry_at, holders) = (None, 3);
    for number in 1..=100 {
        let id = put(&outbox, entry(number));
        let ended = if number % 2 == 0 {
            Transition::Sent { retry_at }
        } else {
            Transition::Stored { holders, retry_at }
        };
        outbox.update(id, ended, NOW).wait().unwrap();
    }
    drop(outbox);
    outbox = on(&disk, config);
    let stats = outbox.stats();
    assert_eq!((stats.rows, stats.bytes, stats.ended), (0, 0, 100));
    assert_eq!(
        outbox.get(99).unwrap().unwrap().state,
        SendState::Stored { holders }
    );
    outbox.update(99, Transition::Received, NOW).wait().unwrap();
    assert_eq!(outbox.expire(at(101)).wait().unwrap().stored, 0);
    assert_eq!(outbox.get(100).unwrap().unwrap().state, SendState::Sent);
}

/// Many recipients that cannot be reached: others still have room.
#[test]
fn absent_recipients_leave_an_eighth() {
    let to = |recipient: u64| NewEntry {
        recipient: public_key(recipient),
        ..entry(1)
    };
    let outbox = outbox(OutboxConfig {
        max_rows: 160,
        ..OutboxConfig::default()
    });
    let fill = |recipient| {
        let puts = (0..).map(|_| outbox.put_for_absent(to(recipient)).wait());
        puts.take_while(Result::is_ok).count()
    };
    let filled: Vec<_> = (1..=60).map(fill).collect();
    // A half and a little, a quarter of all, the rest of three quarters, then one each up to seven eighths.
    assert_eq!(filled[..3], [80, 40, 1]);
    assert_eq!(outbox.stats().rows, 140);
    let refused = outbox.put_for_absent(to(61)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Full);
    for recipient in 100..120 {
        put(&outbox, to(recipient));
    }
    let refused = outbox.put(to(120)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Full);
}

/// One recipient that cannot be reached, many messages for it: others still have room.
#[test]
fn one_recipient_leaves_room_to_others() {
    let to = |recipient: u64, bytes: usize| NewEntry {
        recipient: public_key(recipient),
        payload: Bytes::from(vec![0; bytes]),
        ..entry(1)
    };
    let disk = FaultyDisk::default();
    let config = OutboxConfig {
        max_rows: 16,
        max_bytes: 1_600,
        ..OutboxConfig::default()
    };
    let mut outbox = on(&disk, config.clone());
    let refused = |outbox: &Outbox, entry| outbox.put(entry).wait().unwrap_err();
    let ids: Vec<_> = (0..8).map(|_| put(&outbox, to(1, 1))).collect();
    assert_eq!(refused(&outbox, to(1, 1)), SpoolError::RecipientFull);
    assert!(!outbox.stats().full);
    assert_eq!(outbox.stats().refused, 1);
    // The same holds of an outbox that is opened again.
    drop(outbox);
    outbox = on(&disk, config);
    assert_eq!(refused(&outbox, to(1, 1)), SpoolError::RecipientFull);
    for _ in 0..4 {
        put(&outbox, to(2, 1));
    }
    assert_eq!(refused(&outbox, to(2, 1)), SpoolError::RecipientFull);
    // One message of any size may be sent; a second one may not, nor may a frame that makes it two.
    let large = put(&outbox, to(3, 900));
    assert_eq!(refused(&outbox, to(3, 1)), SpoolError::RecipientFull);
    outbox
        .set_frame(large, Bytes::from_static(b"one"))
        .wait()
        .unwrap();
    let frame = outbox.set_frame(ids[0], Bytes::from(vec![0; 500])).wait();
    assert_eq!(frame.unwrap_err(), SpoolError::RecipientFull);
    for id in ids {
        outbox.update(id, Transition::Received, NOW).wait().unwrap();
    }
    outbox
        .update(large, Transition::Received, NOW)
        .wait()
        .unwrap();
    put(&outbox, to(1, 1));
}

#[test]
fn ended_entries_stay_for_a_while() {
    let outbox = outbox(OutboxConfig {
        ended_seconds: 50,
        ended_rows: 2,
        ..OutboxConfig::default()
    });
    for number in 1..=4 {
        put(&outbox, entry(number));
    }
    let expiry = |seconds| outbox.expire(at(seconds)).wait().unwrap();
    outbox.update(4, Transition::Received, NOW).wait().unwrap();
    let stored = Transition::Stored {
        holders: 1,
        retry_at: Some(at(90)),
    };
    outbox.update(3, stored, NOW).wait().unwrap();
    assert_eq!(expiry(50), OutboxExpiry::default());
    let all_over = OutboxExpiry {
        expired: 2,
        stored: 1,
        removed: 2,
    };
    assert_eq!(expiry(101), all_over, "two are kept by count");
    let kept = outbox.list(EntryFilter::default(), None, 9).unwrap();
    let states: Vec<_> = kept.into_iter().map(|entry| entry.state).collect();
    assert_eq!(
        states,
        [SendState::Expired, SendState::Stored { holders: 1 }]
    );
    assert_eq!(expiry(152).removed, 2);
    assert_eq!(outbox.stats().ended, 0);
}
