//! Helpers that the tests of the layers share.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{
    Deliverer, Destination, Disposition, Encryption, Entropy as _, Features, ManualClock,
    MessageTag, MessageType, NodeId, NodeIdentity, OnDelivery, Payload, Priority, ProtocolVersion,
    PublicKey, RawEnvelope, RemotePeer, SealRequest, SealSecrets, Sealed, SeededEntropy, SendQueue,
    SendQueueError, SendRequest, Signing, Strategy, UnixSeconds, Verified, dedup_key,
    encode_envelope, encode_parts, seal, test_util,
};
use dht_peers::{
    Directory, InboundFrame,
    policy::{AttributionProfile, BanPolicy, BanTerms},
    test_util::BanLog,
};
use dht_proto::dht::DiscoveryResponseMessage;
use dht_stack::{BytePermit, Check, FilterLayer};
use parking_lot::Mutex;
use tokio_test::{assert_pending, assert_ready_ok};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::mock;

pub(crate) use dht_core::test_util::NOW;

use crate::{
    message::{Deduped, InboundEnvelope, OpenedMessage},
    protocol::{DiscoveryAnswer, DiscoveryHook},
};

/// Seed of the node under test.
pub(crate) const ME: u64 = 1;
/// Seed of the deliverer everything comes from.
pub(crate) const DELIVERER: u64 = 2;

pub(crate) fn peer(seed: u64) -> Arc<RemotePeer> {
    Arc::new(RemotePeer::new(test_util::public_key(seed), Features::NODE))
}

pub(crate) fn received(frame: Bytes) -> InboundFrame {
    InboundFrame {
        source: peer(DELIVERER),
        frame,
        permit: BytePermit::none(),
    }
}

fn inbound<E>(envelope: E) -> InboundEnvelope<E> {
    InboundEnvelope {
        source: peer(DELIVERER),
        permit: BytePermit::none(),
        fingerprint: None,
        envelope,
    }
}

pub(crate) fn raw(frame: Bytes) -> InboundEnvelope<RawEnvelope> {
    inbound(RawEnvelope::parse(frame).unwrap())
}

pub(crate) fn sealed(frame: Bytes) -> InboundEnvelope<Sealed> {
    raw(frame).map(|raw| raw.into_sealed().unwrap())
}

pub(crate) fn verified(frame: Bytes) -> InboundEnvelope<Verified> {
    sealed(frame).map(|sealed| sealed.verify().unwrap())
}

pub(crate) fn counted(frame: Bytes) -> InboundEnvelope<Deduped> {
    verified(frame).map(|verified| {
        let hash = dedup_key(&verified).unwrap_or_else(|_| verified.dedup_hash());
        Deduped {
            verified,
            hash,
            occurrences: 1,
            already_forwarded: false,
            reservation: None,
        }
    })
}

/// As the node under test opens it.
pub(crate) fn message(frame: Bytes) -> OpenedMessage {
    let InboundEnvelope {
        source,
        permit,
        envelope:
            Deduped {
                verified,
                hash,
                occurrences,
                ..
            },
        ..
    } = counted(frame);
    let opened = verified.open(&test_util::identity(ME)).unwrap();
    OpenedMessage {
        source,
        opened,
        hash,
        occurrences,
        is_saf: false,
        stored: None,
        already_forwarded: false,
        outcome: None,
        permit,
    }
}

/// A signed frame of any kind, clear unless addressed.
pub(crate) fn frame(
    from: &NodeIdentity,
    message_type: MessageType,
    destination: Destination,
    encryption: Encryption,
    signing: Signing,
    body: Bytes,
) -> Bytes {
    let request = SealRequest {
        body,
        message_type,
        destination,
        encryption,
        sender: from.secret_key(),
        signing,
        expires: Some(NOW.saturating_add(3_600)),
        tag: MessageTag(7),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(
        request,
        SealSecrets::random(&mut SeededEntropy::new(9).rng()),
    )
    .unwrap();
    encode_envelope(&sealed.header, &sealed.body)
}

pub(crate) fn raw_of_type(message_type: MessageType) -> InboundEnvelope<RawEnvelope> {
    let body = encode_parts(&[Bytes::from_static(b"x")]);
    let (to, clear) = (Destination::Unknown, Encryption::Clear);
    raw(frame(
        &test_util::identity(3),
        message_type,
        to,
        clear,
        Signing::Origin,
        body,
    ))
}

pub(crate) fn raw_expiring(expires: Option<UnixSeconds>) -> InboundEnvelope<RawEnvelope> {
    let from = test_util::identity(3);
    let mut header = sealed(test_util::clear(&from, Signing::Anonymous, b"x", 1))
        .envelope
        .header()
        .clone();
    header.expires = expires;
    raw(encode_envelope(&header, &[]))
}

/// The innermost service of tests: takes everything and says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accept;

impl<T> Service<T> for Accept {
    type Response = Disposition;
    type Error = Infallible;
    type Future = Ready<Result<Disposition, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: T) -> Self::Future {
        ready(Ok(Disposition::Delivered))
    }
}

/// Sends one message through a layer around [`Accept`].
pub(crate) async fn run_filter<L, T>(layer: L, message: T) -> Disposition
where
    L: Layer<Accept>,
    L::Service: Service<T, Response = Disposition, Error: Debug>,
{
    tower::ServiceExt::oneshot(layer.layer(Accept), message)
        .await
        .unwrap()
}

/// Sends one message through a check in front of [`Accept`].
pub(crate) async fn run_check<C, T>(check: C, message: T) -> Disposition
where
    C: Check<T, Reject: Into<Disposition>> + Clone,
    Disposition: From<C::Reject>,
{
    run_filter(FilterLayer::new(check), message).await
}

/// No room inside is felt outside, and so is room; nothing is promised twice.
pub(crate) fn assert_readiness_is_inner<Request, T, L>(layer: L)
where
    T: Send + 'static,
    L: Layer<mock::Mock<T, Disposition>>,
    L::Service: Service<Request, Error: Debug>,
{
    let (mut service, mut inner) = mock::spawn_layer::<T, Disposition, _>(layer);
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

/// A policy over a directory of its own, and what it bans.
pub(crate) fn bans(profile: AttributionProfile) -> (BanPolicy, BanLog) {
    let directory = Directory::new(NodeId::default());
    let log = BanLog::of(&directory);
    let clock = Arc::new(ManualClock::new(NOW));
    let policy = BanPolicy::new(profile, BanTerms::default(), directory, clock);
    (policy, log)
}

/// A frame that was to be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) frame: Bytes,
    pub(crate) strategy: Strategy,
    pub(crate) priority: Priority,
    pub(crate) tag: MessageTag,
}

/// An answer to a discovery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) to: PublicKey,
    pub(crate) message: DiscoveryResponseMessage,
}

/// Takes what is sent and remembers it.
#[derive(Debug, Default)]
pub(crate) struct OutRecorder {
    pub(crate) forwarded: Mutex<Vec<Forwarded>>,
    pub(crate) replies: Mutex<Vec<Reply>>,
    pub(crate) answers: Mutex<Vec<DiscoveryAnswer>>,
    pub(crate) refuse: Mutex<Option<SendQueueError>>,
}

impl OutRecorder {
    fn take<T>(&self, list: &Mutex<Vec<T>>, value: T) -> Result<(), SendQueueError> {
        match *self.refuse.lock() {
            Some(error) => Err(error),
            None => {
                list.lock().push(value);
                Ok(())
            }
        }
    }
}

impl SendQueue for OutRecorder {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        match request {
            SendRequest::Forward {
                frame,
                strategy,
                tag,
                priority,
                deliverer,
                ..
            } => {
                assert_eq!(deliverer, Some(Deliverer::from(&*peer(DELIVERER))));
                let forwarded = Forwarded {
                    frame,
                    strategy,
                    priority,
                    tag,
                };
                self.take(&self.forwarded, forwarded)
            }
            SendRequest::Message { params, payload } => {
                assert_eq!(params.message_type, MessageType::DiscoveryResponse);
                assert!(params.force_origin && !params.discovery);
                assert_eq!(params.destination, Destination::Unknown);
                let (Strategy::DirectPublicKey(to), Payload::Part(part)) =
                    (params.strategy, payload)
                else {
                    panic!("an answer goes to one peer")
                };
                let message = dht_proto::decode(part).unwrap();
                self.take(&self.replies, Reply { to, message })
            }
        }
    }

    fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), SendQueueError> {
        panic!("no layer waits for a delivery")
    }
}

impl DiscoveryHook for OutRecorder {
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), SendQueueError> {
        self.take(&self.answers, answer)
    }
}
