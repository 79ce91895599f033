//! Metrics of inbox and outbox. The label `spool` is `inbox` or `outbox`.
//!
//! | Name | Kind | Meaning |
//! |---|---|---|
//! | `dht_spool_inserts_total{spool, outcome}` | counter | rows and entries offered: `new`, `present`, or why not |
//! | `dht_spool_removed_total{spool, reason}` | counter | rows and entries that left: `acked`, `ended`, `expired`, `damaged` |
//! | `dht_spool_rows{spool}`, `dht_spool_bytes{spool}` | gauge | rows held, bytes of their content |
//! | `dht_spool_commit_requests{spool}` | histogram | requests in one commit |
//! | `dht_spool_failures_total{spool, reason}` | counter | commits that failed |
//! | `dht_spool_damaged_files_total{spool}` | counter | damaged files set aside |

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::error::SpoolError;

const INSERTS: &str = "dht_spool_inserts_total";
const REMOVED: &str = "dht_spool_removed_total";
const ROWS: &str = "dht_spool_rows";
const BYTES: &str = "dht_spool_bytes";
const COMMIT_REQUESTS: &str = "dht_spool_commit_requests";
const FAILURES: &str = "dht_spool_failures_total";
const DAMAGED_FILES: &str = "dht_spool_damaged_files_total";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(INSERTS, Unit::Count, "rows and entries by outcome");
    describe_counter!(REMOVED, Unit::Count, "rows and entries removed by reason");
    describe_gauge!(ROWS, Unit::Count, "rows held");
    describe_gauge!(BYTES, Unit::Bytes, "bytes of content held");
    describe_histogram!(COMMIT_REQUESTS, Unit::Count, "requests in one commit");
    describe_counter!(FAILURES, Unit::Count, "failed commits by reason");
    describe_counter!(DAMAGED_FILES, Unit::Count, "damaged files set aside");
}

pub(crate) fn inserted(spool: &'static str, outcome: &'static str) {
    counter!(INSERTS, "spool" => spool, "outcome" => outcome).increment(1);
}

pub(crate) fn removed(spool: &'static str, reason: &'static str, rows: u64) {
    if rows > 0 {
        counter!(REMOVED, "spool" => spool, "reason" => reason).increment(rows);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point; 2^53 bytes are out of reach"
)]
pub(crate) fn held(spool: &'static str, rows: u64, bytes: u64) {
    gauge!(ROWS, "spool" => spool).set(rows as f64);
    gauge!(BYTES, "spool" => spool).set(bytes as f64);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "histograms are floating point; a batch is small"
)]
pub(crate) fn commit(spool: &'static str, requests: usize) {
    histogram!(COMMIT_REQUESTS, "spool" => spool).record(requests as f64);
}

pub(crate) fn failed(spool: &'static str, error: &SpoolError) {
    counter!(FAILURES, "spool" => spool, "reason" => error.name()).increment(1);
}

pub(crate) fn damaged_file(spool: &'static str) {
    counter!(DAMAGED_FILES, "spool" => spool).increment(1);
}
