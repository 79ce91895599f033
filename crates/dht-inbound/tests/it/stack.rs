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
    Destination, Disposition, Encryption, Entropy as _, Features, Header, ManualClock, MessageTag,
    MessageType, NodeIdentity, OnDelivery, OpenError, Opened, ProtocolVersion, RawEnvelope,
    RemotePeer, SealRequest, SealSecrets, Sealed, SeededEntropy, SendQueue, SendQueueError,
    SendRequest, Signing, Verified, VerifyError, encode_envelope, encode_parts, seal,
    test_util::{self, NOW},
};
use dht_dedup::DedupTable;
use dht_inbound::{
    Delivered, DiscoveryAnswer, DiscoveryHook, FloodMeter, Inbound, InboundConfig, InboundRuntime,
    RateLimiter, RateLimits,
};
use dht_peers::{
    Ban, Directory, InboundFrame,
    policy::{AttributionProfile, BanPolicy, BanTerms},
    test_util::BanLog,
};
use dht_stack::ByteBudget;
use parking_lot::Mutex;
use tower::{BoxError, Service, ServiceExt as _, util::BoxCloneService};

/// Seed of the node under test.
pub(crate) const ME: u64 = 1;
/// Seed of the deliverer messages come from.
pub(crate) const DELIVERER: u64 = 2;
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

/// A service of the stack for arithmetic.
pub(crate) trait Computes<R, T>:
    Service<R, Response = T, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + 'static
{
}

impl<R, T, S> Computes<R, T> for S where
    S: Service<R, Response = T, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

pub(crate) struct Node {
    service: BoxCloneService<InboundFrame, Disposition, BoxError>,
    exits: Arc<Exits>,
    budget: ByteBudget,
    pub(crate) directory: Directory,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dedup: DedupTable,
    pub(crate) meter: FloodMeter,
}

/// A frame that was to be passed on.
pub(crate) struct Forwarded {
    pub(crate) frame: Bytes,
}

/// Messages that left the stack, and how.
#[derive(Debug)]
pub(crate) struct Exits {
    clock: Arc<ManualClock>,
    delivered: Mutex<Vec<Delivered>>,
    sent: Mutex<Vec<SendRequest>>,
    answers: Mutex<Vec<DiscoveryAnswer>>,
    bans: BanLog,
}

impl Node {
    pub(crate) fn new(config: InboundConfig) -> Self {
        Self::with_identity(config, identity(ME))
    }

    pub(crate) fn with_identity(config: InboundConfig, identity: Arc<NodeIdentity>) -> Self {
        Self::build(config, AttributionProfile::default(), identity)
    }

    pub(crate) fn under(profile: AttributionProfile) -> Self {
        Self::build(InboundConfig::default(), profile, identity(ME))
    }

    pub(crate) fn with_services(
        verifier: impl Computes<Sealed, Result<Verified, VerifyError>>,
        opener: impl Computes<Verified, Result<Opened, OpenError>>,
    ) -> Self {
        let (exits, runtime) = runtime(AttributionProfile::default(), identity(ME));
        let sink = Sink(Arc::clone(&exits));
        let stack = Inbound::new(InboundConfig::default(), runtime.clone(), sink)
            .push_protocol()
            .push_forward()
            .push_crypto_with(verifier, opener)
            .push_filters();
        Self::of(exits, runtime, BoxCloneService::new(stack.into_inner()))
    }

    fn build(
        config: InboundConfig,
        profile: AttributionProfile,
        identity: Arc<NodeIdentity>,
    ) -> Self {
        let (exits, runtime) = runtime(profile, identity);
        let sink = Sink(Arc::clone(&exits));
        let stack = Inbound::new(config, runtime.clone(), sink)
            .push_protocol()
            .push_forward()
            .push_crypto()
            .push_filters();
        Self::of(exits, runtime, BoxCloneService::new(stack.into_inner()))
    }

    fn of(
        exits: Arc<Exits>,
        runtime: InboundRuntime,
        service: BoxCloneService<InboundFrame, Disposition, BoxError>,
    ) -> Self {
        let clock = Arc::clone(&exits.clock);
        Self {
            service,
            exits,
            budget: ByteBudget::new(1 << 20),
            directory: runtime.directory,
            clock,
            dedup: runtime.dedup,
            meter: runtime.meter,
        }
    }

    pub(crate) async fn receive(&self, frame: Bytes) -> Disposition {
        self.receive_from(DELIVERER, frame).await
    }

    pub(crate) async fn receive_from(&self, source: u64, frame: Bytes) -> Disposition {
        let source = Arc::new(RemotePeer::new(key(source), Features::NODE));
        let permit = self.budget.try_acquire(frame.len()).unwrap_or_default();
        let received = InboundFrame {
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
        self.exits.bans.take()
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

fn runtime(
    profile: AttributionProfile,
    identity: Arc<NodeIdentity>,
) -> (Arc<Exits>, InboundRuntime) {
    let directory = Directory::new(*identity.node_id());
    let exits = Arc::new(Exits {
        clock: Arc::new(ManualClock::new(NOW)),
        bans: BanLog::of(&directory),
        delivered: Mutex::default(),
        sent: Mutex::default(),
        answers: Mutex::default(),
    });
    let clock = Arc::clone(&exits.clock) as dht_core::SharedClock;
    let bans = BanPolicy::new(
        profile,
        BanTerms::default(),
        directory.clone(),
        Arc::clone(&clock),
    );
    let runtime = InboundRuntime {
        limiter: RateLimiter::new(RateLimits::NONE, [6; 16]),
        directory,
        bans,
        send_queue: Arc::clone(&exits) as Arc<dyn SendQueue>,
        discovery: Arc::clone(&exits) as Arc<dyn DiscoveryHook>,
        ..InboundRuntime::new(identity, clock, Arc::new(SeededEntropy::new(3)))
    };
    (exits, runtime)
}

impl SendQueue for Exits {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        self.sent.lock().push(request);
        Ok(())
    }

    fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), SendQueueError> {
        panic!("no layer waits for a delivery")
    }
}

impl DiscoveryHook for Exits {
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), SendQueueError> {
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
