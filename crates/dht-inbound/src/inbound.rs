//! The inbound stack, put together from the inside out.

use std::{fmt, sync::Arc, time::Duration};

use dht_core::{
    Disposition, Features, FingerprintKey, NodeIdentity, OpenError, Opened, Sealed, SendQueue,
    SharedClock, SharedEntropy, Verified, VerifyError,
};
use dht_dedup::{DEFAULT_CAPACITY, DEFAULT_FINGERPRINTS, DedupTable, FingerprintCache};
use dht_peers::{
    ClaimPolicy, Directory, InboundFrame,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_stack::{FilterLayer, ThenLayer};
use rand_core::Rng as _;
use tower::{
    BoxError, Layer, Service, ServiceBuilder,
    util::{Either, option_layer},
};

use crate::{
    catch_panic::CatchPanicLayer,
    crypto::{
        BatchOpener, BatchVerifier, CommitLayer, DEFAULT_ALLOWED_OCCURRENCES, Dedup, Log, Open,
        Rebroadcast, Verify,
    },
    filter::{
        Convert, Decode, ExactCopy, Expiry, FloodLimits, FloodMeter, Meter, RateLimit, RateLimiter,
        RateLimits, Role,
    },
    gossip::{DEFAULT_VALIDATION_DEADLINE, Deliver, Gossip, GossipValidator, Validate},
    message::{Delivered, InboundEnvelope, OpenedMessage},
    observe::ObserveLayer,
    protocol::{DiscoveryHook, Forward, Protocol},
};

/// Settings of the inbound stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundConfig {
    /// Occurrences of one message that are let through; defaults to [`DEFAULT_ALLOWED_OCCURRENCES`].
    pub allowed_occurrences: u32,
    /// Whether messages of deliverers that the directory does not know are dropped (03 F-3); defaults to false,
    /// because the transport has authenticated every deliverer.
    pub known_sources_only: bool,
    /// Whether a node that stores for others also forwards for others; defaults to true (03 F-16).
    pub forward: bool,
    /// Whether gossip that the application accepts is passed on by the stack; defaults to false, which leaves that to
    /// the application.
    pub relay_gossip: bool,
    /// How long the application may validate a gossip message; defaults to [`DEFAULT_VALIDATION_DEADLINE`].
    pub validation_deadline: Duration,
    /// Which claims are acceptable. How unusable addresses are treated follows from the
    /// [profile](ClaimPolicy::under).
    pub claims: ClaimPolicy,
}

/// State shared by the inbound stacks of a node. Cloning shares all of it.
#[derive(Clone)]
pub struct InboundRuntime {
    /// Keys and features of this node.
    pub identity: Arc<NodeIdentity>,
    /// Where peers are kept; the same one as that of [`bans`](Self::bans).
    pub directory: Directory,
    /// Clock of this node.
    pub clock: SharedClock,
    /// Randomness, for the weights of batches.
    pub entropy: SharedEntropy,
    /// Counts arrivals per deliverer.
    pub meter: FloodMeter,
    /// Holds each deliverer to its rates.
    pub limiter: RateLimiter,
    /// Counts occurrences of messages. The outbound stack enters there what it sends.
    pub dedup: DedupTable,
    /// Fingerprints of validated envelopes, by which exact copies are recognised.
    pub fingerprints: FingerprintCache,
    /// Takes offences; says whom this node blames.
    pub bans: BanPolicy,
    /// Takes what is sent.
    pub send_queue: Arc<dyn SendQueue>,
    /// Receives the discovery responses that pass the checks.
    pub discovery: Arc<dyn DiscoveryHook>,
    /// Validates gossip; without one, all of it is accepted.
    pub validator: Option<Arc<dyn GossipValidator>>,
}

/// An inbound stack while it is built: the layers pushed so far around the application `S`.
///
/// Layers are pushed from the inside out, in groups: [protocol](Self::push_protocol), [forward](Self::push_forward),
/// [crypto](Self::push_crypto), [filters](Self::push_filters). [`push`](Self::push) puts any other layer between two
/// groups. A frame meets the groups from the outside in:
///
/// | Group | Checks, outermost first | The next group gets |
/// |---|---|---|
/// | filters | observe, meter, decode, role, expiry, exact copy, rate limit, convert | `InboundEnvelope<Sealed>` |
/// | crypto | verify, dedup, commit, open, rebroadcast, log | [`OpenedMessage`] |
/// | forward | forward | [`OpenedMessage`] |
/// | protocol | join, discovery, gossip validator, deliver | [`Delivered`] |
///
/// The order is that of `docs/protocol/03-inbound.md`: what costs nothing drops first, nothing enters the dedup table
/// before its signature holds, and a repeat is neither opened nor stored nor forwarded.
#[derive(Clone, Debug)]
pub struct Inbound<S> {
    config: InboundConfig,
    runtime: InboundRuntime,
    stack: S,
}

/// A service of the inbound stack for requests `R`: its response is what became of the message, its error means that a
/// part of this node does not work.
pub trait InboundService<R>:
    Service<R, Response = Disposition, Error = BoxError, Future: Send> + Clone + Send
{
}

impl<R, S> InboundService<R> for S where
    S: Service<R, Response = Disposition, Error = BoxError, Future: Send> + Clone + Send
{
}

impl Default for InboundConfig {
    fn default() -> Self {
        Self {
            allowed_occurrences: DEFAULT_ALLOWED_OCCURRENCES,
            known_sources_only: false,
            forward: true,
            relay_gossip: false,
            validation_deadline: DEFAULT_VALIDATION_DEADLINE,
            claims: ClaimPolicy::default(),
        }
    }
}

// === impl InboundRuntime ===

impl InboundRuntime {
    /// An empty directory, the strict ban policy with its default terms, tables with default bounds and random seeds,
    /// and no validator. Sends nothing and ignores discovery responses: set [`send_queue`](Self::send_queue) and
    /// [`discovery`](Self::discovery) for a node that takes part in a network.
    pub fn new(identity: Arc<NodeIdentity>, clock: SharedClock, entropy: SharedEntropy) -> Self {
        use dht_core::Entropy as _;
        let mut rng = entropy.rng();
        let mut seed = || {
            let mut seed = [0; 16];
            rng.fill_bytes(&mut seed);
            seed
        };
        let (meter, limiter, dedup) = (
            FloodMeter::new(FloodLimits::default(), seed()),
            RateLimiter::new(RateLimits::default(), seed()),
            DedupTable::new(DEFAULT_CAPACITY, seed()),
        );
        let key = FingerprintKey::random(&mut rng);
        let directory = Directory::new(*identity.node_id());
        let bans = BanPolicy::new(
            AttributionProfile::Strict,
            BanTerms::default(),
            directory.clone(),
            Arc::clone(&clock),
        );
        Self {
            identity,
            directory,
            clock,
            entropy,
            meter,
            limiter,
            dedup,
            fingerprints: FingerprintCache::new(DEFAULT_FINGERPRINTS, key),
            bans,
            send_queue: Arc::new(()),
            discovery: Arc::new(()),
            validator: None,
        }
    }
}

impl fmt::Debug for InboundRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundRuntime")
            .field("identity", &self.identity)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

// === impl Inbound ===

impl<S> Inbound<S> {
    /// Starts a stack with its innermost service, usually the application: a service of [`Delivered`].
    pub const fn new(config: InboundConfig, runtime: InboundRuntime, deliver: S) -> Self {
        Self {
            config,
            runtime,
            stack: deliver,
        }
    }

    /// Puts `layer` around everything pushed so far: a message meets it first.
    pub fn push<L: Layer<S>>(self, layer: L) -> Inbound<L::Service> {
        self.map(|_, _, stack| layer.layer(stack))
    }

    /// Puts `layer` around everything pushed so far, if there is one.
    pub fn push_option<L: Layer<S>>(self, layer: Option<L>) -> Inbound<Either<L::Service, S>> {
        self.push(option_layer(layer))
    }

    /// The DHT's own messages, and the application's side: joins and discoveries are consumed, gossip is validated,
    /// readable application messages are delivered.
    pub fn push_protocol(self) -> Inbound<impl InboundService<OpenedMessage>>
    where
        S: Service<Delivered, Response = Disposition, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send,
    {
        self.map(|config, runtime, stack| {
            let relays = relays_gossip(config, runtime);
            let protocol = Protocol {
                identity: Arc::clone(&runtime.identity),
                directory: runtime.directory.clone(),
                send_queue: Arc::clone(&runtime.send_queue),
                discovery: Arc::clone(&runtime.discovery),
                limiter: runtime.limiter.clone(),
                bans: runtime.bans.clone(),
                clock: Arc::clone(&runtime.clock),
                claims: config.claims.under(runtime.bans.profile()),
            };
            let gossip = Gossip {
                validator: runtime.validator.clone(),
                relay: relays.then(|| Arc::clone(&runtime.send_queue)),
                bans: runtime.bans.clone(),
            };
            ServiceBuilder::new()
                .layer(FilterLayer::new(Arc::new(protocol)))
                // Inside everything that consumes: the validator sees only what the application would get.
                .layer(ThenLayer::new(
                    Validate(config.validation_deadline),
                    Arc::new(gossip),
                ))
                .layer(FilterLayer::new(Deliver))
                .service(stack)
        })
    }

    /// Messages for others are passed on, if this node does that.
    pub fn push_forward(self) -> Inbound<impl InboundService<OpenedMessage>>
    where
        S: InboundService<OpenedMessage>,
    {
        self.map(|config, runtime, stack| {
            let features = runtime.identity.features();
            let forwards = config.forward && features.contains(Features::DHT_STORE_FORWARD);
            let forward = Forward {
                send_queue: Arc::clone(&runtime.send_queue),
                bans: runtime.bans.clone(),
                clock: Arc::clone(&runtime.clock),
            };
            let layer = forwards.then(|| FilterLayer::new(Arc::new(forward)));
            option_layer(layer).layer(stack)
        })
    }

    /// Signatures are verified, occurrences counted, messages opened: many at once, in batches of this stack. Clones of
    /// the stack share the batches; a stack for each worker keeps the workers apart.
    pub fn push_crypto(self) -> Inbound<impl InboundService<InboundEnvelope<Sealed>>>
    where
        S: InboundService<OpenedMessage>,
    {
        let verifier = BatchVerifier::new(Arc::clone(&self.runtime.entropy)).for_worker();
        let opener = BatchOpener::new(Arc::clone(&self.runtime.identity)).for_worker();
        self.push_crypto_with(verifier, opener)
    }

    /// As [`push_crypto`](Self::push_crypto), with other services for the arithmetic.
    pub fn push_crypto_with<V, O>(
        self,
        verifier: V,
        opener: O,
    ) -> Inbound<impl InboundService<InboundEnvelope<Sealed>>>
    where
        S: InboundService<OpenedMessage>,
        V: Service<Sealed, Response = Result<Verified, VerifyError>, Error: Into<BoxError>>
            + Clone
            + Send,
        V::Future: Send,
        O: Service<Verified, Response = Result<Opened, OpenError>, Error: Into<BoxError>>
            + Clone
            + Send,
        O::Future: Send,
    {
        self.map(|config, runtime, stack| {
            let dedup = Dedup {
                recipient: *runtime.identity.public_key(),
                relays_gossip: relays_gossip(config, runtime),
                table: runtime.dedup.clone(),
                fingerprints: runtime.fingerprints.clone(),
                allowed: config.allowed_occurrences,
                clock: Arc::clone(&runtime.clock),
            };
            let verify = Verify {
                bans: runtime.bans.clone(),
            };
            let open = Open {
                identity: Arc::clone(&runtime.identity),
            };
            let node = *runtime.identity.node_id();
            ServiceBuilder::new()
                .layer(ThenLayer::new(verifier, verify))
                // Inside `verify`, so that an invalid copy never takes the place of a valid one; outside `open`, so
                // that a repeat is not opened.
                .layer(FilterLayer::new(Arc::new(dedup)))
                .layer(CommitLayer)
                // Inside `CommitLayer`: a message on which a part panics is remembered, so that it panics once.
                .layer(CatchPanicLayer)
                .layer(ThenLayer::new(opener, open))
                // Outside `store` and `forward`: a repeat costs neither room nor bandwidth.
                .layer(FilterLayer::new(Rebroadcast))
                .layer(FilterLayer::new(Log { node }))
                .service(stack)
        })
    }

    /// Pushes the checks without public-key operations: frames are observed, counted, decoded, and dropped if they are
    /// expired,
    /// exact copies, or too many.
    pub fn push_filters(self) -> Inbound<impl InboundService<InboundFrame>>
    where
        S: InboundService<InboundEnvelope<Sealed>>,
    {
        self.map(|config, runtime, stack| {
            let clock = || Arc::clone(&runtime.clock);
            let known_in = config.known_sources_only.then(|| runtime.directory.clone());
            let decode = Decode {
                limiter: runtime.limiter.clone(),
                clock: clock(),
                known_in,
            };
            let exact_copy = ExactCopy::new(
                runtime.dedup.clone(),
                runtime.fingerprints.clone(),
                config.allowed_occurrences,
                clock(),
            );
            let meter = Meter {
                meter: runtime.meter.clone(),
                clock: clock(),
            };
            let rate_limit = RateLimit {
                limiter: runtime.limiter.clone(),
                clock: clock(),
            };
            ServiceBuilder::new()
                .layer(ObserveLayer::new())
                .layer(CatchPanicLayer)
                // Outside everything that drops: undecodable bytes count too.
                .layer(FilterLayer::new(Arc::new(meter)))
                .layer(FilterLayer::new(Arc::new(decode)))
                // Neither needs arithmetic, and both only drop.
                .layer(FilterLayer::new(Role {
                    features: runtime.identity.features(),
                }))
                .layer(FilterLayer::new(Expiry { clock: clock() }))
                // Outside everything that touches a point: an exact copy costs a hash and two look-ups.
                .layer(FilterLayer::new(Arc::new(exact_copy)))
                // Inside the look-up of exact copies, which cost next to nothing.
                .layer(FilterLayer::new(Arc::new(rate_limit)))
                .layer(FilterLayer::new(Convert::default()))
                .service(stack)
        })
    }

    /// The stack. Drive one clone per worker: make it ready, call it, and bound the calls under way, as
    /// [`run_worker`](crate::run_worker) does.
    pub fn into_inner(self) -> S {
        self.stack
    }

    fn map<T>(self, push: impl FnOnce(&InboundConfig, &InboundRuntime, S) -> T) -> Inbound<T> {
        let stack = push(&self.config, &self.runtime, self.stack);
        Inbound {
            config: self.config,
            runtime: self.runtime,
            stack,
        }
    }
}

/// Whether this node passes on the gossip that its application accepts.
fn relays_gossip(config: &InboundConfig, runtime: &InboundRuntime) -> bool {
    let features = runtime.identity.features();
    config.relay_gossip && features.contains(Features::MESSAGE_PROPAGATION)
}
