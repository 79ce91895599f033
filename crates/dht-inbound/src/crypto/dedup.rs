//! Drops repeats: specification 03, section 3.6; 03 F-15.

use std::fmt;

use dht_core::{Clock as _, Destination, DropReason, PublicKey, SharedClock, Verified, dedup_key};
use dht_dedup::{DedupMeta, DedupTable, FingerprintCache};
use dht_stack::Check;

use crate::message::{Deduped, InboundEnvelope};

/// Occurrences of one message that are let through, unless configured otherwise.
pub const DEFAULT_ALLOWED_OCCURRENCES: u32 = 1;

/// Counts verified messages and drops those that came too often.
///
/// After verification, so that an invalid copy never occupies the key of a valid one; before storing, forwarding
/// and opening, so that repeats cost none of these. A copy of a message for which the store of this node had no place
/// 5 seconds ago or earlier is let through, for the store alone.
///
/// Specification 03, section 3.6; 03 F-15.
#[derive(Clone)]
pub struct Dedup {
    /// Key of this node: the first copy of an application's message that may be for it is reserved, not yet counted for
    /// good.
    pub recipient: PublicKey,
    /// Whether this node passes gossip on before its application has it. What the application then does not take counts
    /// all the same: otherwise nodes without room would pass one message round and round.
    pub relays_gossip: bool,
    /// Where occurrences are counted.
    pub table: DedupTable,
    /// Where validated envelopes are remembered.
    pub fingerprints: FingerprintCache,
    /// Occurrences of a message that are let through; 0 counts as 1.
    pub allowed: u32,
    /// Clock of this node.
    pub clock: SharedClock,
}

impl Check<InboundEnvelope<Verified>> for Dedup {
    type Out = InboundEnvelope<Deduped>;
    type Reject = DropReason;

    fn check(&self, message: InboundEnvelope<Verified>) -> Result<Self::Out, DropReason> {
        let hash = dedup_key(&message.envelope).map_err(|_| DropReason::UndecodableBody)?;
        let header = message.envelope.header();
        let (meta, now) = (DedupMeta::of(header), self.clock.now());
        let may_be_ours = header.message_type.is_domain()
            && match &header.destination {
                Destination::PublicKey(key) => {
                    // Before the message counts: whoever sees the count also sees the deliverer.
                    self.table.note_deliverer(&message.source.node_id, &hash);
                    *key == self.recipient
                }
                Destination::Unknown => !self.relays_gossip,
            };
        let (mut occurrences, reservation) = if may_be_ours {
            match self.table.reserve(&hash, meta, now) {
                Ok(reservation) => (1, Some(reservation)),
                Err(occurrences) => (occurrences, None),
            }
        } else {
            (self.table.record(&hash, meta, now), None)
        };
        if let Some(fingerprint) = message.fingerprint {
            self.fingerprints.insert(fingerprint, hash);
        }
        // The store had no place for it, and may have one now. It went on to others before.
        let already_forwarded = occurrences > 1 && self.table.may_be_stored_again(&hash, now);
        if already_forwarded {
            occurrences = 1;
        }
        if occurrences > self.allowed.max(1) {
            return Err(DropReason::Duplicate);
        }
        Ok(message.map(|verified| Deduped {
            verified,
            hash,
            occurrences,
            already_forwarded,
            reservation,
        }))
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
