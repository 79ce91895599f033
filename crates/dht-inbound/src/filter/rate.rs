//! How much one deliverer may ask of this node: law 3, before any public-key work.
//!
//! The buckets here hold a deliverer to what a node can carry beside its other deliverers. No peer is banned for volume in
//! the strict profile; in the legacy one the flood limit of specification 03, section 5 bans, when the meter is read.

mod limiter;

use std::fmt;

use dht_core::{Clock as _, DropReason, MessageType, RawEnvelope, SharedClock};
use dht_stack::{Check, Rate};
use serde::{Deserialize, Serialize};

pub use self::limiter::{RateLimiter, UNDECODABLE_FRAME_BYTES};
use crate::{message::InboundEnvelope, metrics};

/// Rates at which one deliverer may send each type of message; half as much again, all deliverers of one
/// [`SourceGroup`](dht_core::SourceGroup) together: the section `[rates]` of a node's configuration, in which
/// a rate of zero is refused. More is dropped and counted, without a ban. Exact copies of messages already seen cost
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Application messages. Defaults to 20 000 a second, half of what two cores verify: one deliverer alone never
    /// takes it all.
    pub application: Rate,
    /// Joins, its own and those it passes on. Defaults to 50 a second, 2 000 at once.
    pub join: Rate,
    /// Discoveries, its own and those it passes on. Defaults to 50 a second, 2 000 at once.
    pub discovery: Rate,
    /// Discoveries for this node whose answer needs a dial, because the peer that asks is not connected. Defaults to 2 a
    /// second, 32 at once: a stranger's claim says whom this node dials.
    pub discovery_dial: Rate,
    /// Discovery responses, which are only ever its own. Defaults to 20 a second, 500 at once.
    pub discovery_response: Rate,
    /// Requests for stored messages. Defaults to 5 a second, 100 at once: each reads the store.
    pub stored_request: Rate,
    /// Responses with stored messages, up to a hundred in each. Defaults to 20 a second, 500 at once.
    pub stored_messages: Rate,
    /// Bytes that are no envelope. Defaults to 256 KiB a second, 4 MiB at once. A deliverer beyond it is not listened
    /// to at all until it has made up for it: no peer can make it pass on such bytes.
    pub undecodable_bytes: Rate,
}

/// The buckets of a deliverer or of a group of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// [`RateLimits::application`]; types this node does not know count here as well.
    Application,
    /// Bucket of [`RateLimits::join`].
    Join,
    /// Bucket of [`RateLimits::discovery`].
    Discovery,
    /// Bucket of [`RateLimits::discovery_dial`].
    DiscoveryDial,
    /// Bucket of [`RateLimits::discovery_response`].
    DiscoveryResponse,
    /// Bucket of [`RateLimits::stored_request`].
    StoredRequest,
    /// Bucket of [`RateLimits::stored_messages`].
    StoredMessages,
    /// Bucket of [`RateLimits::undecodable_bytes`].
    UndecodableBytes,
}

impl RateLimits {
    /// As good as no limit, for measurements.
    pub const NONE: Self = {
        let rate = Rate::per_second(u32::MAX);
        Self {
            application: rate,
            join: rate,
            discovery: rate,
            discovery_dial: rate,
            discovery_response: rate,
            stored_request: rate,
            stored_messages: rate,
            undecodable_bytes: rate,
        }
    };

    fn rates(&self) -> [Rate; Bucket::ALL.len()] {
        Bucket::ALL.map(|bucket| self.of(bucket))
    }

    const fn of(&self, bucket: Bucket) -> Rate {
        match bucket {
            Bucket::Application => self.application,
            Bucket::Join => self.join,
            Bucket::Discovery => self.discovery,
            Bucket::DiscoveryDial => self.discovery_dial,
            Bucket::DiscoveryResponse => self.discovery_response,
            Bucket::StoredRequest => self.stored_request,
            Bucket::StoredMessages => self.stored_messages,
            Bucket::UndecodableBytes => self.undecodable_bytes,
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        Self {
            application: rate(20_000, 20_000),
            join: rate(50, 2_000),
            discovery: rate(50, 2_000),
            discovery_dial: rate(2, 32),
            discovery_response: rate(20, 500),
            stored_request: rate(5, 100),
            stored_messages: rate(20, 500),
            undecodable_bytes: rate(256 * 1_024, 4 * 1_024 * 1_024),
        }
    }
}

impl Bucket {
    /// Every bucket, in the order in which a deliverer's are kept.
    pub const ALL: [Self; 8] = [
        Self::Application,
        Self::Join,
        Self::Discovery,
        Self::DiscoveryDial,
        Self::DiscoveryResponse,
        Self::StoredRequest,
        Self::StoredMessages,
        Self::UndecodableBytes,
    ];

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Join => "join",
            Self::Discovery => "discovery",
            Self::DiscoveryDial => "discovery_dial",
            Self::DiscoveryResponse => "discovery_response",
            Self::StoredRequest => "stored_request",
            Self::StoredMessages => "stored_messages",
            Self::UndecodableBytes => "undecodable_bytes",
        }
    }

    /// The bucket of messages with this type number.
    #[must_use]
    pub fn of_wire_type(number: i32) -> Self {
        match MessageType::from_wire(number) {
            Some(MessageType::Join) => Self::Join,
            Some(MessageType::Discovery) => Self::Discovery,
            Some(MessageType::DiscoveryResponse) => Self::DiscoveryResponse,
            Some(MessageType::SafRequestMessages) => Self::StoredRequest,
            Some(MessageType::SafStoredMessages) => Self::StoredMessages,
            _ => Self::Application,
        }
    }
}

/// Drops what exceeds the rate of its type.
#[derive(Clone)]
pub struct RateLimit {
    /// Buckets of the deliverers.
    pub limiter: RateLimiter,
    /// Clock of this node.
    pub clock: SharedClock,
}

impl Check<InboundEnvelope<RawEnvelope>> for RateLimit {
    type Out = InboundEnvelope<RawEnvelope>;
    type Reject = DropReason;

    fn check(&self, message: Self::Out) -> Result<Self::Out, DropReason> {
        // Without a header it is dropped further on, at no cost.
        let kind = message.envelope.header().map(|header| header.message_type);
        let bucket = kind.map_or(Bucket::Application, Bucket::of_wire_type);
        let from = &message.source;
        if self.limiter.try_take(from, bucket, self.clock.now()) {
            return Ok(message);
        }
        metrics::rate_limited(bucket.name());
        Err(DropReason::Overload)
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimit").field(&self.limiter).finish()
    }
}

#[cfg(test)]
mod tests;
