//! Decides about a whole response once each of its messages was checked: 05 section 8. No I/O, no clock.
//!
//! No message is delivered before every message was checked (05 defect D6). In the strict profile good
//! messages are delivered whatever came with them.

use bytes::Bytes;
use dht_core::{DedupHash, UnixSeconds, dedup_hash};
use dht_dedup::Reservation;
use dht_mailbox::DEFAULT_RESPONSE_BYTES;
use dht_peers::policy::{AttributionProfile, Offence};
use dht_proto::store_forward::StoredMessage;

use super::{check::ValidMessage, fault::Fault};

/// State of a valid message at this node.
#[derive(Debug)]
pub(super) enum ReceptionState {
    /// Nothing; it is this response's to deliver.
    New(Reservation),
    /// The application is getting it, live or from another response.
    UnderWay,
    /// The application has it.
    Known,
}

/// Consequence of a response.
#[derive(Debug, Default)]
pub(super) struct ResponseOutcome {
    /// Messages to deliver, oldest first.
    pub(super) accepted: Vec<(ValidMessage, Reservation)>,
    /// Hash and `stored_at` of messages that the application is getting from elsewhere.
    pub(super) under_way: Vec<(DedupHash, UnixSeconds)>,
    /// Messages that this node has received before.
    pub(super) known: u64,
    /// Messages that failed a check.
    pub(super) refused: u64,
    /// Gravest offence of the responder under the profile.
    pub(super) offence: Option<Offence>,
    /// Whether the response was dropped as a whole.
    pub(super) aborted: bool,
    /// Newest `stored_at` of the messages that are delivered or known: how far the responder has been read.
    pub(super) reached: Option<UnixSeconds>,
}

/// Size and order of a page, which tell whether further pages exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct PageSummary {
    messages: usize,
    bytes: usize,
    ascending: bool,
    /// Hash of the first and the last body, to recognise a page that is repeated; `None` for an empty page.
    pub(super) hash: Option<DedupHash>,
}

/// A page of this many bytes was cut by a byte limit of [`DEFAULT_RESPONSE_BYTES`]: one more message of the largest
/// size would not have fitted.
const FULL_BYTES: usize =
    DEFAULT_RESPONSE_BYTES - dht_proto::limits::MAX_STORED_BODY_BYTES - 16 * 1024;

/// Decides about a whole response. `state_of` claims a message if it is new; it is called only for messages that would be
/// delivered.
pub(super) fn decide(
    checked: Vec<Result<ValidMessage, Fault>>,
    profile: AttributionProfile,
    mut state_of: impl FnMut(&ValidMessage) -> ReceptionState,
) -> ResponseOutcome {
    let severity = |offence: Offence| offence.penalty(profile).map(|penalty| penalty.severity);
    let mut outcome = ResponseOutcome::default();
    for fault in checked.iter().filter_map(|checked| checked.as_ref().err()) {
        let offence = fault.offence();
        if fault.aborts(profile) {
            outcome.aborted = true;
            // The messages behind it were not checked.
            outcome.offence = offence;
            break;
        }
        if offence.and_then(severity) > outcome.offence.and_then(severity) {
            outcome.offence = offence;
        }
    }
    if outcome.aborted {
        outcome.refused = u64::try_from(checked.len()).unwrap_or(u64::MAX);
        return outcome;
    }
    for message in checked {
        let Ok(message) = message else {
            outcome.refused = outcome.refused.saturating_add(1);
            continue;
        };
        outcome.reached = outcome.reached.max(Some(message.stored_at));
        match state_of(&message) {
            ReceptionState::New(reservation) => outcome.accepted.push((message, reservation)),
            ReceptionState::UnderWay => outcome.under_way.push((message.hash, message.stored_at)),
            ReceptionState::Known => outcome.known = outcome.known.saturating_add(1),
        }
    }
    // Responders send in either order; applications read in the order of arrival.
    outcome
        .accepted
        .sort_by_key(|(message, _)| message.stored_at);
    outcome
}

impl PageSummary {
    pub(super) fn of(messages: &[StoredMessage]) -> Self {
        let at = |message: Option<&StoredMessage>| message.map_or(0, |message| message.stored_at);
        Self {
            messages: messages.len(),
            bytes: messages
                .iter()
                .map(|message| Bytes::len(&message.body))
                .fold(0, usize::saturating_add),
            ascending: at(messages.first()) <= at(messages.last()),
            hash: messages
                .first()
                .zip(messages.last())
                .map(|(first, last)| dedup_hash(&first.body, &last.body)),
        }
    }

    /// Whether a further request may get more from the responder.
    ///
    /// A responder that serves the newest first leaves out the oldest, which no request gets: a repetition would only
    /// make it delete them (05 defects D1 and D2).
    pub(super) const fn may_continue(&self, limit: usize) -> bool {
        self.is_full(limit) && self.ascending
    }

    /// Whether a limit has cut the page.
    pub(super) const fn is_full(&self, limit: usize) -> bool {
        self.messages > 0 && (self.messages >= limit || self.bytes >= FULL_BYTES)
    }
}
