//! Counters and gauges of the overlay.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const TOLD: &str = "dht_overlay_peers_told_total";
const LOOKUPS: &str = "dht_overlay_lookups_total";
const QUERIES: &str = "dht_overlay_lookup_queries_total";
const DELAYED: &str = "dht_overlay_requests_delayed_total";
const DIALS: &str = "dht_overlay_dials_total";
const LEARNED: &str = "dht_overlay_peers_learned_total";
const POOLS: &str = "dht_overlay_pool_peers";
const CROWDED: &str = "dht_overlay_crowded";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(
        TOLD,
        Unit::Count,
        "peers that others were told of, by method"
    );
    describe_counter!(
        LOOKUPS,
        Unit::Count,
        "lookups for a node by key, by outcome: `found` or `not_found`"
    );
    describe_counter!(
        QUERIES,
        Unit::Count,
        "nodes that were asked in lookups for a node by key"
    );
    describe_counter!(
        DELAYED,
        Unit::Count,
        "requests for peers that waited for the rate of their sender"
    );
    describe_counter!(
        DIALS,
        Unit::Count,
        "dials of the overlay that have ended, by outcome; connected divided by connected and failed is the share that succeeds"
    );
    describe_counter!(
        LEARNED,
        Unit::Count,
        "peers that others told of, by whether they were known"
    );
    describe_gauge!(POOLS, Unit::Count, "connected peers of each pool");
    describe_gauge!(
        CROWDED,
        Unit::Count,
        "1 if the nodes closest to this one are closer than chance explains"
    );
}

pub(crate) fn told(method: &'static str) {
    counter!(TOLD, "method" => method).increment(1);
}

pub(crate) fn looked_up(is_found: bool, queries: usize) {
    let outcome = if is_found { "found" } else { "not_found" };
    counter!(LOOKUPS, "outcome" => outcome).increment(1);
    counter!(QUERIES).increment(queries as u64);
}

pub(crate) fn delayed() {
    counter!(DELAYED).increment(1);
}

pub(crate) fn dialled(outcome: &'static str) {
    counter!(DIALS, "outcome" => outcome).increment(1);
}

pub(crate) fn learned(new: usize, known: usize) {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    counter!(LEARNED, "kind" => "new").increment(count(new));
    counter!(LEARNED, "kind" => "known").increment(count(known));
}

pub(crate) fn pools(neighbours: usize, random: usize) {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    gauge!(POOLS, "pool" => "neighbours").set(count(neighbours));
    gauge!(POOLS, "pool" => "random").set(count(random));
}

pub(crate) fn crowded(is_crowded: bool) {
    gauge!(CROWDED).set(f64::from(u8::from(is_crowded)));
}
