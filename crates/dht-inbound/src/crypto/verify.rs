//! Semantics and signature, on every node whether or not the message is for it: specification 03, section 3.5,
//! step A.

use dht_core::{DropReason, Sealed, Verified, VerifyError};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_stack::{Ask, Decide};
use tracing::trace;

use crate::message::InboundEnvelope;

/// Has each signed envelope checked by a verifier service, and drops those that do not hold.
///
/// The verifier is a `Service<Sealed, Response = Result<Verified, VerifyError>>`, such as a
/// [`Batch`](dht_stack::Batch) of [`BatchVerifier`](crate::BatchVerifier). The legacy profile bans the deliverer for
/// what does not hold; the strict one bans no peer, because any peer that feeds a relay junk could choose whom to get
/// banned (03 F-4). A signature that holds but is not in its canonical encoding is dropped without a ban in both
/// (03 F-5).
///
/// Specification 03, section 3.5, step A.
#[derive(Clone, Debug)]
pub struct Verify {
    /// Bans peers for the offences found here.
    pub bans: BanPolicy,
}

impl Decide<InboundEnvelope<Sealed>> for Verify {
    type Question = Sealed;
    type Answer = Result<Verified, VerifyError>;
    type Rest = InboundEnvelope<()>;
    type Out = InboundEnvelope<Verified>;
    type Reject = DropReason;

    fn ask(
        &self,
        message: InboundEnvelope<Sealed>,
    ) -> (Ask<Sealed, Self::Answer>, InboundEnvelope<()>) {
        let (sealed, rest) = message.split();
        let ask = match sealed.header().signature.is_empty() {
            // No arithmetic.
            true => Ask::Known(sealed.verify()),
            false => Ask::Service(sealed),
        };
        (ask, rest)
    }

    fn decide(
        &self,
        rest: InboundEnvelope<()>,
        outcome: Result<Verified, VerifyError>,
    ) -> Result<Self::Out, DropReason> {
        let cause = match outcome {
            Ok(verified) if !verified.signature_is_canonical() => {
                return Err(DropReason::NotCanonical);
            }
            Ok(verified) => return Ok(rest.map(|()| verified)),
            Err(cause) => cause,
        };
        trace!(%cause, "not valid");
        let (offence, reason) = match cause {
            VerifyError::Semantics => (Offence::BadSemantics, DropReason::BadSemantics),
            _ => (Offence::BadSignature, DropReason::BadSignature),
        };
        let deliverer = Parties::deliverer(rest.source.node_id);
        self.bans.report(offence, deliverer);
        Err(reason)
    }
}

#[cfg(test)]
mod tests;
