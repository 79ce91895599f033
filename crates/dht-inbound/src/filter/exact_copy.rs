//! Drops exact copies of validated envelopes before any public-key operation (law 4).

use std::fmt;

use dht_core::{Clock as _, DropReason, RawEnvelope, SharedClock, UnixSeconds};
use dht_dedup::{DedupMeta, DedupTable, FingerprintCache};
use dht_proto::envelope::dht_header::Destination;
use dht_stack::Check;

use crate::{message::InboundEnvelope, metrics::ExactCopies};

/// Drops a message if exactly this envelope has been validated before and may not come again.
///
/// Where more than one occurrence is allowed, copies below the limit pass, and are counted by
/// [`Dedup`](crate::Dedup).
pub struct ExactCopy {
    fingerprints: FingerprintCache,
    table: DedupTable,
    allowed: u32,
    clock: SharedClock,
    copies: ExactCopies,
}

impl ExactCopy {
    /// Looks envelopes up in `fingerprints` and counts repeats in `table`, which must be those of the dedup check.
    #[must_use]
    pub fn new(
        table: DedupTable,
        fingerprints: FingerprintCache,
        allowed: u32,
        clock: SharedClock,
    ) -> Self {
        Self {
            fingerprints,
            table,
            allowed: allowed.max(1),
            clock,
            copies: ExactCopies::new(),
        }
    }
}

impl Check<InboundEnvelope<RawEnvelope>> for ExactCopy {
    type Out = InboundEnvelope<RawEnvelope>;
    type Reject = DropReason;

    fn check(&self, mut message: Self::Out) -> Result<Self::Out, DropReason> {
        let fingerprint = self.fingerprints.fingerprint(&message.envelope);
        if let Some(hash) = self.fingerprints.find(fingerprint)
            && let Some(header) = message.envelope.header()
        {
            // The copy that was validated had the same header, so these fields are what its signature covers.
            let meta = DedupMeta {
                signed: !header.message_signature.is_empty(),
                expires: (header.expires != 0).then_some(UnixSeconds(header.expires)),
            };
            let now = self.clock.now();
            if self
                .table
                .record_repeat(&hash, meta, self.allowed, now)
                .is_some()
            {
                if matches!(header.destination, Some(Destination::PublicKey(_))) {
                    self.table.note_deliverer(&message.source.node_id, &hash);
                }
                self.copies.count();
                return Err(DropReason::Duplicate);
            }
        }
        message.fingerprint = Some(fingerprint);
        Ok(message)
    }
}

impl fmt::Debug for ExactCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactCopy")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
