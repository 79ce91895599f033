//! Store-and-forward of one node, with every part around it under the test's control.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{
    Clock as _, Content, DedupHash, Deliverer, Destination, Disposition, DropReason, Encryption,
    Features, Flags, Header, InTransit, ManualClock, MessageTag, MessageType, NodeIdentity,
    OnDelivery, Opened, Payload, ProtocolVersion, PublicKey, RawEnvelope, RemotePeer,
    SeededEntropy, SendQueue, SendQueueError, SendRequest, Severity, Signing, StoreOutcome,
    Strategy, UnixSeconds, test_util,
};
use dht_dedup::DedupTable;
use dht_mailbox::{MemoryDisk, Store, StoreConfig};
use dht_peers::{
    Connections, Direction, Directory, NetGroup, PeerRecord,
    policy::{AttributionProfile, BanPolicy, BanTerms},
    test_util::BanLog,
};
use dht_proto::store_forward::{StoredMessage, StoredMessagesRequest, StoredMessagesResponse};
use dht_saf::{Config, Ledger, Saf, SafEvent, SafParts};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tower::BoxError;
use tower::{Layer as _, Service, ServiceExt as _};

pub(crate) use dht_core::test_util::NOW;

/// Seed of the node under test.
pub(crate) const ME: u64 = 1;
/// Seed of a connected node that stores messages for others.
pub(crate) const NODE: u64 = 2;
/// Seed of another connected node.
pub(crate) const OTHER: u64 = 3;
/// Seed of an offline peer.
pub(crate) const AWAY: u64 = 4;
/// Seed of an origin.
pub(crate) const SENDER: u64 = 5;

/// A message on its way through the layers.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) source: Arc<RemotePeer>,
    pub(crate) opened: Opened,
    pub(crate) hash: DedupHash,
    pub(crate) occurrences: u32,
    pub(crate) stored: Option<StoreOutcome>,
    pub(crate) is_saf: bool,
}

impl InTransit for Envelope {
    fn source(&self) -> &Arc<RemotePeer> {
        &self.source
    }
    fn opened(&self) -> &Opened {
        &self.opened
    }
    fn hash(&self) -> DedupHash {
        self.hash
    }
    fn occurrences(&self) -> u32 {
        self.occurrences
    }
    fn set_store_outcome(&mut self, outcome: StoreOutcome) {
        self.stored = Some(outcome);
    }
    fn unpack(&mut self, opened: Opened, hash: DedupHash, _bytes: usize) -> Self {
        Self {
            source: Arc::clone(&self.source),
            opened,
            hash,
            occurrences: 0,
            stored: None,
            is_saf: true,
        }
    }
}

/// A request or response that the node sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) to: PublicKey,
    pub(crate) message_type: MessageType,
    pub(crate) part: Bytes,
    pub(crate) requester: Option<Deliverer>,
}

/// The parts of a node around store-and-forward: its send queue.
#[derive(Default)]
pub(crate) struct FakeNode {
    pub(crate) sent: Mutex<Vec<Sent>>,
    /// The send queue refuses every request.
    pub(crate) full: Mutex<bool>,
    /// The connection breaks before a message has left.
    pub(crate) broken: Mutex<bool>,
    /// The peer does not read, so deliveries wait for `release`.
    pub(crate) stalled: Mutex<bool>,
    pub(crate) waiting: Mutex<Vec<OnDelivery>>,
}

impl SendQueue for FakeNode {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        self.record(request)
    }

    fn try_send_reporting(
        &self,
        request: SendRequest,
        done: OnDelivery,
    ) -> Result<(), SendQueueError> {
        self.record(request)?;
        if *self.stalled.lock() {
            self.waiting.lock().push(done);
            return Ok(());
        }
        let broken = *self.broken.lock();
        done(!broken);
        Ok(())
    }
}

impl FakeNode {
    fn record(&self, request: SendRequest) -> Result<(), SendQueueError> {
        if *self.full.lock() {
            return Err(SendQueueError::Full);
        }
        let SendRequest::Message {
            params,
            payload: Payload::Part(part),
        } = request
        else {
            panic!("a message of the protocol")
        };
        let Strategy::DirectPublicKey(to) = params.strategy else {
            panic!("to one peer")
        };
        assert_eq!(params.encryption, Encryption::Clear);
        assert_eq!(params.destination, Destination::Unknown);
        assert!(!params.force_origin && !params.discovery);
        self.sent.lock().push(Sent {
            to,
            message_type: params.message_type,
            part,
            requester: params.requester,
        });
        Ok(())
    }

    /// Number of deliveries that are waited for.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Completes the deliveries that wait.
    pub(crate) fn release(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(|done| done(true));
    }
}

/// The inner service: records every message that it takes.
#[derive(Clone, Default)]
pub(crate) struct Next(
    pub(crate) Arc<Mutex<Vec<Envelope>>>,
    /// Messages that it still takes; the others are refused. `None` takes all.
    pub(crate) Arc<Mutex<Option<usize>>>,
);

impl Service<Envelope> for Next {
    type Response = Disposition;
    type Error = BoxError;
    type Future = Ready<Result<Disposition, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Envelope) -> Self::Future {
        if let Some(room) = &mut *self.1.lock() {
            if *room == 0 {
                return ready(Ok(Disposition::Dropped(DropReason::InboxShareFull)));
            }
            *room -= 1;
        }
        let disposition = match message.opened.content {
            Content::Readable { .. } => Disposition::Delivered,
            Content::Unreadable => Disposition::Dropped(DropReason::NotForUs),
        };
        self.0.lock().push(message);
        ready(Ok(disposition))
    }
}

/// A node under test.
pub(crate) struct World {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) node: Arc<FakeNode>,
    bans: BanLog,
    pub(crate) dedup: DedupTable,
    pub(crate) saf: Saf,
    pub(crate) events: broadcast::Receiver<SafEvent>,
    pub(crate) next: Next,
}

impl World {
    /// A full node with a store in memory.
    pub(crate) fn new(config: Config) -> Self {
        Self::with(ME, Features::NODE, config, StoreConfig::default())
    }

    /// A full node that attributes faults by this profile.
    pub(crate) fn blaming(profile: AttributionProfile) -> Self {
        let store = Store::open_on(MemoryDisk::new(), StoreConfig::default()).unwrap();
        let ledger = Ledger::in_memory();
        Self::of(
            ME,
            Features::NODE,
            &Config::default(),
            store,
            ledger,
            profile,
        )
    }

    /// The node of a seed.
    pub(crate) fn with(seed: u64, features: Features, config: Config, store: StoreConfig) -> Self {
        let store = Store::open_on(MemoryDisk::new(), store).unwrap();
        let ledger = Ledger::in_memory();
        let profile = AttributionProfile::default();
        Self::of(seed, features, &config, store, ledger, profile)
    }

    /// The node of a seed, with these files.
    pub(crate) fn of(
        seed: u64,
        features: Features,
        config: &Config,
        store: Store,
        ledger: Ledger,
        profile: AttributionProfile,
    ) -> Self {
        let identity = Arc::new(test_util::identity_with(seed, features));
        let directory = Directory::new(*identity.node_id());
        let connections = Connections::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let node = Arc::new(FakeNode::default());
        let bans = BanLog::of(&directory);
        let policy = BanPolicy::new(
            profile,
            BanTerms::default(),
            directory.clone(),
            Arc::clone(&clock) as _,
        );
        let dedup = DedupTable::new(10_000, [3; 16]);
        let saf = Saf::new(
            config,
            SafParts {
                identity: Arc::clone(&identity),
                directory: directory.clone(),
                connections: connections.clone(),
                clock: Arc::clone(&clock) as dht_core::SharedClock,
                entropy: Arc::new(SeededEntropy::new(seed)),
                store: Some(store),
                ledger: Arc::new(ledger),
                send_queue: Arc::clone(&node) as Arc<dyn SendQueue>,
                responses: dht_stack::ByteBudget::new(64 << 20),
                bans: policy,
                dedup: dedup.clone(),
            },
        );
        let events = saf.subscribe();
        Self {
            identity,
            directory,
            connections,
            clock,
            node,
            bans,
            dedup,
            saf,
            events,
            next: Next::default(),
        }
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    // --- through the layers ---

    /// A message through the store layer.
    pub(crate) async fn store(&self, message: Envelope) -> Disposition {
        let layer = self.saf.store_layer().unwrap();
        layer
            .layer(self.next.clone())
            .oneshot(message)
            .await
            .unwrap()
    }

    /// A message through the handler layer.
    pub(crate) async fn handle(&self, message: Envelope) -> Disposition {
        let layer = self.saf.layer();
        layer
            .layer(self.next.clone())
            .oneshot(message)
            .await
            .unwrap()
    }

    /// Takes what reached the next layer.
    pub(crate) fn passed(&self) -> Vec<Envelope> {
        std::mem::take(&mut self.next.0.lock())
    }

    /// Rows held.
    pub(crate) fn held(&self) -> u64 {
        self.saf.store().unwrap().stats().rows
    }

    /// Stores `count` messages for `to` in this second, through the store layer.
    pub(crate) async fn keep(&self, to: u64, count: u64, first: u64) {
        for n in first..first + count {
            let message = self.unreadable(to, n);
            assert_eq!(
                self.store(message).await,
                Disposition::Stored,
                "message {n}"
            );
        }
        self.passed();
    }

    /// A peer hands over a copy of a message, as the inbound stack notes it.
    pub(crate) fn hand_over(&self, from: u64, hash: &DedupHash) {
        let peer = peer(from, Features::NODE);
        self.dedup.note_deliverer(&peer.node_id, hash);
    }

    // --- messages ---

    /// A message as this node opens it.
    pub(crate) fn open(&self, frame: Bytes) -> Envelope {
        let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
        let verified = sealed.verify().unwrap();
        let hash = dht_core::dedup_key(&verified).unwrap();
        Envelope {
            source: peer(NODE, Features::NODE),
            opened: verified.open(&self.identity).unwrap(),
            hash,
            occurrences: 1,
            stored: None,
            is_saf: false,
        }
    }

    /// Message `n` of [`SENDER`] for another peer, which this node cannot read.
    pub(crate) fn unreadable(&self, to: u64, n: u64) -> Envelope {
        let key = test_util::public_key(to);
        let from = test_util::identity(SENDER);
        self.open(test_util::encrypted(&from, &key, b"sealed", n))
    }

    // --- serving ---

    /// Handles a request of a peer, and returns the response.
    pub(crate) async fn ask(&self, from: u64, since: u64, limit: u32) -> StoredMessagesResponse {
        let before = self.node.sent.lock().len();
        let request = StoredMessagesRequest {
            since,
            request_id: 77,
            limit,
            continued: false,
        };
        let message = protocol(from, MessageType::SafRequestMessages, &request);
        assert_eq!(self.handle(message).await, Disposition::Answered);
        let sent = self.node.sent.lock();
        let [answer] = &sent[before..] else {
            panic!("exactly one answer");
        };
        assert_eq!(answer.message_type, MessageType::SafStoredMessages);
        assert_eq!(answer.to, test_util::public_key(from));
        let response: StoredMessagesResponse = dht_proto::decode(answer.part.clone()).unwrap();
        assert_eq!((response.request_id, response.response_type), (77, 0));
        response
    }

    // --- asking ---

    /// A connected peer with these features, which gives receipts.
    pub(crate) fn connect(&self, seed: u64, features: Features) -> Arc<RemotePeer> {
        self.know(seed, features, [dht_saf::RECEIPT_PROTOCOL]);
        let peer = peer(seed, features);
        self.connections
            .insert(Arc::clone(&peer), Direction::Outbound);
        peer
    }

    /// Enters a peer that offers these protocols in the directory.
    pub(crate) fn know<const N: usize>(
        &self,
        seed: u64,
        features: Features,
        protocols: [Bytes; N],
    ) {
        let identity = test_util::identity_with(seed, features);
        let record = PeerRecord::from_claim(*identity.public_key(), identity.claim(), self.now())
            .with_agent("", protocols);
        self.directory
            .authenticated(record, NetGroup::Unknown, self.now());
    }

    /// Asks a peer, one that gives receipts unless it is known, and returns the request.
    pub(crate) fn request(&self, seed: u64) -> StoredMessagesRequest {
        let id = test_util::public_key(seed).node_id();
        if !self.directory.contains(&id) {
            self.know(seed, Features::NODE, [dht_saf::RECEIPT_PROTOCOL]);
        }
        self.saf.request_from(&peer(seed, Features::NODE)).unwrap();
        self.last_request().unwrap()
    }

    /// The last request that was sent, if the last thing sent is one.
    pub(crate) fn last_request(&self) -> Option<StoredMessagesRequest> {
        let sent = self.node.sent.lock();
        let last = sent.last()?;
        (last.message_type == MessageType::SafRequestMessages)
            .then(|| dht_proto::decode(last.part.clone()).unwrap())
    }

    /// Hands an answer of a peer to the handler.
    pub(crate) async fn answer(
        &self,
        from: u64,
        request_id: u32,
        messages: Vec<StoredMessage>,
    ) -> Disposition {
        let response = StoredMessagesResponse {
            messages,
            request_id,
            response_type: 0,
        };
        let message = protocol(from, MessageType::SafStoredMessages, &response);
        self.handle(message).await
    }

    /// Asks [`NODE`] and has it answer with these.
    pub(crate) async fn exchange(&self, messages: Vec<StoredMessage>) -> Disposition {
        let id = self.request(NODE).request_id;
        self.answer(NODE, id, messages).await
    }

    /// Events that have come.
    pub(crate) fn events(&mut self) -> Vec<SafEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub(crate) fn watermark(&self, seed: u64) -> Option<UnixSeconds> {
        self.saf.ledger().watermark(&test_util::public_key(seed))
    }

    pub(crate) fn bans(&self) -> Vec<Severity> {
        self.bans.take().iter().map(|ban| ban.severity).collect()
    }
}

pub(crate) fn peer(seed: u64, features: Features) -> Arc<RemotePeer> {
    Arc::new(RemotePeer::new(test_util::public_key(seed), features))
}

/// A clear message of store-and-forward, as the stack hands it in.
pub(crate) fn protocol(
    from: u64,
    message_type: MessageType,
    part: &impl dht_proto::Bounded,
) -> Envelope {
    let part = dht_proto::encode(part);
    Envelope {
        source: peer(from, Features::NODE),
        hash: dht_core::dedup_hash(&[], &part),
        opened: Opened {
            header: Header {
                version: ProtocolVersion::V2,
                destination: Destination::Unknown,
                message_type,
                flags: Flags::NONE,
                signature: Bytes::new(),
                ephemeral_key: None,
                tag: MessageTag(1),
                expires: None,
            },
            content: Content::Readable {
                parts: vec![part],
                origin: None,
            },
            frame: Bytes::new(),
            body: Bytes::new(),
        },
        occurrences: 1,
        stored: None,
        is_saf: false,
    }
}

/// A stored message out of a frame.
pub(crate) fn stored(frame: Bytes, stored_at: u64) -> StoredMessage {
    let raw = RawEnvelope::parse(frame).unwrap();
    StoredMessage {
        stored_at,
        version: 2,
        dht_header: raw.header().cloned(),
        body: raw.body().clone(),
    }
}

/// Message `n`, encrypted for the node under test, stored at a time.
pub(crate) fn for_me(n: u64, stored_at: u64) -> StoredMessage {
    let frame = test_util::encrypted(
        &test_util::identity(SENDER),
        &test_util::public_key(ME),
        b"for me",
        n,
    );
    stored(frame, stored_at)
}

/// Message `n`, clear, unsigned and without destination.
pub(crate) fn clear(n: u64, stored_at: u64) -> StoredMessage {
    let from = test_util::identity(SENDER);
    let frame = test_util::frame(
        &from,
        Destination::Unknown,
        Encryption::Clear,
        Signing::Anonymous,
        b"to whom it may concern",
        n,
    );
    stored(frame, stored_at)
}

/// The bodies of an answer, to tell messages apart.
pub(crate) fn bodies(response: &StoredMessagesResponse) -> Vec<Bytes> {
    response.messages.iter().map(|it| it.body.clone()).collect()
}
