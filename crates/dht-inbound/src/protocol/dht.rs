//! Joins, discoveries and discovery responses: specification 03, section 3.12.

use std::{fmt, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Claim, ClaimError, Clock as _, Disposition, DropReason, MessageType, NodeIdentity, PublicKey,
    SendQueue, SharedClock,
};
use dht_peers::{
    ClaimPolicy, Directory,
    policy::{BanPolicy, Offence, Parties},
    validate_claims,
};
use dht_proto::Bounded;
use dht_stack::Check;
use tracing::debug;

use super::hook::DiscoveryHook;
use crate::{filter::RateLimiter, message::OpenedMessage};

/// Consumes joins, discoveries and discovery responses, and ends what this node cannot read; passes everything else
/// on.
///
/// Peers learned go into the directory once their claim has been checked. Requests to send go to the [`SendQueue`];
/// responses go to the [`DiscoveryHook`].
///
/// Specification 03, section 3.12, and 06, sections 2.2, 2.3 and 3.
#[derive(Clone)]
pub struct Protocol {
    /// Keys and features of this node.
    pub identity: Arc<NodeIdentity>,
    /// Where peers are kept.
    pub directory: Directory,
    /// Takes relayed joins and answers to discoveries.
    pub send_queue: Arc<dyn SendQueue>,
    /// Receives the discovery responses that pass the checks.
    pub discovery: Arc<dyn DiscoveryHook>,
    /// Holds each deliverer to its rate of dials.
    pub limiter: RateLimiter,
    /// Bans peers for the offences found here.
    pub bans: BanPolicy,
    /// Clock of this node.
    pub clock: SharedClock,
    /// Which claims are acceptable.
    pub claims: ClaimPolicy,
}

/// The peer that a message is about, as far as it is checked without arithmetic.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) key: PublicKey,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Join,
    Discovery { nonce: u64 },
}

/// How far a message got: done with, or up to a claim to be checked.
pub(super) type Inspected = ControlFlow<Disposition, (Subject, Claim)>;

impl Check<OpenedMessage> for Protocol {
    type Out = OpenedMessage;
    type Reject = Disposition;

    fn check(&self, message: OpenedMessage) -> Result<OpenedMessage, Disposition> {
        if !message.is_readable() {
            return Err(message
                .outcome
                .unwrap_or_else(|| DropReason::NotForUs.into()));
        }
        if message.is_repeat() || !message.opened.header.message_type.is_dht() {
            return Ok(message);
        }
        match self.inspect(&message)? {
            ControlFlow::Break(disposition) => Err(disposition),
            ControlFlow::Continue((subject, claim)) => Err(self.act(&message, &subject, claim)?),
        }
    }
}

impl Protocol {
    /// Checks the claim, and does what the message asks for.
    fn act(
        &self,
        message: &OpenedMessage,
        subject: &Subject,
        claim: Claim,
    ) -> Result<Disposition, DropReason> {
        let known = self.directory.find(&subject.key.node_id());
        let (policy, now) = (&self.claims, self.clock.now());
        let checked = validate_claims(&subject.key, vec![claim], known.as_deref(), policy, now);
        let cause = match (checked, subject.kind) {
            (Ok(claims), Kind::Join) => return self.joined(message, &claims),
            (Ok(claims), Kind::Discovery { nonce }) => {
                return self.discovered(message, &claims, nonce);
            }
            (Err(cause), _) => cause,
        };
        debug!(%cause, "claim refused");
        let offence = match (subject.kind, cause) {
            (_, ClaimError::KeyMismatch) => None,
            (Kind::Join, cause) if cause.is_offence() => Some(Offence::JoinForgedClaim),
            (Kind::Join, _) => Some(Offence::JoinRefusedClaim),
            (Kind::Discovery { .. }, cause) => {
                cause.is_offence().then_some(Offence::DiscoveryForgedClaim)
            }
        };
        if let Some(offence) = offence {
            self.blame(offence, message);
        }
        Err(DropReason::BadProtocolMessage)
    }
}

impl Protocol {
    /// Everything that needs no arithmetic.
    fn inspect(&self, message: &OpenedMessage) -> Result<Inspected, DropReason> {
        let Some(origin) = message.opened.origin() else {
            self.blame(Offence::AnonymousProtocolMessage, message);
            return Ok(dropped(DropReason::Unauthenticated));
        };
        match message.opened.header.message_type {
            _ if origin == self.identity.public_key() => Ok(dropped(DropReason::OwnMessage)),
            MessageType::Join => Ok(self.inspect_join(message, origin)),
            MessageType::Discovery => Ok(self.inspect_discovery(message, origin)),
            _ => self
                .inspect_response(message, origin)
                .map(ControlFlow::Break),
        }
    }
}

impl Protocol {
    /// Decodes part 0, or blames the signer.
    pub(super) fn decode<M: Bounded>(&self, message: &OpenedMessage) -> Option<M> {
        let part = message.opened.parts().and_then(|parts| parts.first());
        let decoded = part.and_then(|part: &Bytes| dht_proto::decode(part.clone()).ok());
        if decoded.is_none() {
            self.blame(Offence::UndecodableProtocolMessage, message);
        }
        decoded
    }

    pub(super) fn blame(&self, offence: Offence, message: &OpenedMessage) {
        let parties = Parties {
            deliverer: Some(message.source.node_id.into()),
            origin: message.opened.origin().map(|key| (*key).into()),
            ..Parties::default()
        };
        self.bans.report(offence, parties);
    }
}

const fn dropped<T>(reason: DropReason) -> ControlFlow<Disposition, T> {
    ControlFlow::Break(Disposition::Dropped(reason))
}

/// Bans and drops a message that breaks the rules of its kind.
pub(super) const BAD: ControlFlow<Disposition, (Subject, Claim)> =
    dropped(DropReason::BadProtocolMessage);

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protocol")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
