//! Metrics of a full inbox and of rows that leave.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds, test_util::public_key};
use dht_spool::{Arrival, DEFAULT_CONSUMER, Inbox, InboxConfig, NewRow};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn row(number: u8) -> NewRow {
    NewRow {
        received_at: NOW,
        origin: Some(public_key(number.into())),
        origin_is_proven: true,
        message_type: 1,
        payload: Bytes::from_static(b"hello"),
        via: NodeId::from_bytes(&[number; NodeId::LENGTH]).unwrap(),
        deliverer: Deliverer::from_bytes([number; 32]),
        arrival: Arrival::Live,
        hash: DedupHash([number; 32]),
    }
}

#[test]
fn outcomes_and_reasons_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    dht_spool::describe_metrics();
    let config = InboxConfig {
        max_rows: 2,
        retention_seconds: 10,
        ..InboxConfig::default()
    };
    let inbox = Inbox::in_memory(config);
    let outcomes = [1, 1, 2, 3].map(|number| inbox.insert(row(number)).wait().is_ok());
    assert_eq!(outcomes, [true, true, true, false]);
    inbox.ack(DEFAULT_CONSUMER, 1, NOW).wait().unwrap();
    let again = NewRow {
        hash: DedupHash([9; 32]),
        ..row(2)
    };
    assert!(inbox.insert(again).wait().is_err());
    inbox.expire(NOW.saturating_add(11)).wait().unwrap();
    inbox.close();
    let snapshot = snapshotter.snapshot().into_vec();
    let count = |name: &str, label: &str| {
        let found = snapshot.iter().find(|(key, ..)| {
            let key = key.key();
            key.name() == name && key.labels().any(|pair| pair.value() == label)
        });
        match found {
            Some((_, _, _, DebugValue::Counter(count))) => *count,
            _ => 0,
        }
    };
    assert_eq!(count("dht_spool_inserts_total", "new"), 2);
    assert_eq!(count("dht_spool_inserts_total", "present"), 1);
    assert_eq!(count("dht_spool_inserts_total", "full"), 1);
    assert_eq!(count("dht_spool_inserts_total", "share_full"), 1);
    assert_eq!(count("dht_spool_removed_total", "acked"), 1);
    assert_eq!(count("dht_spool_removed_total", "expired"), 1);
}
