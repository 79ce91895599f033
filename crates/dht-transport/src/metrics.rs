//! Metrics of the transport. Labels come from closed sets; never a peer, an address or a protocol id.

use dht_core::{DeliveryError, Priority};
use dht_peers::Direction;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::connection::DialCause;

/// Connections that began, by direction. Minus [`CLOSED`]: connections open.
const OPENED: &str = "dht_transport_connections_opened_total";
/// Connections that ended, by direction.
const CLOSED: &str = "dht_transport_connections_closed_total";
/// Open connections.
const CONNECTIONS: &str = "dht_transport_connections";
/// Failed upgrades, by direction.
const UPGRADES_FAILED: &str = "dht_transport_upgrades_failed_total";
/// Time from socket to connection.
const UPGRADE_SECONDS: &str = "dht_transport_upgrade_seconds";
/// Sockets closed because of a limit, by limit.
const REFUSED: &str = "dht_transport_sockets_refused_total";
/// Connections closed for others.
const EVICTED: &str = "dht_transport_connections_evicted_total";
/// Dials that were not begun, by cause and limit.
const DIALS_REFUSED: &str = "dht_transport_dials_refused_total";
/// Inbound streams reset because there are too many.
const STREAMS_SHED: &str = "dht_transport_streams_shed_total";
/// Times a connection was not read for a second because its peer sends too many frames without payload.
const CONTROL_PAUSES: &str = "dht_transport_control_pauses_total";
/// Messages received.
const RECEIVED: &str = "dht_transport_messages_received_total";
/// Bytes of messages received.
const RECEIVED_BYTES: &str = "dht_transport_messages_received_bytes_total";
/// Messages the socket took.
const SENT: &str = "dht_transport_messages_sent_total";
/// Bytes of messages the socket took.
const SENT_BYTES: &str = "dht_transport_messages_sent_bytes_total";
/// Queued messages, by priority and outcome.
const DELIVERIES: &str = "dht_transport_deliveries_total";
/// Tasks that panicked.
const PANICS: &str = "dht_transport_task_panics_total";
/// Events dropped because the owner did not take them.
const EVENTS_LOST: &str = "dht_transport_events_lost_total";

/// Describes every metric of this crate to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(OPENED, Unit::Count, "connections that began");
    describe_counter!(CLOSED, Unit::Count, "connections that ended");
    describe_gauge!(CONNECTIONS, Unit::Count, "connections open");
    describe_counter!(
        UPGRADES_FAILED,
        Unit::Count,
        "sockets that did not become connections"
    );
    describe_histogram!(
        UPGRADE_SECONDS,
        Unit::Seconds,
        "time from socket to connection"
    );
    describe_counter!(REFUSED, Unit::Count, "sockets closed because of a limit");
    describe_counter!(EVICTED, Unit::Count, "connections closed for others");
    describe_counter!(
        DIALS_REFUSED,
        Unit::Count,
        "dials not begun because of a limit"
    );
    describe_counter!(
        STREAMS_SHED,
        Unit::Count,
        "inbound streams reset because of a limit"
    );
    describe_counter!(
        CONTROL_PAUSES,
        Unit::Count,
        "seconds in which a connection was not read because of too many control frames"
    );
    describe_counter!(RECEIVED, Unit::Count, "messages received");
    describe_counter!(RECEIVED_BYTES, Unit::Bytes, "bytes of messages received");
    describe_counter!(SENT, Unit::Count, "messages handed to a socket");
    describe_counter!(
        SENT_BYTES,
        Unit::Bytes,
        "bytes of messages handed to a socket"
    );
    describe_counter!(DELIVERIES, Unit::Count, "outcomes of queued messages");
    describe_counter!(PANICS, Unit::Count, "tasks that panicked");
    describe_counter!(EVENTS_LOST, Unit::Count, "events nobody took in time");
}

pub(crate) fn opened(direction: Direction, seconds: f64) {
    counter!(OPENED, "direction" => name(direction)).increment(1);
    gauge!(CONNECTIONS).increment(1);
    histogram!(UPGRADE_SECONDS, "direction" => name(direction)).record(seconds);
}

pub(crate) fn closed(direction: Direction) {
    counter!(CLOSED, "direction" => name(direction)).increment(1);
    gauge!(CONNECTIONS).decrement(1);
}

pub(crate) fn upgrade_failed(direction: Direction) {
    counter!(UPGRADES_FAILED, "direction" => name(direction)).increment(1);
}

pub(crate) fn refused(limit: &'static str) {
    counter!(REFUSED, "limit" => limit).increment(1);
}

pub(crate) fn evicted() {
    counter!(EVICTED).increment(1);
}

pub(crate) fn dial_refused(cause: DialCause, limit: &'static str) {
    counter!(DIALS_REFUSED, "cause" => cause.name(), "limit" => limit).increment(1);
}

pub(crate) fn stream_shed() {
    counter!(STREAMS_SHED).increment(1);
}

pub(crate) fn control_pause() {
    counter!(CONTROL_PAUSES).increment(1);
}

pub(crate) fn received(bytes: usize) {
    counter!(RECEIVED).increment(1);
    counter!(RECEIVED_BYTES).increment(bytes as u64);
}

pub(crate) fn sent(bytes: usize) {
    counter!(SENT).increment(1);
    counter!(SENT_BYTES).increment(bytes as u64);
}

pub(crate) fn delivery(priority: Priority, outcome: Result<(), DeliveryError>) {
    let outcome = outcome.map_or_else(DeliveryError::name, |()| "sent");
    counter!(DELIVERIES, "priority" => priority.name(), "outcome" => outcome).increment(1);
}

pub(crate) fn task_panicked() {
    counter!(PANICS).increment(1);
}

pub(crate) fn event_lost() {
    counter!(EVENTS_LOST).increment(1);
}

const fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}
