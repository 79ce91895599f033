//! From bytes to the structure of an envelope: specification 03, section 3.2, steps 1 to 3; 03 F-1.

use std::fmt;

use dht_core::{Clock as _, DropReason, MessageType, RawEnvelope, SharedClock};
use dht_peers::{Directory, InboundFrame};
use dht_proto::DecodeError;
use dht_stack::Check;
use tracing::{Span, trace};

use super::rate::{Bucket, RateLimiter};
use crate::{message::InboundEnvelope, metrics};

/// Decodes frames as envelopes, without touching a point of the curve.
///
/// Drops what is empty, does not decode, or differs from its own canonical encoding. None of these brings a ban. Bytes
/// that do not decode are charged to the deliverer; nothing more is decoded for one beyond its allowance (law 3).
///
/// Specification 03, section 3.2, steps 1 to 3.
#[derive(Clone)]
pub struct Decode {
    /// Charged for what does not decode.
    pub limiter: RateLimiter,
    /// Clock of this node.
    pub clock: SharedClock,
    /// If set, messages of deliverers that are not in this directory are dropped. No peer is banned for it: others may have
    /// crowded the deliverer out of the directory.
    pub known_in: Option<Directory>,
}

impl Check<InboundFrame> for Decode {
    type Out = InboundEnvelope<RawEnvelope>;
    type Reject = DropReason;

    fn check(&self, frame: InboundFrame) -> Result<Self::Out, DropReason> {
        let InboundFrame {
            source,
            frame,
            permit,
        } = frame;
        let from = &*source;
        if self.limiter.is_exhausted(from, || self.clock.now()) {
            metrics::rate_limited(Bucket::UndecodableBytes.name());
            return Err(DropReason::Overload);
        }
        let bytes = frame.len();
        let envelope = RawEnvelope::parse(frame).map_err(|cause| {
            trace!(%cause, "not an envelope");
            self.limiter.charge_junk(from, bytes, self.clock.now());
            match cause {
                DecodeError::Empty => DropReason::Empty,
                _ => DropReason::Undecodable,
            }
        })?;
        record_identity(&envelope);
        if let Some(directory) = &self.known_in
            && !directory.contains(&from.node_id)
        {
            return Err(DropReason::UnknownSource);
        }
        if !envelope.is_canonical() {
            return Err(DropReason::NotCanonical);
        }
        Ok(InboundEnvelope {
            source,
            permit,
            fingerprint: None,
            envelope,
        })
    }
}

impl fmt::Debug for Decode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decode")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

/// Enters tag and type of the message in its span.
fn record_identity(envelope: &RawEnvelope) {
    let span = Span::current();
    if let Some(header) = envelope.header()
        && !span.is_disabled()
    {
        span.record("tag", header.message_tag);
        span.record(
            "kind",
            MessageType::from_wire(header.message_type).map_or("unknown", MessageType::name),
        );
    }
}

#[cfg(test)]
mod tests;
