//! Files of every format must open for ever. With `DHT_SPOOL_WRITE_FIXTURES=1` those of the newest are written anew, which only
//! a new format is a reason for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds, test_util::public_key};
use dht_spool::{
    Arrival, DEFAULT_CONSUMER, EntryContent, EntryFilter, EntryOptions, Inbox, InboxConfig,
    Inserted, Limit, NewEntry, NewRow, Outbox, OutboxConfig, Put, SendState, Start, Transition,
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
/// Ids of a file begun at this time begin with 1.
const SMALL_IDS: UnixSeconds = UnixSeconds(0);

fn row(number: u8) -> NewRow {
    NewRow {
        received_at: NOW.saturating_add(number.into()),
        origin: (number > 1).then(|| public_key(1)),
        // Nor this.
        origin_is_proven: true,
        message_type: -1,
        payload: Bytes::from(vec![number; 100]),
        via: NodeId::from_bytes(&[number; NodeId::LENGTH]).unwrap(),
        // The first files of this format do not name it: the peer counts.
        deliverer: Deliverer::from_bytes(std::array::from_fn(|at| match at {
            0..NodeId::LENGTH => number,
            _ => 0,
        })),
        arrival: if number > 1 {
            Arrival::Stored
        } else {
            Arrival::Live
        },
        hash: DedupHash([number; 32]),
    }
}

fn entry(number: u8) -> NewEntry {
    NewEntry {
        key: (number > 1).then(|| format!("key {number}")),
        recipient: public_key(2),
        message_type: 9,
        payload: Bytes::from(vec![number; 100]),
        options: EntryOptions {
            ttl_seconds: 1000,
            direct_only: number > 1,
            replicas: (number > 1).then_some(4),
        },
        created_at: NOW,
        frame: (number > 1).then(|| Bytes::from(vec![number; 50])),
    }
}

fn fixture(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    directory.join(name)
}

/// A copy of a fixture; files end with zeros, which are not kept.
fn copy(name: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(name);
    let mut bytes = fs::read(fixture(name)).unwrap();
    let length = u64::from_le_bytes(*bytes.last_chunk().unwrap());
    bytes.truncate(bytes.len() - 8);
    bytes.resize(usize::try_from(length).unwrap(), 0);
    fs::write(&path, bytes).unwrap();
    (home, path)
}

/// Writes the fixtures if that is asked for.
#[test]
fn fixtures_are_written_on_demand() {
    if std::env::var_os("DHT_SPOOL_WRITE_FIXTURES").is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox");
    let inbox = Inbox::open(&path, InboxConfig::default(), SMALL_IDS).unwrap();
    inbox.add_consumer("second", Start::Oldest).wait().unwrap();
    for number in 1..=4 {
        inbox.insert(row(number)).wait().unwrap();
    }
    for consumer in [DEFAULT_CONSUMER, "second"] {
        inbox.ack(consumer, 1, NOW).wait().unwrap();
    }
    inbox.ack_one("second", 3, NOW).wait().unwrap();
    drop(inbox);
    let outbox_path = home.path().join("outbox");
    let outbox = Outbox::open(&outbox_path, OutboxConfig::default(), SMALL_IDS).unwrap();
    for number in 1..=4 {
        outbox.put(entry(number)).wait().unwrap();
    }
    let update = |id, transition| outbox.update(id, transition, NOW).wait().unwrap();
    update(1, Transition::Received);
    let reason = "no route".to_owned();
    update(2, Transition::Failed { reason });
    let stored = Transition::Stored {
        holders: 2,
        retry_at: Some(NOW),
    };
    update(3, stored);
    drop(outbox);
    fs::create_dir_all(fixture("")).unwrap();
    for (from, to) in [(path, "inbox-2.bin"), (outbox_path, "outbox-2.bin")] {
        let mut bytes = fs::read(from).unwrap();
        let length = bytes.len() as u64;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes.extend_from_slice(&length.to_le_bytes());
        fs::write(fixture(to), bytes).unwrap();
    }
}

/// A node whose frame cannot be read seals the message again.
#[test]
fn first_files_keep_the_payload() {
    let (_home, path) = copy("outbox-1.bin");
    let outbox = Outbox::open(&path, OutboxConfig::default(), SMALL_IDS).unwrap();
    let framed = outbox.content(3).unwrap();
    assert!(matches!(framed, Some(EntryContent::Frame(_))), "{framed:?}");
    assert_eq!(outbox.payload(3).unwrap(), Some(entry(3).payload));
    let (_home, path) = copy("outbox-2.bin");
    let outbox = Outbox::open(&path, OutboxConfig::default(), SMALL_IDS).unwrap();
    assert_eq!(outbox.payload(3).unwrap(), None);
}

#[test]
fn an_inbox_of_every_format_opens() {
    for name in ["inbox-1.bin", "inbox-2.bin"] {
        inbox_opens(name);
    }
}

fn inbox_opens(name: &str) {
    let (_home, path) = copy(name);
    let inbox = Inbox::open(&path, InboxConfig::default(), SMALL_IDS).unwrap();
    let read = |consumer| {
        let rows = inbox.read(consumer, None, Limit::default()).unwrap();
        rows.into_iter().map(|row| row.message).collect::<Vec<_>>()
    };
    assert_eq!(read(DEFAULT_CONSUMER), [row(2), row(3), row(4)]);
    assert_eq!(read("second"), [row(2), row(4)]);
    let stats = inbox.stats();
    assert_eq!((stats.damaged_files, stats.remembered), (0, 1));
    let again = inbox.insert(row(1)).wait().unwrap();
    assert_eq!(again, Inserted::AlreadyPresent);
    assert_eq!(inbox.insert(row(5)).wait().unwrap(), Inserted::New(5));
    drop(inbox);
    let inbox = Inbox::open(&path, InboxConfig::default(), SMALL_IDS).unwrap();
    let stats = inbox.stats();
    let second = stats.consumers.last().map(|consumer| consumer.pending);
    assert_eq!(second, Some(3), "of both formats");
    assert_eq!((stats.damaged, stats.damaged_files), (0, 0));
}

#[test]
fn an_outbox_of_every_format_opens() {
    for name in ["outbox-1.bin", "outbox-2.bin"] {
        outbox_opens(name);
    }
}

fn outbox_opens(name: &str) {
    let (_home, path) = copy(name);
    let outbox = Outbox::open(path, OutboxConfig::default(), SMALL_IDS).unwrap();
    let entries = outbox.list(EntryFilter::default(), None, 9).unwrap();
    let states: Vec<_> = entries.iter().map(|entry| entry.state.clone()).collect();
    let reason = "no route".to_owned();
    let expected = [
        SendState::Received,
        SendState::Failed { reason },
        SendState::Stored { holders: 2 },
        SendState::Queued,
    ];
    assert_eq!(states, expected);
    let mut waiting = entries;
    waiting.retain(|entry| entry.next_attempt.is_some());
    assert_eq!(waiting.len(), 2);
    for found in waiting {
        let expected = entry(u8::try_from(found.id).unwrap());
        let content = outbox.content(found.id).unwrap();
        assert_eq!(content, Some(EntryContent::of(&expected)));
        assert_eq!(found.options, expected.options);
        assert_eq!(found.key, expected.key);
        assert_eq!(found.recipient, expected.recipient);
    }
    let again = outbox.put(entry(2)).wait().unwrap();
    assert_eq!(again, Put::Existing(2));
    assert_eq!(outbox.put(entry(5)).wait().unwrap(), Put::New(5));
}
