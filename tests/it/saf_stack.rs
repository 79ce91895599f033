//! Store-and-forward's layers in the inbound stack: the rows of `docs/protocol/05-store-and-forward.md` section 12
//! that concern what connected peers hand over.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, DropReason, Encryption, Entropy as _, Features, ManualClock,
    MessageTag, MessageType, OnDelivery, ProtocolVersion, RemotePeer, SealRequest, SealSecrets,
    SeededEntropy, SendQueue, SendQueueError, SendRequest, SharedClock, Signing, Strategy,
    UnixSeconds, encode_envelope, encode_parts, seal,
    test_util::{self, NOW},
};
use dht_dedup::DedupTable;
use dht_inbound::{Delivered, Inbound, InboundConfig, InboundRuntime, RateLimiter, RateLimits};
use dht_mailbox::{MemoryDisk, Store, StoreConfig};
use dht_peers::{
    Connections, Directory, InboundFrame,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_saf::{Config, Ledger, Saf, SafParts};
use dht_stack::BytePermit;
use parking_lot::Mutex;
use tower::{ServiceExt as _, service_fn};

const ME: u64 = 1;
const DELIVERER: u64 = 2;
const SENDER: u64 = 3;
const AWAY: u64 = 4;

/// Takes what the stack sends on.
#[derive(Default)]
struct Out(Mutex<Vec<SendRequest>>);

impl SendQueue for Out {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        self.0.lock().push(request);
        Ok(())
    }
    fn try_send_reporting(&self, _: SendRequest, done: OnDelivery) -> Result<(), SendQueueError> {
        done(true);
        Ok(())
    }
}

/// The strict policy.
fn bans(directory: &Directory, clock: &Arc<ManualClock>) -> BanPolicy {
    BanPolicy::new(
        AttributionProfile::Strict,
        BanTerms::default(),
        directory.clone(),
        Arc::clone(clock) as SharedClock,
    )
}

/// A run of a node: its tables are new, its store may be that of the run before.
struct Run {
    features: Features,
    clock: Arc<ManualClock>,
    out: Arc<Out>,
    dedup: DedupTable,
    saf: Saf,
}

impl Run {
    fn new(features: Features, store: &Store) -> Self {
        let identity = Arc::new(test_util::identity_with(ME, features));
        let clock = Arc::new(ManualClock::new(NOW));
        let out = Arc::new(Out::default());
        let dedup = DedupTable::new(1000, [2; 16]);
        let directory = Directory::new(*identity.node_id());
        let saf = Saf::new(
            &Config::default(),
            SafParts {
                directory: directory.clone(),
                identity,
                connections: Connections::new(),
                clock: Arc::clone(&clock) as SharedClock,
                entropy: Arc::new(SeededEntropy::new(5)),
                store: Some(store.clone()),
                ledger: Arc::new(Ledger::in_memory()),
                send_queue: Arc::clone(&out) as Arc<dyn SendQueue>,
                responses: dht_stack::ByteBudget::new(64 << 20),
                bans: bans(&directory, &clock),
                dedup: dedup.clone(),
            },
        );
        Self {
            features,
            clock,
            out,
            dedup,
            saf,
        }
    }

    async fn receive(&self, frame: Bytes) -> Disposition {
        let identity = Arc::new(test_util::identity_with(ME, self.features));
        let directory = Directory::new(*identity.node_id());
        let clock = Arc::clone(&self.clock) as SharedClock;
        let bans = bans(&directory, &self.clock);
        let runtime = InboundRuntime {
            dedup: self.dedup.clone(),
            limiter: RateLimiter::new(RateLimits::NONE, [3; 16]),
            directory,
            bans,
            send_queue: Arc::clone(&self.out) as Arc<dyn SendQueue>,
            ..InboundRuntime::new(identity, clock, Arc::new(SeededEntropy::new(3)))
        };
        let application =
            service_fn(|_: Delivered| async { Ok::<_, Infallible>(Disposition::Delivered) });
        let stack = Inbound::new(InboundConfig::default(), runtime, application)
            .push_protocol()
            .push(self.saf.layer())
            .push_forward()
            .push_option(self.saf.store_layer())
            .push_crypto()
            .push_filters()
            .into_inner();
        let received = InboundFrame {
            source: Arc::new(RemotePeer::new(
                test_util::public_key(DELIVERER),
                Features::NODE,
            )),
            frame,
            permit: BytePermit::none(),
        };
        stack.oneshot(received).await.unwrap()
    }

    fn forwarded(&self) -> Vec<SendRequest> {
        std::mem::take(&mut self.out.0.lock())
    }
}

fn store() -> Store {
    Store::open_on(MemoryDisk::new(), StoreConfig::default()).unwrap()
}

/// A message encrypted for somebody.
fn sealed(to: u64, message_type: MessageType, expires: UnixSeconds) -> Bytes {
    let key = test_util::public_key(to);
    let sender = test_util::identity(SENDER);
    let request = SealRequest {
        body: encode_parts(&test_util::parts(b"for somebody")),
        message_type,
        destination: Destination::PublicKey(key),
        encryption: Encryption::EncryptFor(key),
        sender: sender.secret_key(),
        signing: Signing::Anonymous,
        expires: Some(expires),
        tag: MessageTag(1),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(
        request,
        SealSecrets::random(&mut SeededEntropy::new(8).rng()),
    )
    .unwrap();
    encode_envelope(&sealed.header, &sealed.body)
}

fn later() -> UnixSeconds {
    NOW.saturating_add(3_600)
}

#[tokio::test]
async fn sf01_client_neither_stores_nor_forwards() {
    let store = store();
    let run = Run::new(Features::CLIENT, &store);
    let outcome = run.receive(sealed(AWAY, MessageType::None, later())).await;
    assert_eq!(outcome, Disposition::Dropped(DropReason::NotForUs));
    assert_eq!((store.stats().rows, run.forwarded().len()), (0, 0));
}

#[tokio::test]
async fn sf04_own_message_is_not_stored() {
    let store = store();
    let run = Run::new(Features::NODE, &store);
    let outcome = run.receive(sealed(ME, MessageType::None, later())).await;
    assert_eq!(outcome, Disposition::Delivered);
    assert_eq!((store.stats().rows, run.forwarded().len()), (0, 0));
}

/// A stored message is forwarded to its recipient if it is connected, else to nodes close to it.
#[tokio::test]
async fn sf05_stored_message_is_forwarded_closer() {
    let store = store();
    let run = Run::new(Features::NODE, &store);
    let outcome = run.receive(sealed(AWAY, MessageType::None, later())).await;
    assert_eq!(outcome, Disposition::Forwarded);
    assert_eq!(store.stats().rows, 1);
    let forwarded = run.forwarded();
    let target = test_util::public_key(AWAY).node_id();
    assert!(matches!(
        &forwarded[..],
        [SendRequest::Forward { strategy: Strategy::DirectOrClosestNodes { target: to, connected_only: true, .. }, .. }]
            if *to == target
    ));
}

#[tokio::test]
async fn sf08_foreign_discovery_is_not_stored() {
    let store = store();
    let run = Run::new(Features::NODE, &store);
    let frame = sealed(AWAY, MessageType::Discovery, later());
    assert_eq!(run.receive(frame.clone()).await, Disposition::Forwarded);
    assert_eq!(store.stats().rows, 0);
    let forwarded = run.forwarded();
    assert!(matches!(
        &forwarded[..],
        [SendRequest::Forward { strategy: Strategy::Propagate { .. }, frame: sent, .. }] if *sent == frame
    ));
}

#[tokio::test]
async fn sf09_expiring_this_second_passes_all_layers() {
    for (expires, outcome) in [
        (NOW, Disposition::Forwarded),
        (
            UnixSeconds(NOW.0 - 1),
            Disposition::Dropped(DropReason::Expired),
        ),
    ] {
        let store = store();
        let run = Run::new(Features::NODE, &store);
        let frame = sealed(AWAY, MessageType::None, expires);
        assert_eq!(run.receive(frame).await, outcome);
        let stored = u64::from(outcome == Disposition::Forwarded);
        assert_eq!(store.stats().rows, stored);
    }
}

/// A message stored in an earlier run is not forwarded again.
#[tokio::test]
async fn sf11_earlier_stored_message_is_not_forwarded() {
    let store = store();
    let frame = sealed(AWAY, MessageType::None, later());
    let first = Run::new(Features::NODE, &store);
    assert_eq!(first.receive(frame.clone()).await, Disposition::Forwarded);
    // Its tables were in memory; the store remembers.
    let second = Run::new(Features::NODE, &store);
    assert_eq!(second.receive(frame).await, Disposition::Stored);
    assert!(second.forwarded().is_empty());
    assert_eq!(store.stats().rows, 1);
}

#[tokio::test]
async fn sf23_client_drops_request_before_decryption() {
    let store = store();
    // Encrypted, and damaged: a node that looked would notice.
    let mut damaged = sealed(ME, MessageType::SafRequestMessages, later()).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = Bytes::from(damaged);
    let client = Run::new(Features::CLIENT, &store);
    assert_eq!(
        client.receive(damaged.clone()).await,
        Disposition::Dropped(DropReason::RoleFilter)
    );
    let node = Run::new(Features::NODE, &store);
    assert_eq!(
        node.receive(damaged).await,
        Disposition::Dropped(DropReason::BadSignature)
    );
}
