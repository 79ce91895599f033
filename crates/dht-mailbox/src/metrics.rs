//! Metrics of the store.
//!
//! | Name | Kind | Meaning |
//! |---|---|---|
//! | `dht_mailbox_inserts_total{outcome}` | counter | insertions: `fresh`, `known`, or why not |
//! | `dht_mailbox_removed_total{reason}` | counter | rows gone: `delivered`, `expired`, `evicted`, `damaged` |
//! | `dht_mailbox_damaged_total` | counter | records found damaged, at opening or when they are read |
//! | `dht_mailbox_replayed_total` | counter | records of the log read again at opening |
//! | `dht_mailbox_failures_total{reason}` | counter | commits that failed |
//! | `dht_mailbox_commit_rows` | histogram | insertions in one commit |
//! | `dht_mailbox_stored_rows`, `dht_mailbox_stored_bytes` | gauge | what is held |
//! | `dht_mailbox_disk_bytes` | gauge | what it takes on the disk |

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{error::StoreError, record::Inserted, stats::StoreStats};

const INSERTS: &str = "dht_mailbox_inserts_total";
const REMOVED: &str = "dht_mailbox_removed_total";
const DAMAGED: &str = "dht_mailbox_damaged_total";
const REPLAYED: &str = "dht_mailbox_replayed_total";
const FAILURES: &str = "dht_mailbox_failures_total";
const COMMIT_ROWS: &str = "dht_mailbox_commit_rows";
const STORED_ROWS: &str = "dht_mailbox_stored_rows";
const STORED_BYTES: &str = "dht_mailbox_stored_bytes";
const DISK_BYTES: &str = "dht_mailbox_disk_bytes";

/// Why rows went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Removal {
    Delivered,
    Expired,
    Evicted,
    Damaged,
}

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(INSERTS, Unit::Count, "insertions by outcome");
    describe_counter!(REMOVED, Unit::Count, "rows removed by reason");
    describe_counter!(DAMAGED, Unit::Count, "records found damaged");
    describe_counter!(REPLAYED, Unit::Count, "log records read again at opening");
    describe_counter!(FAILURES, Unit::Count, "failed commits by reason");
    describe_histogram!(COMMIT_ROWS, Unit::Count, "insertions in one commit");
    describe_gauge!(STORED_ROWS, Unit::Count, "rows held");
    describe_gauge!(STORED_BYTES, Unit::Bytes, "bytes held");
    describe_gauge!(DISK_BYTES, Unit::Bytes, "bytes taken on the disk");
}

pub(crate) fn inserted(outcome: &Result<Inserted, StoreError>) {
    let outcome = match outcome {
        Ok(Inserted::Fresh(_)) => "fresh",
        Ok(Inserted::AlreadyExisted) => "known",
        Err(error) => error.name(),
    };
    counter!(INSERTS, "outcome" => outcome).increment(1);
}

pub(crate) fn removed(reason: Removal, rows: u64) {
    let reason = match reason {
        Removal::Delivered => "delivered",
        Removal::Expired => "expired",
        Removal::Evicted => "evicted",
        Removal::Damaged => "damaged",
    };
    counter!(REMOVED, "reason" => reason).increment(rows);
}

pub(crate) fn damaged(records: u64) {
    counter!(DAMAGED).increment(records);
}

pub(crate) fn replayed(records: u64) {
    counter!(REPLAYED).increment(records);
}

pub(crate) fn failed(error: &StoreError) {
    counter!(FAILURES, "reason" => error.name()).increment(1);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point; 2^53 bytes are out of reach"
)]
pub(crate) fn committed(insertions: usize, stats: &StoreStats) {
    if insertions > 0 {
        histogram!(COMMIT_ROWS).record(insertions as f64);
    }
    gauge!(STORED_ROWS).set(stats.rows as f64);
    gauge!(STORED_BYTES).set(stats.bytes as f64);
    gauge!(DISK_BYTES).set(stats.disk_bytes as f64);
}
