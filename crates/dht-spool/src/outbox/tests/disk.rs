//! An outbox on a disk that fails, or whose file is damaged.

use bytes::Bytes;
use redb::{ReadableTable as _, Value as _};

use super::*;
use crate::faulty::FaultyDisk;

/// Entries that wait for an attempt and whose content can be read, by id.
fn sendable(outbox: &Outbox) -> Vec<EntryId> {
    let waiting = waiting(outbox).into_iter().map(|entry| entry.id);
    waiting
        .filter(|id| matches!(outbox.content(*id), Ok(Some(_))))
        .collect()
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
        let waiting = waiting(&crashed).into_iter().map(|entry| entry.id);
        assert!(waiting.take(9).eq(2..=10));
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
        let mut entries = 0;
        for entry in waiting(&outbox) {
            let number = entry.key.unwrap().parse().unwrap();
            let Ok(Some(content)) = outbox.content(entry.id) else {
                continue;
            };
            assert_eq!(content, EntryContent::of(&message(number)));
            entries += 1;
        }
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
fn an_entry_outlives_its_content() {
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
    let content = outbox.content(kept).unwrap();
    assert_eq!(content, Some(EntryContent::of(&framed(8))));
    assert_eq!(outbox.content(lost), Ok(None));
    let told = outbox.get(lost).unwrap().unwrap();
    assert_eq!(told.state, SendState::Queued);
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
    assert_eq!(sendable(&outbox), [kept]);
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
        let lost = 600 - sendable(&outbox).len();
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
        assert_eq!(sendable(&outbox).len(), held.len(), "byte {at}");
        for entry in held {
            assert!(all.contains(&entry), "byte {at}: {entry:?}");
        }
    }
}
