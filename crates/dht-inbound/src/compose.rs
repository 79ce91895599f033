//! The inbound stack, put together.

use std::{fmt, sync::Arc, time::Duration};

use dht_core::{
    Disposition, Features, NodeIdentity, OpenError, Opened, Outbox, RawEnvelope, Sealed,
    SharedClock, Verified, VerifyError,
};
use dht_peers::policy::BanPolicy;
use dht_peers::{ClaimPolicy, Directory};
use dht_stack::{BoxError, Either, stack};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    ConvertLayer, Counted, CryptoPool, DEFAULT_ALLOWED_OCCURRENCES, DEFAULT_VERDICT_DEADLINE,
    DecodeLayer, DedupLayer, DedupStore, Deliver, DeliverLayer, Delivered, DiscoveryHook,
    ExpiryLayer, FloodMeter, Forward, ForwardLayer, Gossip, GossipLayer, Handle, HandleLayer,
    Handler, Inbound, Judge, JunkLayer, KnownSources, LogLayer, Message, MeterLayer, ObserveLayer,
    OpenLayer, RateLayer, RateLimiter, RebroadcastLayer, Received, RoleLayer, Seen, SeenLayer,
    VerifyLayer,
};

/// Settings of the inbound stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundConfig {
    /// Sightings of one message that are let through; defaults to [`DEFAULT_ALLOWED_OCCURRENCES`].
    pub allowed_occurrences: u32,
    /// Whether a node that stores for others also forwards for others; defaults to true (F-16).
    pub forward: bool,
    /// Whether gossip the application accepts is passed on by the stack; defaults to false, which leaves that to
    /// the application.
    pub relay_gossip: bool,
    /// How long the application may think about gossip; defaults to [`DEFAULT_VERDICT_DEADLINE`].
    pub verdict_deadline: Duration,
    /// Which claims are acceptable. What becomes of unusable addresses is the
    /// [profile](ClaimPolicy::under)'s business.
    pub claims: ClaimPolicy,
}

/// What the inbound stack works with.
#[derive(Clone)]
pub struct InboundParts<T, V, W, P, O, H, J, K> {
    /// This node.
    pub identity: Arc<NodeIdentity>,
    /// Where peers are kept.
    pub directory: Directory,
    /// The time.
    pub clock: SharedClock,
    /// Counts arrivals per neighbour.
    pub meter: FloodMeter,
    /// Holds each neighbour to a rate; one for all stacks of a node.
    pub limiter: RateLimiter,
    /// Counts sightings per message; shared with the outbound side, which enters what it sends.
    pub dedup: T,
    /// Recognises exact copies.
    pub seen: Seen,
    /// Checks envelopes: [`Verifier`](crate::Verifier), or one that checks many at once.
    pub verifier: V,
    /// Opens what is for this node: [`Opener`](crate::Opener), or one that opens many at once.
    pub opener: W,
    /// Where the rest of the public-key work runs.
    pub pool: P,
    /// Takes offences; its profile decides who is banned.
    pub bans: BanPolicy,
    /// Takes what is sent.
    pub outbox: O,
    /// Takes discovery responses.
    pub discovery: H,
    /// Judges gossip: [`AcceptAll`](crate::AcceptAll), or the application.
    pub judge: J,
    /// Says which neighbours are known: [`Authenticated`](crate::Authenticated), or the directory.
    pub sources: K,
}

impl<T, V, W, P, O, H, J, K> InboundParts<T, V, W, P, O, H, J, K> {
    /// The same parts with other services for the arithmetic.
    pub fn map_crypto<X, Y>(
        self,
        verifier: impl FnOnce(V) -> X,
        opener: impl FnOnce(W) -> Y,
    ) -> InboundParts<T, X, Y, P, O, H, J, K> {
        InboundParts {
            verifier: verifier(self.verifier),
            opener: opener(self.opener),
            identity: self.identity,
            directory: self.directory,
            clock: self.clock,
            meter: self.meter,
            limiter: self.limiter,
            dedup: self.dedup,
            seen: self.seen,
            pool: self.pool,
            bans: self.bans,
            outbox: self.outbox,
            discovery: self.discovery,
            judge: self.judge,
            sources: self.sources,
        }
    }
}

impl<T, V, W, P, O, H, J, K> fmt::Debug for InboundParts<T, V, W, P, O, H, J, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundParts")
            .field("identity", &self.identity)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Default for InboundConfig {
    fn default() -> Self {
        Self {
            allowed_occurrences: DEFAULT_ALLOWED_OCCURRENCES,
            forward: true,
            relay_gossip: false,
            verdict_deadline: DEFAULT_VERDICT_DEADLINE,
            claims: ClaimPolicy::default(),
        }
    }
}

/// The handler of the DHT's messages around the application's service `D`.
pub type Handled<P, O, H, J, D> = Handle<P, O, H, SharedClock, Gossip<J, O, Deliver<D>>>;

/// The same, and around it the layer `A` that serves and accepts stored mail, if there is one.
pub type Served<P, O, H, J, D, A> =
    Either<<A as Layer<Handled<P, O, H, J, D>>>::Service, Handled<P, O, H, J, D>>;

/// The same, and around it the layer that forwards, if this node does.
pub type Relayed<P, O, H, J, D, A> =
    Either<Forward<O, SharedClock, Served<P, O, H, J, D, A>>, Served<P, O, H, J, D, A>>;

/// Composes the inbound stack around `deliver`, the application.
///
/// A message meets, in this order: observe, meter, junk limit, decode, role filter, expiry, seen, rate
/// limit, convert, verify, dedup, open, rebroadcast filter, log, `store` (if enabled), forward (if enabled), `serve` (if enabled), handle, gossip,
/// deliver. `store` and `serve` are store-and-forward's two layers; without it, pass
/// `None::<tower_layer::Identity>` twice.
///
/// Drive one clone per worker: make it ready, call it, and bound the calls in flight.
pub fn inbound_stack<T, V, W, P, O, H, J, K, D, A, M>(
    config: InboundConfig,
    parts: InboundParts<T, V, W, P, O, H, J, K>,
    store: Option<M>,
    serve: Option<A>,
    deliver: D,
) -> impl Service<Received, Response = Disposition, Error = BoxError, Future: Send> + Clone + Send
where
    T: DedupStore + Clone,
    V: Service<
            Sealed,
            Response = Result<Verified, VerifyError>,
            Error: Into<BoxError>,
            Future: Send,
        > + Clone
        + Send,
    W: Service<Verified, Response = Result<Opened, OpenError>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send,
    P: CryptoPool,
    O: Outbox + Clone,
    H: DiscoveryHook,
    J: Judge,
    K: KnownSources,
    D: Service<Delivered, Response = Disposition, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send,
    A: Layer<
            Handled<P, O, H, J, D>,
            Service: Service<Message, Response = Disposition, Error = BoxError, Future: Send>
                         + Clone
                         + Send,
        >,
    M: Layer<
            Relayed<P, O, H, J, D, A>,
            Service: Service<Message, Response = Disposition, Error = BoxError, Future: Send>
                         + Clone
                         + Send,
        >,
{
    let InboundParts {
        identity,
        directory,
        clock,
        dedup,
        seen,
        pool,
        outbox,
        ..
    } = parts;
    let features = identity.features();
    let node = *identity.node_id();
    let bans = parts.bans;
    let forwards = config.forward && features.contains(Features::DHT_STORE_FORWARD);
    let relays = config.relay_gossip && features.contains(Features::MESSAGE_PROPAGATION);
    let allowed = config.allowed_occurrences;
    let limiter = parts.limiter;
    let forward = || ForwardLayer::new(outbox.clone(), bans.clone(), SharedClock::clone(&clock));
    let handler = Handler {
        identity: Arc::clone(&identity),
        directory,
        outbox: outbox.clone(),
        discovery: parts.discovery,
        bans: bans.clone(),
        clock: SharedClock::clone(&clock),
        claims: config.claims.under(bans.profile()),
    };

    stack(deliver)
        .push(DeliverLayer)
        .check_service::<Message>()
        // Inside everything that consumes: only what the application would get is worth its opinion.
        .push(
            GossipLayer::new(parts.judge, config.verdict_deadline, bans.clone())
                .relay(relays.then(|| outbox.clone())),
        )
        .push(HandleLayer::new(pool, handler))
        // Outside the handler, which drops unreadable answers; mail it unpacks goes to the handler and on.
        .push_option(serve)
        .push_option(forwards.then(forward))
        // Outside `forward`, which sends stored messages another way.
        .push_option(store)
        .push(LogLayer::new(node))
        // Outside `store` and `forward`: a repeat costs neither room nor bandwidth.
        .push(RebroadcastLayer)
        .check_service::<Message>()
        .push(OpenLayer::new(parts.opener, identity))
        .check_service::<Inbound<Counted>>()
        // Outside `open`, so that a repeat is not opened; inside `verify`, so that an invalid copy never takes the
        // place of a valid one.
        .push(DedupLayer::new(
            dedup.clone(),
            seen.clone(),
            allowed,
            SharedClock::clone(&clock),
        ))
        .check_service::<Inbound<Verified>>()
        .push(VerifyLayer::new(parts.verifier, bans.clone()))
        .check_service::<Inbound<Sealed>>()
        .push(ConvertLayer::new())
        // Outside everything that touches a point; inside `seen`, because copies cost next to nothing.
        .push(RateLayer::new(limiter.clone(), SharedClock::clone(&clock)))
        // Outside everything that touches a point: an exact copy costs a hash and two lookups.
        .push(SeenLayer::new(
            dedup,
            seen,
            allowed,
            SharedClock::clone(&clock),
        ))
        // Neither needs arithmetic, and both only drop.
        .push(ExpiryLayer::new(SharedClock::clone(&clock)))
        .push(RoleLayer::new(features))
        .check_service::<Inbound<RawEnvelope>>()
        .push(DecodeLayer::new(parts.sources, bans))
        // Outside the decoder, which it spares the frames of a neighbour that sends junk.
        .push(JunkLayer::new(limiter, SharedClock::clone(&clock)))
        // Outside everything that drops: junk counts too.
        .push(MeterLayer::new(parts.meter, clock))
        .push(ObserveLayer::new())
        .check_service::<Received>()
        .into_inner()
}
