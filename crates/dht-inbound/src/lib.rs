//! Tower stack that turns received envelopes into delivered messages.
//!
//! [`inbound_stack`] composes it; each layer is also usable alone. The response of every service is a
//! [`Disposition`](dht_core::Disposition): what became of the message. Errors mean that a part of this node does not
//! work, never that a message was bad. The rules, and the sections named in the documentation, are those
//! of `docs/protocol/03-inbound.md` and `docs/protocol/06-discovery-and-peer-sync.md`.
//!
//! ```text
//! Received ─ observe ─ meter ─ junk limit ─ decode ─► Inbound<RawEnvelope> ─ role ─ expiry ─ seen ─ rate limit ─
//! convert ─►
//! Inbound<Sealed> ─ verify ─► Inbound<Verified> ─ dedup ─► Inbound<Counted> ─ open ─►
//! Message ─ rebroadcast ─ log ─ (store) ─ forward ─ (serve) ─ handle ─ gossip ─ deliver ─► Delivered
//! ```
//!
//! A stack in front of an application that prints what it gets:
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//!
//! use dht_core::{
//!     Disposition, Entropy as _, FingerprintKey, ManualClock, OnDelivery, Outbox, OutboxError, RemotePeer,
//!     SeededEntropy, SendRequest, Signing, test_util,
//! };
//! use dht_inbound::{
//!     AcceptAll, Authenticated, DedupTable, Delivered, DiscoveryAnswer, DiscoveryHook, FloodLimits,
//!     FloodMeter, InboundConfig, InboundParts, Inline, RateLimiter, Opener, RateLimits, Received, Seen, Verifier, inbound_stack,
//! };
//! use dht_peers::{
//!     Directory,
//!     policy::{AttributionProfile, BanPolicy, BanTerms},
//! };
//! use dht_stack::BytePermit;
//! use tower::{ServiceExt as _, service_fn};
//!
//! /// A node that sends nothing.
//! struct Mute;
//! impl Outbox for Mute {
//!     fn try_send(&self, _: SendRequest) -> Result<(), OutboxError> {
//!         Ok(())
//!     }
//!     fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), OutboxError> {
//!         Ok(())
//!     }
//! }
//! impl DiscoveryHook for Mute {
//!     fn on_response(&self, _: DiscoveryAnswer) -> Result<(), OutboxError> {
//!         Ok(())
//!     }
//! }
//!
//! let identity = Arc::new(test_util::identity(1));
//! let directory = Directory::new(*identity.node_id());
//! let clock = Arc::new(ManualClock::new(test_util::NOW));
//! let bans = BanPolicy::new(AttributionProfile::Strict, BanTerms::default(), directory.clone(), clock.clone());
//! // Random seeds and the system's clock outside of examples.
//! let parts = InboundParts {
//!     opener: Opener::new(Inline, Arc::clone(&identity)),
//!     identity,
//!     directory,
//!     clock,
//!     meter: FloodMeter::new(FloodLimits::default(), [1; 16]),
//!     limiter: RateLimiter::new(RateLimits::default(), [4; 16]),
//!     dedup: Arc::new(DedupTable::new(50_000, [2; 16])),
//!     seen: Seen::new(65_536, FingerprintKey::random(&mut SeededEntropy::new(3).rng())),
//!     verifier: Verifier::new(Inline),
//!     pool: Inline,
//!     bans,
//!     outbox: Arc::new(Mute),
//!     discovery: Mute,
//!     judge: AcceptAll,
//!     sources: Authenticated,
//! };
//! let application = service_fn(|message: Delivered| async move {
//!     println!("{:?} from {:?}", message.payload(), message.origin);
//!     Ok::<_, Infallible>(Disposition::Delivered)
//! });
//! let without = None::<tower_layer::Identity>;
//! let stack = inbound_stack(InboundConfig::default(), parts, without.clone(), without, application);
//!
//! let alice = test_util::identity(2);
//! let received = Received {
//!     source: Arc::new(RemotePeer::new(*alice.public_key(), alice.features())),
//!     frame: test_util::clear(&alice, Signing::Origin, b"hello", 1),
//!     permit: BytePermit::none(),
//! };
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! assert_eq!(stack.oneshot(received).await?, Disposition::Delivered);
//! # Ok::<(), dht_stack::BoxError>(()) })?;
//! # Ok::<(), dht_stack::BoxError>(())
//! ```

mod compose;
mod convert;
mod decode;
mod dedup;
mod deliver;
mod expiry;
mod filtered;
mod flood;
mod forward;
mod gossip;
mod handle;
mod keyed;
mod log;
mod message;
mod meter;
pub mod metrics;
mod observe;
mod open;
mod outbox;
mod pool;
mod rate;
mod rebroadcast;
mod role;
mod seen;
mod step;
mod verify;

#[cfg(test)]
mod test_support;

pub use compose::{Handled, InboundConfig, InboundParts, Relayed, Served, inbound_stack};
pub use convert::{Convert, ConvertLayer};
pub use decode::{Authenticated, Decode, DecodeLayer, KnownSources};
pub use dedup::{
    CEILING_FACTOR, DEFAULT_ALLOWED_OCCURRENCES, DEFAULT_CAPACITY, Dedup, DedupEntry, DedupLayer,
    DedupStore, DedupTable, MAX_RETENTION_SECONDS, MIN_RETENTION_SECONDS, Sighting,
};
pub use deliver::{Deliver, DeliverLayer};
pub use expiry::{Expiry, ExpiryLayer};
pub use filtered::Filtered;
pub use flood::{
    DEFAULT_FLOOD_MESSAGES, DEFAULT_FLOOD_SECONDS, FloodLimits, FloodMeter, Flooder,
    MAX_METERED_PEERS, MIN_IDLE_SECONDS,
};
pub use forward::{Forward, ForwardFuture, ForwardLayer};
pub use gossip::{
    AcceptAll, AfterVerdict, DEFAULT_VERDICT_DEADLINE, Gossip, GossipLayer, Judge, Verdict,
    VerdictFuture,
};
pub use handle::{
    AfterCheck, AnswerCheck, AnswerError, ClaimParts, ConvertError, DiscoveryAnswer, DiscoveryHook,
    Handle, HandleLayer, Handler, convert_claim,
};
pub use log::{Log, LogLayer};
pub use message::{Counted, Delivered, Inbound, Message, Received};
pub use meter::{Meter, MeterLayer};
pub use observe::{Observe, ObserveFuture, ObserveLayer};
pub use open::{AfterOpen, Open, OpenLayer};
pub use pool::{CryptoPool, Inline, Opener, Verifier, Work};
pub use rate::{
    Bucket, JunkFilter, JunkFuture, JunkLayer, Rate, RateFilter, RateLayer, RateLimiter,
    RateLimits, UNDECODABLE_FRAME_BYTES,
};
pub use rebroadcast::{Rebroadcast, RebroadcastLayer};
pub use role::{RoleFilter, RoleLayer};
pub use seen::{DEFAULT_SEEN_CAPACITY, Seen, SeenFilter, SeenLayer};
pub use step::{Next, Step};
pub use verify::{AfterVerify, Verify, VerifyLayer};
