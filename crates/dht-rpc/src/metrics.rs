//! Counters and gauges of RPC sessions.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const SESSIONS: &str = "dht_rpc_sessions";
const ENDED: &str = "dht_rpc_sessions_ended_total";
const REFUSED: &str = "dht_rpc_sessions_refused_total";
const REQUESTS: &str = "dht_rpc_requests_total";
const HANDSHAKES: &str = "dht_rpc_handshakes_total";
const CALLS: &str = "dht_rpc_calls_total";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_gauge!(
        SESSIONS,
        Unit::Count,
        "sessions that the servers of this process answer"
    );
    describe_counter!(ENDED, Unit::Count, "sessions that ended, by cause");
    describe_counter!(REFUSED, Unit::Count, "sessions refused for want of room");
    describe_counter!(REQUESTS, Unit::Count, "calls answered, by status");
    describe_counter!(
        HANDSHAKES,
        Unit::Count,
        "sessions that clients asked for, by outcome"
    );
    describe_counter!(CALLS, Unit::Count, "calls of clients, by outcome");
}

pub(crate) fn session_opened() {
    gauge!(SESSIONS).increment(1);
}

pub(crate) fn session_closed() {
    gauge!(SESSIONS).decrement(1);
}

pub(crate) fn session_ended(cause: &'static str) {
    counter!(ENDED, "cause" => cause).increment(1);
}

pub(crate) fn session_refused() {
    counter!(REFUSED).increment(1);
}

pub(crate) fn answered(status: &'static str) {
    counter!(REQUESTS, "status" => status).increment(1);
}

pub(crate) fn handshake(outcome: &'static str) {
    counter!(HANDSHAKES, "outcome" => outcome).increment(1);
}

pub(crate) fn call(outcome: &'static str) {
    counter!(CALLS, "outcome" => outcome).increment(1);
}
