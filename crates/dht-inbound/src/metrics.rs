//! Metrics of this crate. Labels come from closed sets; no peer and no message ever is one.

use metrics::{Counter, Unit, counter, describe_counter};

use dht_core::{Disposition, DropReason};

/// Messages that left the stack, by what became of them; `cancelled` are those given up on their way.
pub(crate) const MESSAGES: &str = "dht_inbound_messages_total";
/// Bytes of the frames that entered the stack.
const BYTES: &str = "dht_inbound_bytes_total";
/// Duplicates recognised before any arithmetic.
const EXACT_COPIES: &str = "dht_inbound_exact_copies_total";
/// Requests of the stack to the outbound side, by kind and outcome.
const SENT: &str = "dht_inbound_sent_total";
/// Gossip that the application did not accept, by `acceptance`: `ignore`, `reject`, or `late`.
const GOSSIP_REFUSED: &str = "dht_inbound_gossip_refused_total";
/// Messages dropped because a deliverer exceeded a rate, by bucket.
const RATE_LIMITED: &str = "dht_inbound_rate_limited_total";

/// Describes every metric to the installed recorder.
pub fn describe_metrics() {
    describe_counter!(
        MESSAGES,
        Unit::Count,
        "Messages that left the inbound stack, by outcome"
    );
    describe_counter!(
        BYTES,
        Unit::Bytes,
        "Bytes of the frames that entered the inbound stack"
    );
    describe_counter!(
        EXACT_COPIES,
        Unit::Count,
        "Duplicates recognised before any arithmetic"
    );
    describe_counter!(
        SENT,
        Unit::Count,
        "What the inbound stack sent, by kind and outcome"
    );
    describe_counter!(
        RATE_LIMITED,
        Unit::Count,
        "Messages dropped because a deliverer exceeded a rate, by bucket"
    );
    describe_counter!(
        GOSSIP_REFUSED,
        Unit::Count,
        "Gossip that the application did not accept, by its answer"
    );
}

/// Log text for a message that was given up on its way.
pub(crate) const CANCELLED: &str = "cancelled";

/// One counter per outcome, looked up once: a lookup by label costs as much as the duplicate path.
pub(crate) struct Outcomes {
    counters: Vec<(Disposition, Counter)>,
    other: Counter,
    errors: Counter,
    cancelled: Counter,
    bytes: Counter,
}

const OUTCOMES: [Disposition; 31] = {
    use DropReason::{
        BadHeader, BadProtocolMessage, BadSemantics, BadSignature, Banned, Duplicate, Empty,
        Expired, InboxFailed, InboxFull, InboxShareFull, Internal, NobodyListens, NotCanonical,
        NotForUs, Overload, OwnMessage, Panicked, Rebroadcast, Refused, RoleFilter,
        Unauthenticated, Undecodable, UndecodableBody, Undecryptable, UnknownSource, Unrequested,
    };
    // The likely ones first: they are found by looking from the front.
    [
        Disposition::Dropped(Duplicate),
        Disposition::Delivered,
        Disposition::Forwarded,
        Disposition::Stored,
        Disposition::Answered,
        Disposition::Dropped(Empty),
        Disposition::Dropped(Undecodable),
        Disposition::Dropped(NotCanonical),
        Disposition::Dropped(BadHeader),
        Disposition::Dropped(UnknownSource),
        Disposition::Dropped(RoleFilter),
        Disposition::Dropped(Expired),
        Disposition::Dropped(BadSemantics),
        Disposition::Dropped(BadSignature),
        Disposition::Dropped(Undecryptable),
        Disposition::Dropped(UndecodableBody),
        Disposition::Dropped(Rebroadcast),
        Disposition::Dropped(NotForUs),
        Disposition::Dropped(BadProtocolMessage),
        Disposition::Dropped(Unauthenticated),
        Disposition::Dropped(OwnMessage),
        Disposition::Dropped(Banned),
        Disposition::Dropped(Unrequested),
        Disposition::Dropped(Refused),
        Disposition::Dropped(NobodyListens),
        Disposition::Dropped(InboxFull),
        Disposition::Dropped(InboxShareFull),
        Disposition::Dropped(InboxFailed),
        Disposition::Dropped(Overload),
        Disposition::Dropped(Internal),
        Disposition::Dropped(Panicked),
    ]
};

impl Outcomes {
    pub(crate) fn new() -> Self {
        let outcome = |name: &'static str| counter!(MESSAGES, "outcome" => name);
        Self {
            counters: OUTCOMES.map(|each| (each, outcome(each.name()))).into(),
            other: outcome("other"),
            errors: outcome("error"),
            cancelled: outcome(CANCELLED),
            bytes: counter!(BYTES),
        }
    }

    pub(crate) fn arrived(&self, bytes: usize) {
        self.bytes.increment(bytes as u64);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.increment(1);
    }

    pub(crate) fn count(&self, outcome: Option<Disposition>) {
        let counter = match outcome {
            None => &self.errors,
            Some(outcome) => self
                .counters
                .iter()
                .find(|(disposition, _)| *disposition == outcome)
                .map_or(&self.other, |(_, counter)| counter),
        };
        counter.increment(1);
    }
}

impl std::fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outcomes(..)")
    }
}

/// The counter of the duplicate path, looked up once like [`Outcomes`].
pub(crate) struct ExactCopies(Counter);

impl ExactCopies {
    pub(crate) fn new() -> Self {
        Self(counter!(EXACT_COPIES))
    }

    pub(crate) fn count(&self) {
        self.0.increment(1);
    }
}

impl std::fmt::Debug for ExactCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExactCopies(..)")
    }
}

pub(crate) fn sent(kind: &'static str, outcome: &'static str) {
    counter!(SENT, "kind" => kind, "outcome" => outcome).increment(1);
}

pub(crate) fn rate_limited(bucket: &'static str) {
    counter!(RATE_LIMITED, "bucket" => bucket).increment(1);
}

pub(crate) fn gossip_refused(acceptance: &'static str) {
    counter!(GOSSIP_REFUSED, "acceptance" => acceptance).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No outcome is counted as another.
    #[test]
    fn every_outcome_has_its_own_counter() {
        for reason in DropReason::ALL {
            let dropped = Disposition::Dropped(reason);
            let count = OUTCOMES.iter().filter(|each| **each == dropped).count();
            assert_eq!(count, 1, "{reason:?}");
        }
        assert_eq!(OUTCOMES.len(), DropReason::ALL.len() + 4);
    }
}
