//! Metrics of the onion service.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const UP: &str = "dht_tor_onion_up";
const ADDED: &str = "dht_tor_onion_added_total";
const LOST: &str = "dht_tor_control_lost_total";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_gauge!(
        UP,
        Unit::Count,
        "1 while Tor serves the onion service, otherwise 0"
    );
    describe_counter!(ADDED, Unit::Count, "times the onion service was added");
    describe_counter!(
        LOST,
        Unit::Count,
        "attempts that failed and control connections that were lost"
    );
}

pub(crate) fn added() {
    gauge!(UP).set(1.0);
    counter!(ADDED).increment(1);
}

pub(crate) fn lost() {
    gauge!(UP).set(0.0);
    counter!(LOST).increment(1);
}
