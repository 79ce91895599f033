//! Counters and gauges of the directory.

use crate::policy::Offence;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const PEERS: &str = "dht_peers_known";
const BANS: &str = "dht_peers_bans_total";
const EVICTIONS: &str = "dht_peers_evictions_total";

#[cfg(feature = "redb")]
const DAMAGED_FILES: &str = "dht_peers_damaged_files_total";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_gauge!(PEERS, Unit::Count, "peers in the directory, by table");
    describe_counter!(BANS, Unit::Count, "bans put in force, by offence");
    describe_counter!(
        EVICTIONS,
        Unit::Count,
        "peers pushed out of a full directory"
    );
    #[cfg(feature = "redb")]
    describe_counter!(DAMAGED_FILES, Unit::Count, "damaged files set aside");
}

#[cfg(feature = "redb")]
pub(crate) fn damaged_file() {
    counter!(DAMAGED_FILES).increment(1);
}

pub(crate) fn known(proven: usize, heard_of: usize) {
    // Precise far beyond any directory: f64 counts exactly to 2^53.
    gauge!(PEERS, "table" => "proven").set(proven as f64);
    gauge!(PEERS, "table" => "heard_of").set(heard_of as f64);
}

pub(crate) fn banned(offence: Option<Offence>) {
    let offence = offence.map_or("operator", |offence| offence.rule().name);
    counter!(BANS, "offence" => offence).increment(1);
}

pub(crate) fn evicted(peers: usize) {
    counter!(EVICTIONS).increment(peers as u64);
}
