//! Counters of the peer-sync service.

use metrics::{Unit, counter, describe_counter};

const TOLD: &str = "dht_overlay_peers_told_total";
const DELAYED: &str = "dht_overlay_requests_delayed_total";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(
        TOLD,
        Unit::Count,
        "peers that others were told of, by method"
    );
    describe_counter!(
        DELAYED,
        Unit::Count,
        "requests for peers that waited for the rate of their sender"
    );
}

pub(crate) fn told(method: &'static str) {
    counter!(TOLD, "method" => method).increment(1);
}

pub(crate) fn delayed() {
    counter!(DELAYED).increment(1);
}
