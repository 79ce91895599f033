use bytes::Bytes;
use dht_core::{UnixSeconds, test_util::public_key};
use redb::{ReadableTable as _, Value as _};

use super::*;
use crate::faulty::FaultyDisk;

mod model;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const ALL: Limit = Limit {
    rows: usize::MAX,
    bytes: usize::MAX,
};

fn entry(number: u64) -> NewEntry {
    NewEntry {
        key: None,
        recipient: public_key(number % 2),
        message_type: 5,
        payload: Bytes::from(format!("message {number}")),
        options: EntryOptions {
            ttl_seconds: 100,
            direct_only: true,
            replicas: Some(3),
        },
        created_at: NOW,
        frame: None,
    }
}

fn named(number: u64, key: &str) -> NewEntry {
    NewEntry {
        key: Some(key.to_owned()),
        ..entry(number)
    }
}

fn outbox(config: OutboxConfig) -> Outbox {
    Outbox::in_memory(config)
}

fn on(disk: &FaultyDisk, config: OutboxConfig) -> Outbox {
    Outbox {
        journal: Arc::new(crate::disk::on(disk.file(), config).unwrap()),
    }
}

fn put(outbox: &Outbox, entry: NewEntry) -> EntryId {
    outbox.put(entry).wait().unwrap().id()
}

fn due(outbox: &Outbox, now: UnixSeconds) -> Vec<EntryId> {
    let due = outbox.due(now, ALL).unwrap();
    due.iter().map(|due| due.entry.id).collect()
}

fn at(seconds: u64) -> UnixSeconds {
    NOW.saturating_add(seconds)
}

#[test]
fn an_entry_is_read_as_put() {
    let outbox = outbox(OutboxConfig::default());
    let id = put(&outbox, named(1, "order-1"));
    let due = outbox.due(NOW, ALL).unwrap();
    let expected = Entry {
        id,
        key: Some("order-1".to_owned()),
        recipient: public_key(1),
        message_type: 5,
        payload_bytes: 9,
        options: entry(1).options,
        created_at: NOW,
        expires_at: at(100),
        state: SendState::Queued,
        attempts: 0,
        next_attempt: Some(NOW),
        last_error: None,
        ended_at: None,
    };
    assert_eq!(due[0].entry, expected);
    assert_eq!(due[0].content, EntryContent::Payload("message 1".into()));
    assert_eq!(outbox.get(id).unwrap(), Some(expected.clone()));
    assert_eq!(outbox.get_by_key("order-1").unwrap(), Some(expected));
    assert_eq!(outbox.get(9).unwrap(), None);
    assert_eq!(outbox.get_by_key("order-2").unwrap(), None);
}

#[test]
fn a_key_names_one_message() {
    let outbox = outbox(OutboxConfig {
        ended_seconds: 10,
        ..OutboxConfig::default()
    });
    let id = put(&outbox, named(1, "a"));
    let mut later = named(1, "a");
    later.created_at = at(50);
    assert_eq!(outbox.put(later).wait().unwrap(), Put::Existing(id));
    assert_eq!(outbox.put(named(1, "b")).wait().unwrap(), Put::New(2));
    let mut others = vec![named(2, "a"), named(1, "a"), named(1, "a")];
    others[1].options.replicas = None;
    others[2].recipient = public_key(2);
    for other in others {
        let refused = outbox.put(other).wait().unwrap_err();
        assert_eq!(refused, SpoolError::KeyReused);
    }
    for key in ["", &"k".repeat(129)] {
        let refused = outbox.put(named(1, key)).wait().unwrap_err();
        assert_eq!(refused, SpoolError::InvalidKey);
    }
    outbox.update(id, Transition::Received, NOW).wait().unwrap();
    assert_eq!(outbox.put(named(1, "a")).wait().unwrap(), Put::Existing(id));
    outbox.expire(at(11)).wait().unwrap();
    assert_eq!(outbox.put(named(2, "a")).wait().unwrap(), Put::New(3));
}

#[test]
fn due_entries_come_in_order() {
    let outbox = outbox(OutboxConfig::default());
    for number in 1..=3 {
        put(&outbox, entry(number));
    }
    assert_eq!(due(&outbox, NOW), [1, 2, 3]);
    assert!(due(&outbox, UnixSeconds(NOW.0 - 1)).is_empty());
    let retry = |id, seconds, error: Option<&str>| {
        let transition = Transition::Retry {
            at: at(seconds),
            error: error.map(ToOwned::to_owned),
        };
        outbox.update(id, transition, NOW).wait().unwrap()
    };
    assert_eq!(retry(1, 15, Some("no route")), StateKind::Queued);
    retry(1, 20, None);
    retry(2, 10, None);
    assert_eq!(due(&outbox, NOW), [3]);
    assert_eq!(due(&outbox, at(30)), [3, 2, 1]);
    let limit = Limit { rows: 9, bytes: 18 };
    assert_eq!(outbox.due(at(30), limit).unwrap().len(), 2);
    outbox.update(3, Transition::Received, NOW).wait().unwrap();
    assert_eq!(outbox.next_due(), Some(at(10)));
    let entry = outbox.get(1).unwrap().unwrap();
    assert_eq!(entry.attempts, 2);
    assert_eq!(entry.last_error.as_deref(), Some("no route"));
    assert_eq!(outbox.get(2).unwrap().unwrap().last_error, None);
    assert!(due(&outbox, at(101)).is_empty(), "its time is over");
}

#[test]
fn states_walk_to_received() {
    let outbox = outbox(OutboxConfig::default());
    let id = put(&outbox, entry(1));
    let update = |transition| outbox.update(id, transition, at(1)).wait();
    let state = || outbox.get(id).unwrap().unwrap().state;
    let retry_at = Some(at(5));
    update(Transition::Sent { retry_at }).unwrap();
    assert_eq!(state(), SendState::Sent);
    let stored = Transition::Stored {
        holders: 2,
        retry_at,
    };
    update(stored).unwrap();
    update(Transition::Sent { retry_at }).unwrap();
    assert_eq!(state(), SendState::Stored { holders: 2 });
    assert!(outbox.content(id).unwrap().is_some());
    update(Transition::Sent { retry_at: None }).unwrap();
    assert_eq!(state(), SendState::Stored { holders: 2 });
    assert_eq!(outbox.next_due(), None);
    assert_eq!(outbox.content(id).unwrap(), None);
    let reason = "withdrawn".to_owned();
    let failed = update(Transition::Failed { reason });
    assert_eq!(failed.unwrap_err(), SpoolError::Ended);
    update(Transition::Received).unwrap();
    update(Transition::Received).unwrap();
    assert_eq!(state(), SendState::Received);
    assert_eq!(outbox.content(id).unwrap(), None);
    let back = update(Transition::Sent { retry_at: None });
    assert_eq!(back.unwrap_err(), SpoolError::Ended);
    let none = outbox.update(9, Transition::Received, NOW).wait();
    assert_eq!(none.unwrap_err(), SpoolError::UnknownId);
}

#[test]
fn reasons_are_cut_between_characters() {
    let outbox = outbox(OutboxConfig::default());
    let id = put(&outbox, entry(1));
    let reason = "ä".repeat(200);
    let failed = Transition::Failed { reason };
    outbox.update(id, failed, NOW).wait().unwrap();
    let expected = SendState::Failed {
        reason: "ä".repeat(128),
    };
    assert_eq!(outbox.get(id).unwrap().unwrap().state, expected);
}

#[test]
fn a_frame_is_sent_unchanged() {
    let disk = FaultyDisk::default();
    let outbox = on(&disk, OutboxConfig::default());
    let id = put(&outbox, entry(1));
    let frame = Bytes::from(vec![8; 50]);
    outbox.set_frame(id, frame.clone()).wait().unwrap();
    assert_eq!(outbox.stats().bytes, 59);
    drop(outbox);
    let outbox = on(&disk, OutboxConfig::default());
    assert_eq!(outbox.stats().bytes, 59);
    let due = outbox.due(NOW, ALL).unwrap();
    assert_eq!(due[0].content, EntryContent::Frame(frame.clone()));
    outbox.update(id, Transition::Received, NOW).wait().unwrap();
    assert_eq!(outbox.stats().bytes, 0);
    let ended = outbox.set_frame(id, frame).wait();
    assert_eq!(ended.unwrap_err(), SpoolError::Ended);
}

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

#[test]
fn lists_are_filtered_and_paged() {
    let outbox = outbox(OutboxConfig::default());
    for number in 1..=5 {
        put(&outbox, entry(number));
    }
    outbox.update(3, Transition::Received, NOW).wait().unwrap();
    let list = |filter, after, limit| {
        let entries = outbox.list(filter, after, limit).unwrap();
        entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(list(EntryFilter::default(), None, 2), [1, 2]);
    assert_eq!(list(EntryFilter::default(), Some(2), 9), [3, 4, 5]);
    let queued = EntryFilter {
        state: Some(StateKind::Queued),
        ..EntryFilter::default()
    };
    assert_eq!(list(queued, Some(1), 2), [2, 4]);
    let to_one = EntryFilter {
        recipient: Some(public_key(1)),
        ..EntryFilter::default()
    };
    assert_eq!(list(to_one, None, 2), [1, 3]);
}

#[test]
fn a_power_failure_keeps_what_resolved() {
    for seed in 1..20 {
        let disk = FaultyDisk::default();
        let outbox = on(&disk, OutboxConfig::default());
        for number in 1..=10 {
            put(&outbox, named(number, &format!("key {number}")));
        }
        outbox.update(1, Transition::Received, NOW).wait().unwrap();
        let unresolved: Vec<_> = (11..=30).map(|n| outbox.put(entry(n))).collect();
        let crashed = on(&disk.crash(seed), OutboxConfig::default());
        assert_eq!(due(&crashed, NOW)[..9], (2..=10).collect::<Vec<_>>());
        let again = crashed.put(named(2, "key 2")).wait().unwrap();
        assert_eq!(again, Put::Existing(2));
        let received = crashed.get_by_key("key 1").unwrap().unwrap();
        assert_eq!(received.state, SendState::Received);
        drop(unresolved);
    }
}

#[test]
fn a_failing_disk_loses_no_put() {
    let history = |fail_at: Option<u64>| {
        let disk = FaultyDisk::default();
        let outbox = on(&disk, OutboxConfig::default());
        let begun = disk.operations();
        disk.fail_at(fail_at.map(|at| begun + at));
        let puts: Vec<_> = (1..=4)
            .filter(|n| outbox.put(named(*n, &n.to_string())).wait().is_ok())
            .collect();
        let sent = Transition::Sent { retry_at: None };
        let sent = outbox.update(1, sent, NOW).wait().is_ok();
        let operations = disk.operations() - begun;
        disk.fail_at(None);
        assert!((0..2).any(|_| outbox.put(entry(9)).wait().is_ok()));
        let crashed = on(&disk.crash(fail_at.unwrap_or(0)), OutboxConfig::default());
        for number in puts {
            let key = number.to_string();
            let entry = crashed.get_by_key(&key).unwrap();
            assert!(entry.is_some(), "{key} is lost, failed at {fail_at:?}");
        }
        if sent {
            assert_eq!(crashed.get(1).unwrap().unwrap().state, SendState::Sent);
        }
        operations
    };
    for at in 0..history(None) {
        history(Some(at));
    }
}

#[test]
fn a_damaged_outbox_keeps_readable_entries() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("outbox.redb");
    let message = |number: u64| NewEntry {
        payload: Bytes::from(vec![1; 2000]),
        frame: number.is_multiple_of(2).then(|| Bytes::from(vec![2; 2000])),
        ..named(number, &number.to_string())
    };
    {
        let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
        for number in 1..=60 {
            put(&outbox, message(number));
        }
    }
    let whole = std::fs::read(&path).unwrap();
    let (mut damaged, mut kept) = (0, 0);
    let pages = whole.len() / 4096;
    for page in (1..pages).step_by(1 + pages / 40) {
        let mut bytes = whole.clone();
        for byte in &mut bytes[page * 4096..page * 4096 + 64] {
            *byte ^= 0x55;
        }
        let path = home.path().join(format!("{page}.redb"));
        std::fs::write(&path, &bytes).unwrap();
        let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
        let entries = outbox.due(NOW, ALL).unwrap();
        for Due { entry, content } in &entries {
            let number = entry.key.as_ref().unwrap().parse().unwrap();
            assert_eq!(*content, EntryContent::of(&message(number)));
        }
        let entries = entries.len();
        if outbox.stats().damaged_files > 0 {
            damaged += 1;
            kept += entries;
        } else {
            assert_eq!(entries, 60);
        }
        let last = outbox.list(EntryFilter::default(), None, 100).unwrap();
        let last = last
            .iter()
            .map(|entry| entry.id)
            .max()
            .unwrap_or(NOW.0 << 20);
        assert!(put(&outbox, entry(1)) > last);
    }
    assert!(
        damaged > 3 && kept > damaged * 20,
        "{kept} of {damaged} files"
    );
}

#[test]
fn a_lost_content_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("outbox.redb");
    let framed = |number: u8| NewEntry {
        frame: Some(Bytes::from(vec![number; 2000])),
        ..entry(number.into())
    };
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    let (lost, kept) = (put(&outbox, framed(7)), put(&outbox, framed(8)));
    drop(outbox);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(2000).position(|it| it == [7; 2000]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    assert_eq!(outbox.stats().damaged_files, 1);
    assert_eq!(due(&outbox, NOW), [kept]);
    // Behind what the look has asked for.
    outbox.expire(NOW).wait().unwrap();
    let reason = "the stored content is damaged".to_owned();
    let told = outbox.get(lost).unwrap().unwrap();
    assert_eq!(told.state, SendState::Failed { reason });
}

/// The page without which no table can be found; and the frames of one table that lie behind it.
#[test]
fn frames_outlive_the_first_page() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("outbox.redb");
    let framed = |number: u8, bytes| NewEntry {
        key: Some(format!("key {number}")),
        frame: Some(Bytes::from(vec![number; bytes])),
        ..entry(number.into())
    };
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    let lengths = [1, 700, 4096, 9000, 300_000];
    let ids: Vec<_> = (1..)
        .zip(lengths)
        .map(|(number, bytes)| put(&outbox, framed(number, bytes)))
        .collect();
    let unsealed = put(&outbox, entry(8));
    let update = |id, transition| outbox.update(id, transition, NOW).wait().unwrap();
    update(ids[0], Transition::Received);
    let (holders, retry_at) = (2, Some(NOW));
    update(ids[1], Transition::Stored { holders, retry_at });
    let before: Vec<_> = ids.iter().map(|id| outbox.get(*id).unwrap()).collect();
    drop(outbox);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    assert_eq!(outbox.stats().damaged_files, 1);
    let after: Vec<_> = ids.iter().map(|id| outbox.get(*id).unwrap()).collect();
    assert_eq!(after, before);
    for (number, (id, bytes)) in (1..).zip(ids.iter().zip(lengths)).skip(1) {
        let frame = EntryContent::Frame(Bytes::from(vec![number; bytes]));
        assert_eq!(outbox.content(*id).unwrap(), Some(frame));
    }
    assert_eq!(outbox.content(ids[0]).unwrap(), None);
    // Of a payload, somebody else may have chosen the bytes: its client is told.
    outbox.expire(NOW).wait().unwrap();
    assert_eq!(outbox.content(unsealed).unwrap(), None);
    let known = outbox.put(framed(3, 1)).wait().unwrap();
    assert_eq!(known, Put::Existing(ids[2]));
}

/// A page as it was written, with a head that is not.
#[test]
fn forged_head_is_found_at_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("outbox.redb");
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    let (forged, kept) = (put(&outbox, entry(1)), put(&outbox, entry(2)));
    drop(outbox);
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut entries = transaction.open_table(tables::ENTRIES).unwrap();
        let head = tables::Head::as_bytes(&entries.get(forged).unwrap().unwrap().value());
        let mut head = tables::Head::from_bytes(&head);
        head.1 += 1;
        entries.insert(forged, head).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    assert_eq!(outbox.stats().damaged_files, 1);
    assert_eq!(due(&outbox, NOW), [kept]);
    assert_eq!(outbox.get(forged).unwrap(), None);
}

/// Leaves of redb begin with 1 and the number of their entries (redb's `docs/design.md`).
#[test]
fn a_zeroed_page_costs_its_entries() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("outbox.redb");
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    let tickets: Vec<_> = (1..=600).map(|number| outbox.put(entry(number))).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    drop(outbox);
    let whole = std::fs::read(&path).unwrap();
    let mut leaves = 0;
    for (number, page) in whole.chunks_exact(4096).enumerate().skip(1) {
        if page[0] != 1 || page.windows(8).any(|it| it == b"payloads") {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[number * 4096..(number + 1) * 4096].fill(0);
        let path = home.path().join(format!("{number}.redb"));
        std::fs::write(&path, bytes).unwrap();
        let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
        let lost = 600 - due(&outbox, NOW).len();
        let entries = usize::from(u16::from_le_bytes([page[2], page[3]]));
        assert!(lost <= entries, "page {number}: {lost} of {entries}");
        leaves += usize::from(lost > 0);
    }
    assert!(leaves > 20, "{leaves} leaves");
}

/// Progress and head of an entry: one wrong bit sends it again, and nothing else does.
#[test]
fn one_wrong_bit_forges_no_entry() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("outbox.redb");
    let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
    let ids: Vec<_> = (1..=9).map(|number| put(&outbox, entry(number))).collect();
    let all = outbox.list(EntryFilter::default(), None, 99).unwrap();
    drop(outbox);
    let whole = std::fs::read(&path).unwrap();
    let mut places = Vec::new();
    for (at, found) in whole.windows(8).enumerate() {
        if found == NOW.0.to_le_bytes() {
            places.extend((at - 40..at + 40).step_by(17));
        }
    }
    places.sort_unstable();
    places.dedup();
    assert!(places.len() > 60, "{} places", places.len());
    for (number, at) in places.into_iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (number % 8);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("outbox.redb");
        std::fs::write(&path, bytes).unwrap();
        let outbox = Outbox::open(&path, OutboxConfig::default(), NOW).unwrap();
        let held = outbox.list(EntryFilter::default(), None, 99).unwrap();
        assert!(held.len() + 1 >= ids.len(), "byte {at}");
        assert_eq!(due(&outbox, NOW).len(), held.len(), "byte {at}");
        for entry in held {
            assert!(all.contains(&entry), "byte {at}: {entry:?}");
        }
    }
}
