//! Tower stack that turns received frames into delivered messages.
//!
//! [`Inbound`] composes it in groups, from the inside out; a layer of your own fits between any two groups. The response
//! of every service is a [`Disposition`](dht_core::Disposition): what became of the message. Errors mean that a part of
//! this node does not work, never that a message was bad. The rules, and the sections named in the documentation, are
//! those of `docs/protocol/03-inbound.md` and `docs/protocol/06-discovery-and-peer-sync.md`.
//!
//! ```text
//! InboundFrame ─ filters: observe, meter, decode, role, expiry, exact copy, rate limit, convert ─►
//! InboundEnvelope<Sealed> ─ crypto: verify, dedup, commit, open, rebroadcast, log ─►
//! OpenedMessage ─ (store) ─ forward ─ (serve) ─ protocol: join, discovery, gossip validator, deliver ─► Delivered
//! ```
//!
//! A stack in front of an application that prints what it gets:
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//!
//! use dht_core::{Disposition, ManualClock, OsEntropy, RemotePeer, Signing, UnixSeconds, test_util};
//! use dht_inbound::{Delivered, Inbound, InboundConfig, InboundRuntime};
//! use dht_peers::InboundFrame;
//! use tower::{ServiceExt as _, service_fn};
//!
//! let identity = Arc::new(test_util::identity(1));
//! // A node takes `SystemClock`; the frame below was sealed at this time. Add a send queue and a discovery hook to send.
//! let clock = Arc::new(ManualClock::new(UnixSeconds(1_700_000_000)));
//! let runtime = InboundRuntime::new(identity, clock, Arc::new(OsEntropy));
//! let application = service_fn(|message: Delivered| async move {
//!     println!("{:?} from {:?}", message.payload(), message.origin);
//!     Ok::<_, Infallible>(Disposition::Delivered)
//! });
//! let stack = Inbound::new(InboundConfig::default(), runtime, application)
//!     .push_protocol()
//!     .push_forward()
//!     .push_crypto()
//!     .push_filters()
//!     .into_inner();
//!
//! let alice = test_util::identity(2);
//! let source = RemotePeer::new(*alice.public_key(), alice.features());
//! let frame = InboundFrame::new(source, test_util::clear(&alice, Signing::Origin, b"hello", 1));
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! assert_eq!(stack.oneshot(frame).await?, Disposition::Delivered);
//! # Ok::<(), tower::BoxError>(()) })?;
//! # Ok::<(), tower::BoxError>(())
//! ```

mod catch_panic;
mod crypto;
mod filter;
mod gossip;
mod inbound;
mod message;
mod metrics;
mod observe;
mod protocol;
mod sent;
mod worker;

#[cfg(test)]
mod test_support;

pub use self::metrics::describe_metrics;
pub use self::{
    catch_panic::{CatchPanic, CatchPanicFuture, CatchPanicLayer},
    crypto::{
        BatchOpener, BatchVerifier, Commit, CommitFuture, CommitLayer, DEFAULT_ALLOWED_OCCURRENCES,
        Dedup, Log, Open, Rebroadcast, Verify,
    },
    filter::{
        Bucket, Convert, DEFAULT_FLOOD_MESSAGES, DEFAULT_FLOOD_SECONDS, Decode, ExactCopy, Expiry,
        FloodLimits, FloodMeter, Flooder, MAX_METERED_PEERS, MIN_IDLE_SECONDS, Meter, RateLimit,
        RateLimiter, RateLimits, Role, UNDECODABLE_FRAME_BYTES,
    },
    gossip::{
        Acceptance, DEFAULT_VALIDATION_DEADLINE, Deliver, Gossip, GossipValidator, Validate,
        ValidationFuture,
    },
    inbound::{Inbound, InboundConfig, InboundRuntime, InboundService},
    message::{Deduped, Delivered, InboundEnvelope, OpenedMessage},
    observe::{Observe, ObserveFuture, ObserveLayer},
    protocol::{
        AnswerCheck, ClaimParts, DiscoveryAnswer, DiscoveryHook, Forward, Protocol, convert_claim,
    },
    worker::run_worker,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
