//! A process that is killed while it inserts and puts: what it was told is durable is there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds, test_util::public_key};
use dht_spool::{
    Arrival, DEFAULT_CONSUMER, EntryOptions, Inbox, InboxConfig, Inserted, Limit, NewEntry, NewRow,
    Outbox, OutboxConfig, Put,
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
/// Ids of a file begun at this time begin with 1.
const SMALL_IDS: UnixSeconds = UnixSeconds(0);
const HOME: &str = "DHT_SPOOL_TEST_HOME";

fn row(number: u64) -> NewRow {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    NewRow {
        received_at: NOW,
        origin: None,
        origin_is_proven: true,
        message_type: 1,
        payload: Bytes::from(vec![9; 700]),
        via: NodeId::from_bytes(&[1; NodeId::LENGTH]).unwrap(),
        deliverer: Deliverer::from_bytes([1; 32]),
        arrival: Arrival::Live,
        hash: DedupHash(hash),
    }
}

fn entry(number: u64) -> NewEntry {
    NewEntry {
        key: Some(number.to_string()),
        recipient: public_key(1),
        message_type: 1,
        payload: Bytes::from(vec![9; 700]),
        options: EntryOptions::default(),
        created_at: NOW,
        frame: None,
    }
}

fn open(home: &Path) -> (Inbox, Outbox) {
    let inbox = Inbox::open(home.join("inbox.redb"), InboxConfig::default(), SMALL_IDS);
    let outbox = Outbox::open(home.join("outbox.redb"), OutboxConfig::default(), SMALL_IDS);
    (inbox.unwrap(), outbox.unwrap())
}

/// The process that is killed; nothing when the tests run it. Says what is durable, one number a line.
#[test]
fn child() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    let (inbox, outbox) = open(Path::new(&home));
    let mut out = std::io::stdout().lock();
    // The last life may have ended between the two.
    let first = inbox.stats().newest.min(outbox.stats().rows) + 1;
    for number in first.. {
        let (insert, put) = (inbox.insert(row(number)), outbox.put(entry(number)));
        insert.wait().unwrap();
        put.wait().unwrap();
        if number % 5 == 0 {
            inbox.ack(DEFAULT_CONSUMER, number - 3, NOW).wait().unwrap();
        }
        writeln!(out, "durable {number}").unwrap();
    }
}

#[test]
fn a_killed_process_keeps_its_word() {
    let home = tempfile::tempdir().unwrap();
    for life in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(HOME, home.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable = lines.map_while(Result::ok).filter_map(|line| {
            let (_, number) = line.split_once("durable ")?;
            number.parse::<u64>().ok()
        });
        let last = durable.take(7 * life).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let (inbox, outbox) = open(home.path());
        let stats = inbox.stats();
        assert!(stats.newest >= last);
        assert!(stats.consumers[0].cursor >= last - last % 5 - 3);
        let rows = inbox.read(DEFAULT_CONSUMER, None, Limit::default());
        let ids: Vec<_> = rows.unwrap().iter().map(|row| row.id).collect();
        let expected: Vec<_> = (stats.consumers[0].cursor + 1..=stats.newest).collect();
        assert_eq!(ids, expected);
        for number in 1..=last {
            let again = inbox.insert(row(number)).wait().unwrap();
            assert_eq!(again, Inserted::AlreadyPresent);
            let again = outbox.put(entry(number)).wait().unwrap();
            assert_eq!(again, Put::Existing(number));
        }
    }
}
