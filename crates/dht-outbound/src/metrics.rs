//! Counters and gauges of the outbound pipeline.

use dht_core::Priority;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const REQUESTS: &str = "dht_outbound_requests_total";
const RECIPIENTS: &str = "dht_outbound_recipients";
const FRAME_BYTES: &str = "dht_outbound_frame_bytes";
const MESSAGES: &str = "dht_outbound_messages_total";
const SEEDED: &str = "dht_outbound_seeded_total";
const DISCOVERIES: &str = "dht_outbound_discoveries_total";
const SEARCHES_REFUSED: &str = "dht_outbound_searches_refused_total";
const SHED: &str = "dht_outbound_shed_total";
const RUNNING: &str = "dht_outbound_running";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "requests answered, by strategy and outcome"
    );
    describe_histogram!(RECIPIENTS, Unit::Count, "recipients of a message");
    describe_histogram!(
        FRAME_BYTES,
        Unit::Bytes,
        "encoded envelopes, once for all recipients"
    );
    describe_counter!(
        MESSAGES,
        Unit::Count,
        "copies handed to the sink, by whether it took them"
    );
    describe_counter!(SEEDED, Unit::Count, "own messages remembered as duplicates");
    describe_counter!(
        DISCOVERIES,
        Unit::Count,
        "searches for recipients, by outcome"
    );
    describe_counter!(
        SEARCHES_REFUSED,
        Unit::Count,
        "searches refused because the share of their cause is in use"
    );
    describe_counter!(
        SHED,
        Unit::Count,
        "requests refused for want of room, by priority"
    );
    describe_gauge!(
        RUNNING,
        Unit::Count,
        "requests of the worker in the pipeline"
    );
}

pub(crate) fn request(strategy: &'static str, outcome: &'static str) {
    counter!(REQUESTS, "strategy" => strategy, "outcome" => outcome).increment(1);
}

pub(crate) fn fan_out(recipients: usize, bytes: usize) {
    histogram!(RECIPIENTS).record(recipients as f64);
    histogram!(FRAME_BYTES).record(bytes as f64);
}

pub(crate) fn taken(ok: bool) {
    counter!(MESSAGES, "outcome" => if ok { "taken" } else { "refused" }).increment(1);
}

pub(crate) fn seeded() {
    counter!(SEEDED).increment(1);
}

pub(crate) fn discovery(outcome: &'static str) {
    counter!(DISCOVERIES, "outcome" => outcome).increment(1);
}

pub(crate) fn search_refused(cause: &'static str) {
    counter!(SEARCHES_REFUSED, "cause" => cause).increment(1);
}

pub(crate) fn shed(priority: Priority) {
    counter!(SHED, "priority" => priority.name()).increment(1);
}

pub(crate) fn occupancy(running: usize) {
    gauge!(RUNNING).set(running as f64);
}
