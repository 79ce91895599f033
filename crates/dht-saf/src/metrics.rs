//! What the store counts.
//!
//! | Name | Kind | Meaning |
//! |---|---|---|
//! | `dht_saf_inserts_total{outcome}` | counter | insertions: `fresh`, `known`, or why not |
//! | `dht_saf_removed_total{reason}` | counter | rows gone: `delivered`, `expired`, `evicted` |
//! | `dht_saf_lost_total` | counter | rows whose bytes a power failure or the device took |
//! | `dht_saf_replayed_total` | counter | records of the log read again at opening |
//! | `dht_saf_failures_total{reason}` | counter | commits that failed |
//! | `dht_saf_commit_rows` | histogram | insertions in one commit |
//! | `dht_saf_stored_rows`, `dht_saf_stored_bytes` | gauge | what is held |
//! | `dht_saf_disk_bytes` | gauge | what it takes on the disk |
//! | `dht_saf_considered_total{decision}` | counter | messages that passed the store layer: `stored`, `known`, or why not |
//! | `dht_saf_requests_total{outcome}` | counter | requests of others: `answered`, `rate`, `memory`, `malformed`, `failed`, `unsent` |
//! | `dht_saf_served_total` | counter | messages in answers |
//! | `dht_saf_asked_total{outcome}` | counter | requests of this node: `sent`, `unsent` |
//! | `dht_saf_answers_total{outcome}` | counter | answers of others: `taken`, or why not |
//! | `dht_saf_received_total{outcome}` | counter | messages in answers: `new`, or what was wrong |

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{error::StoreError, record::Inserted, store::StoreStats};

const INSERTS: &str = "dht_saf_inserts_total";
const REMOVED: &str = "dht_saf_removed_total";
const LOST: &str = "dht_saf_lost_total";
const REPLAYED: &str = "dht_saf_replayed_total";
const FAILURES: &str = "dht_saf_failures_total";
const COMMIT_ROWS: &str = "dht_saf_commit_rows";
const STORED_ROWS: &str = "dht_saf_stored_rows";
const STORED_BYTES: &str = "dht_saf_stored_bytes";
const DISK_BYTES: &str = "dht_saf_disk_bytes";

const CONSIDERED: &str = "dht_saf_considered_total";
const REQUESTS: &str = "dht_saf_requests_total";
const SERVED: &str = "dht_saf_served_total";
const ASKED: &str = "dht_saf_asked_total";
const ANSWERS: &str = "dht_saf_answers_total";
const RECEIVED: &str = "dht_saf_received_total";

/// Why rows went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Removal {
    Delivered,
    Expired,
    Evicted,
}

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(INSERTS, Unit::Count, "insertions by outcome");
    describe_counter!(REMOVED, Unit::Count, "rows removed by reason");
    describe_counter!(LOST, Unit::Count, "rows whose bytes were lost");
    describe_counter!(REPLAYED, Unit::Count, "log records read again at opening");
    describe_counter!(FAILURES, Unit::Count, "failed commits by reason");
    describe_histogram!(COMMIT_ROWS, Unit::Count, "insertions in one commit");
    describe_gauge!(STORED_ROWS, Unit::Count, "rows held");
    describe_gauge!(STORED_BYTES, Unit::Bytes, "bytes held");
    describe_gauge!(DISK_BYTES, Unit::Bytes, "bytes taken on the disk");
    describe_counter!(
        CONSIDERED,
        Unit::Count,
        "messages at the store layer by decision"
    );
    describe_counter!(REQUESTS, Unit::Count, "requests of others by outcome");
    describe_counter!(SERVED, Unit::Count, "messages in answers to others");
    describe_counter!(ASKED, Unit::Count, "requests to others by outcome");
    describe_counter!(ANSWERS, Unit::Count, "answers of others by outcome");
    describe_counter!(
        RECEIVED,
        Unit::Count,
        "messages in answers of others by outcome"
    );
}

pub(crate) fn considered(decision: &'static str) {
    counter!(CONSIDERED, "decision" => decision).increment(1);
}

pub(crate) fn request(outcome: &'static str) {
    counter!(REQUESTS, "outcome" => outcome).increment(1);
}

pub(crate) fn served(messages: usize) {
    counter!(SERVED).increment(messages.try_into().unwrap_or(u64::MAX));
}

pub(crate) fn asked(outcome: &'static str) {
    counter!(ASKED, "outcome" => outcome).increment(1);
}

pub(crate) fn answer(outcome: &'static str) {
    counter!(ANSWERS, "outcome" => outcome).increment(1);
}

pub(crate) fn received(outcome: &'static str, messages: u64) {
    if messages > 0 {
        counter!(RECEIVED, "outcome" => outcome).increment(messages);
    }
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
    };
    counter!(REMOVED, "reason" => reason).increment(rows);
}

pub(crate) fn lost(rows: usize) {
    counter!(LOST).increment(rows.try_into().unwrap_or(u64::MAX));
}

pub(crate) fn replayed(records: usize) {
    counter!(REPLAYED).increment(records.try_into().unwrap_or(u64::MAX));
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
