//! Metrics of this crate.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Messages in the table.
const ENTRIES: &str = "dht_dedup_entries";
/// Messages removed from the table, by reason: `lapsed` or `full`.
const FORGOTTEN: &str = "dht_dedup_forgotten_total";

/// Damaged files set aside.
#[cfg(feature = "redb")]
const DAMAGED_FILES: &str = "dht_dedup_damaged_files_total";

/// Describes every metric to the installed recorder.
pub fn describe_metrics() {
    describe_gauge!(ENTRIES, Unit::Count, "Messages in the dedup table");
    describe_counter!(
        FORGOTTEN,
        Unit::Count,
        "Messages removed from the dedup table, by reason"
    );
    #[cfg(feature = "redb")]
    describe_counter!(DAMAGED_FILES, Unit::Count, "Damaged files set aside");
}

#[cfg(feature = "redb")]
pub(crate) fn damaged_file() {
    counter!(DAMAGED_FILES).increment(1);
}

pub(crate) fn entries(entries: usize) {
    // Exact up to 2^53.
    gauge!(ENTRIES).set(entries as f64);
}

pub(crate) fn lapsed(entries: usize) {
    forgotten("lapsed", entries);
}

pub(crate) fn evicted(entries: usize) {
    forgotten("full", entries);
}

fn forgotten(why: &'static str, entries: usize) {
    if entries > 0 {
        counter!(FORGOTTEN, "why" => why).increment(entries as u64);
    }
}
