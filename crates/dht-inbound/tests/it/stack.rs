//! A node's inbound stack whose every exit is recorded.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    mem,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, Encryption, Entropy as _, Features, FingerprintKey, Header,
    ManualClock, MessageTag, MessageType, NodeIdentity, OnDelivery, Outbox, OutboxError,
    ProtocolVersion, RawEnvelope, RemotePeer, SealRequest, SealSecrets, Sealed, SeededEntropy,
    SendRequest, Signing, Verified, VerifyError, encode_envelope, encode_parts, seal,
    test_util::{self, NOW},
};
use dht_inbound::{
    AcceptAll, Authenticated, CryptoPool, DedupTable, Delivered, DiscoveryAnswer, DiscoveryHook,
    FloodLimits, FloodMeter, InboundConfig, InboundParts, Inline, Opener, RateLimiter, RateLimits,
    Received, Seen, Verifier, inbound_stack,
};
use dht_peers::{
    Ban, Directory,
    policy::{
        AttributionProfile::{self, Strict},
        BanPolicy, BanTerms,
    },
    test_util::BanLog,
};
use dht_stack::{BoxError, ByteBudget};
use parking_lot::Mutex;
use tower::{Service, ServiceExt as _, util::BoxCloneService};

/// Seed of the node under test.
pub(crate) const ME: u64 = 1;
/// Seed of the neighbour messages come from.
pub(crate) const NEIGHBOUR: u64 = 2;
/// Seed of the peer that makes messages.
pub(crate) const PEER: u64 = 3;
/// Seed of somebody else.
pub(crate) const OTHER: u64 = 4;

static IDENTITIES: LazyLock<Vec<Arc<NodeIdentity>>> = LazyLock::new(|| {
    (0..10)
        .map(|seed| Arc::new(test_util::identity(seed)))
        .collect()
});

pub(crate) fn identity(seed: u64) -> Arc<NodeIdentity> {
    Arc::clone(&IDENTITIES[usize::try_from(seed).unwrap()])
}

pub(crate) fn key(seed: u64) -> dht_core::PublicKey {
    *identity(seed).public_key()
}

/// Any verifier the stack takes.
pub(crate) trait Verifies:
    Service<
        Sealed,
        Response = Result<Verified, VerifyError>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<V> Verifies for V where
    V: Service<
            Sealed,
            Response = Result<Verified, VerifyError>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

pub(crate) struct Node {
    service: BoxCloneService<Received, Disposition, BoxError>,
    exits: Arc<Exits>,
    bans: BanLog,
    budget: ByteBudget,
    pub(crate) directory: Directory,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dedup: Arc<DedupTable>,
    pub(crate) meter: FloodMeter,
}

/// A frame that was to be passed on.
pub(crate) struct Forwarded {
    pub(crate) frame: Bytes,
}

/// What left the stack, and how.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    delivered: Mutex<Vec<Delivered>>,
    sent: Mutex<Vec<SendRequest>>,
    answers: Mutex<Vec<DiscoveryAnswer>>,
}

impl Node {
    pub(crate) fn new(config: InboundConfig) -> Self {
        Self::with_identity(config, identity(ME))
    }

    pub(crate) fn with_identity(config: InboundConfig, identity: Arc<NodeIdentity>) -> Self {
        Self::build(Strict, config, identity, Verifier::new(Inline), Inline)
    }

    pub(crate) fn with_profile(profile: AttributionProfile) -> Self {
        let config = InboundConfig::default();
        Self::build(profile, config, identity(ME), Verifier::new(Inline), Inline)
    }

    pub(crate) fn on_pool(config: InboundConfig, pool: impl CryptoPool) -> Self {
        Self::build(
            Strict,
            config,
            identity(ME),
            Verifier::new(pool.clone()),
            pool,
        )
    }

    pub(crate) fn with_verifier(config: InboundConfig, verifier: impl Verifies) -> Self {
        Self::build(Strict, config, identity(ME), verifier, Inline)
    }

    fn build(
        profile: AttributionProfile,
        config: InboundConfig,
        identity: Arc<NodeIdentity>,
        verifier: impl Verifies,
        pool: impl CryptoPool,
    ) -> Self {
        let exits = Arc::new(Exits::default());
        let directory = Directory::new(*identity.node_id());
        let clock = Arc::new(ManualClock::new(NOW));
        let bans = BanLog::of(&directory);
        let policy = BanPolicy::new(
            profile,
            BanTerms::default(),
            directory.clone(),
            Arc::clone(&clock) as _,
        );
        let dedup = Arc::new(DedupTable::new(1_000, [1; 16]));
        let meter = FloodMeter::new(FloodLimits::default(), [2; 16]);
        let mut rng = SeededEntropy::new(3).rng();
        let parts = InboundParts {
            directory: directory.clone(),
            clock: Arc::clone(&clock) as dht_core::SharedClock,
            meter: meter.clone(),
            limiter: RateLimiter::new(RateLimits::NONE, [6; 16]),
            dedup: Arc::clone(&dedup),
            seen: Seen::new(1_000, FingerprintKey::random(&mut rng)),
            verifier,
            opener: Opener::new(pool.clone(), Arc::clone(&identity)),
            identity,
            pool,
            bans: policy,
            outbox: Arc::clone(&exits),
            discovery: Arc::clone(&exits),
            judge: AcceptAll,
            sources: Authenticated,
        };
        let none = None::<tower_layer::Identity>;
        let stack = inbound_stack(config, parts, none.clone(), none, Sink(Arc::clone(&exits)));
        let service = BoxCloneService::new(stack);
        Self {
            service,
            exits,
            bans,
            budget: ByteBudget::new(1 << 20),
            directory,
            clock,
            dedup,
            meter,
        }
    }

    pub(crate) async fn receive(&self, frame: Bytes) -> Disposition {
        self.receive_from(NEIGHBOUR, frame).await
    }

    pub(crate) async fn receive_from(&self, source: u64, frame: Bytes) -> Disposition {
        let source = Arc::new(RemotePeer::new(key(source), Features::NODE));
        let permit = self.budget.try_acquire(frame.len()).unwrap_or_default();
        let received = Received {
            source,
            frame,
            permit,
        };
        self.service.clone().oneshot(received).await.unwrap()
    }

    /// Everything delivered since last asked.
    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        mem::take(&mut *self.exits.delivered.lock())
    }

    /// Everything forwarded since last asked.
    pub(crate) fn forwarded(&self) -> Vec<Forwarded> {
        let mut forwarded = Vec::new();
        self.exits.sent.lock().retain(|request| match request {
            SendRequest::Forward { frame, .. } => {
                let frame = frame.clone();
                forwarded.push(Forwarded { frame });
                false
            }
            SendRequest::Message { .. } => true,
        });
        forwarded
    }

    /// Every ban since last asked.
    pub(crate) fn bans(&self) -> Vec<Arc<Ban>> {
        self.bans.take()
    }

    /// How many replies and answers there were since last asked.
    pub(crate) fn protocol_exits(&self) -> usize {
        let mut sent = self.exits.sent.lock();
        let replies = |request: &mut SendRequest| matches!(request, SendRequest::Message { .. });
        sent.extract_if(.., replies).count() + mem::take(&mut *self.exits.answers.lock()).len()
    }

    /// Bytes of permits somebody still holds.
    pub(crate) fn held(&self) -> usize {
        self.budget.total() - self.budget.available()
    }
}

impl Outbox for Exits {
    fn try_send(&self, request: SendRequest) -> Result<(), OutboxError> {
        self.sent.lock().push(request);
        Ok(())
    }

    fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), OutboxError> {
        panic!("no layer waits for a delivery")
    }
}

impl DiscoveryHook for Exits {
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), OutboxError> {
        self.answers.lock().push(answer);
        Ok(())
    }
}

#[derive(Clone)]
struct Sink(Arc<Exits>);

impl Service<Delivered> for Sink {
    type Response = Disposition;
    type Error = Infallible;
    type Future = Ready<Result<Disposition, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivered: Delivered) -> Self::Future {
        self.0.delivered.lock().push(delivered);
        ready(Ok(Disposition::Delivered))
    }
}

/// A message to be sealed; the parts of the frame tests vary.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) from: u64,
    pub(crate) message_type: MessageType,
    pub(crate) destination: Destination,
    pub(crate) encryption: Encryption,
    pub(crate) signing: Signing,
    pub(crate) body: Bytes,
}

impl Draft {
    pub(crate) fn clear(signing: Signing) -> Self {
        Self {
            from: PEER,
            message_type: MessageType::None,
            destination: Destination::Unknown,
            encryption: Encryption::Clear,
            signing,
            body: encode_parts(&test_util::parts(b"hello")),
        }
    }

    pub(crate) fn encrypted(to: u64) -> Self {
        Self {
            destination: Destination::PublicKey(key(to)),
            encryption: Encryption::EncryptFor(key(to)),
            ..Self::clear(Signing::Anonymous)
        }
    }

    /// The frame, the same each time.
    pub(crate) fn frame(&self) -> Bytes {
        let from = identity(self.from);
        let request = SealRequest {
            body: self.body.clone(),
            message_type: self.message_type,
            destination: self.destination,
            encryption: self.encryption,
            sender: from.secret_key(),
            signing: self.signing,
            expires: Some(NOW.saturating_add(3_600)),
            tag: MessageTag(7),
            version: ProtocolVersion::V2,
        };
        let secrets = SealSecrets::random(&mut SeededEntropy::new(11).rng());
        let sealed = seal(request, secrets).unwrap();
        encode_envelope(&sealed.header, &sealed.body)
    }
}

/// The frame with its header or body changed.
pub(crate) fn tampered(frame: Bytes, change: impl FnOnce(&mut Header, &mut Bytes)) -> Bytes {
    let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
    let (mut header, mut body) = (sealed.header().clone(), sealed.body().clone());
    change(&mut header, &mut body);
    encode_envelope(&header, &body)
}
