//! Metrics of the protocol.
//!
//! | Name | Kind | Meaning |
//! |---|---|---|
//! | `dht_saf_considered_total{decision}` | counter | messages at the store layer: `stored`, `known`, or why not |
//! | `dht_saf_requests_total{outcome}` | counter | requests of other nodes: `answered`, `rate`, `memory`, `malformed`, `failed`, `unsent` |
//! | `dht_saf_served_total` | counter | messages in responses to other nodes |
//! | `dht_saf_asked_total{outcome}` | counter | requests of this node: `sent`, `unsent` |
//! | `dht_saf_answers_total{outcome}` | counter | responses of other nodes: `taken`, or why not |
//! | `dht_saf_received_total{outcome}` | counter | messages in responses of other nodes: `new`, `known`, or what was wrong |
//! | `dht_saf_failures_total{reason}` | counter | accesses of the store or the ledger that failed |
//! | `dht_saf_damaged_files_total` | counter | damaged ledgers set aside |

use dht_mailbox::StoreError;
use metrics::{Unit, counter, describe_counter};

const FAILURES: &str = "dht_saf_failures_total";
#[cfg(feature = "redb")]
const DAMAGED_FILES: &str = "dht_saf_damaged_files_total";
const CONSIDERED: &str = "dht_saf_considered_total";
const REQUESTS: &str = "dht_saf_requests_total";
const SERVED: &str = "dht_saf_served_total";
const ASKED: &str = "dht_saf_asked_total";
const ANSWERS: &str = "dht_saf_answers_total";
const RECEIVED: &str = "dht_saf_received_total";

/// Describes the metrics of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(
        CONSIDERED,
        Unit::Count,
        "messages at the store layer by decision"
    );
    describe_counter!(REQUESTS, Unit::Count, "requests of other nodes by outcome");
    describe_counter!(SERVED, Unit::Count, "messages in responses to other nodes");
    describe_counter!(ASKED, Unit::Count, "requests to other nodes by outcome");
    describe_counter!(ANSWERS, Unit::Count, "responses of other nodes by outcome");
    describe_counter!(
        RECEIVED,
        Unit::Count,
        "messages in responses of other nodes by outcome"
    );
    describe_counter!(FAILURES, Unit::Count, "failed file accesses by reason");
    #[cfg(feature = "redb")]
    describe_counter!(DAMAGED_FILES, Unit::Count, "damaged ledgers set aside");
}

#[cfg(feature = "redb")]
pub(crate) fn damaged_file() {
    counter!(DAMAGED_FILES).increment(1);
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

pub(crate) fn failed(error: &StoreError) {
    counter!(FAILURES, "reason" => error.name()).increment(1);
}
