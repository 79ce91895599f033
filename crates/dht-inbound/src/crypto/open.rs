//! Reads what is readable here: specification 03, section 3.5, steps B and C.

use std::sync::Arc;

use dht_core::{DedupHash, DropReason, NodeIdentity, OpenError, Opened, Verified};
use dht_stack::{Ask, Decide};

use crate::message::{Deduped, InboundEnvelope, OpenedMessage};

/// Has messages that are encrypted for this node opened by an opener service, a
/// `Service<Verified, Response = Result<Opened, OpenError>>` such as a [`Batch`](dht_stack::Batch) of
/// [`BatchOpener`](crate::BatchOpener).
///
/// Clear messages need no arithmetic and are read here. Messages encrypted for others pass on unread. A message for this
/// node that does not open is dropped, and no peer is told why or banned: only this node can tell, so no relay could have
/// known.
///
/// Specification 03, section 3.5, steps B and C.
#[derive(Clone, Debug)]
pub struct Open {
    /// Keys and features of this node.
    pub identity: Arc<NodeIdentity>,
}

impl Decide<InboundEnvelope<Deduped>> for Open {
    type Question = Verified;
    type Answer = Result<Opened, OpenError>;
    type Rest = (InboundEnvelope<()>, DedupHash, u32, bool);
    type Out = OpenedMessage;
    type Reject = DropReason;

    fn ask(&self, message: InboundEnvelope<Deduped>) -> (Ask<Verified, Self::Answer>, Self::Rest) {
        let (deduped, rest) = message.split();
        let verified = deduped.verified;
        let header = verified.header();
        let for_us = header.destination.public_key() == Some(self.identity.public_key());
        let ask = match header.is_encrypted() && for_us {
            true => Ask::Service(verified),
            false => Ask::Known(verified.open(&self.identity)),
        };
        let rest = (
            rest,
            deduped.hash,
            deduped.occurrences,
            deduped.already_forwarded,
        );
        (ask, rest)
    }

    fn decide(
        &self,
        (rest, hash, occurrences, already_forwarded): Self::Rest,
        outcome: Result<Opened, OpenError>,
    ) -> Result<OpenedMessage, DropReason> {
        let opened = outcome.map_err(|cause| match cause {
            OpenError::UndecodableBody => DropReason::UndecodableBody,
            _ => DropReason::Undecryptable,
        })?;
        Ok(OpenedMessage {
            source: rest.source,
            opened,
            hash,
            occurrences,
            is_saf: false,
            stored: None,
            already_forwarded,
            outcome: None,
            permit: rest.permit,
        })
    }
}

#[cfg(test)]
mod tests;
