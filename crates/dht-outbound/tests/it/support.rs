//! A pipeline over real parts, with a sink and a duplicate table that record.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    DedupHash, DomainMessage, Features, ManualClock, NodeIdentity, Payload, RawEnvelope,
    RemotePeer, Sealed, SeededEntropy, SendParams, SendRequest, UnixSeconds,
    test_util::{NOW, identity},
};
use dht_outbound::{
    InlineSealer, OutboundConfig, OutboundMessage, OutboundParts, SeedDedup, SendMessageResponse,
    outbound,
};
use dht_peers::{Connections, Direction, Directory, PeerRecord};
use dht_stack::BoxError;
use parking_lot::Mutex;
use tower::{Service, ServiceExt, service_fn};

/// A duplicate table that records what it is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seeds(pub(crate) Arc<Mutex<Vec<Seed>>>);

/// Hash, expiry, and whether the message is signed.
pub(crate) type Seed = (DedupHash, Option<UnixSeconds>, bool);

impl SeedDedup for Seeds {
    fn seed(&self, hash: DedupHash, expires: Option<UnixSeconds>, signed: bool) {
        self.0.lock().push((hash, expires, signed));
    }
}

/// A node that sends, and what has left it.
pub(crate) struct Node {
    pub(crate) me: Arc<NodeIdentity>,
    pub(crate) connections: Connections,
    pub(crate) directory: Directory,
    pub(crate) config: OutboundConfig,
    pub(crate) seeds: Seeds,
    pub(crate) sent: Arc<Mutex<Vec<OutboundMessage>>>,
}

pub(crate) trait Pipeline:
    Service<SendRequest, Response = SendMessageResponse, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Pipeline for S where
    S: Service<SendRequest, Response = SendMessageResponse, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static
{
}

impl Node {
    pub(crate) fn new() -> Self {
        let me = Arc::new(identity(0));
        Self {
            connections: Connections::new(),
            directory: Directory::new(*me.node_id()),
            config: OutboundConfig::default(),
            seeds: Seeds::default(),
            sent: Arc::default(),
            me,
        }
    }

    pub(crate) fn connected(self, seeds: impl IntoIterator<Item = u64>) -> Self {
        for seed in seeds {
            let peer = RemotePeer::new(*identity(seed).public_key(), Features::NODE);
            self.connections.insert(Arc::new(peer), Direction::Outbound);
            self.know(seed);
        }
        self
    }

    pub(crate) fn know(&self, seed: u64) {
        let record = PeerRecord::new(*identity(seed).public_key(), Features::NODE, NOW);
        self.directory.add_or_update(record, NOW);
    }

    pub(crate) fn parts(&self) -> OutboundParts<InlineSealer, Seeds> {
        OutboundParts {
            identity: Arc::clone(&self.me),
            connections: self.connections.clone(),
            directory: self.directory.clone(),
            clock: Arc::new(ManualClock::new(NOW)),
            entropy: Arc::new(SeededEntropy::new(7)),
            config: self.config.clone(),
            sealer: InlineSealer,
            dedup: self.seeds.clone(),
            discover: None,
        }
    }

    pub(crate) fn pipeline(&self) -> impl Pipeline {
        self.pipeline_of(self.parts())
    }

    pub(crate) fn pipeline_of(&self, parts: OutboundParts<InlineSealer, Seeds>) -> impl Pipeline {
        let sent = Arc::clone(&self.sent);
        let sink = service_fn(move |message: OutboundMessage| {
            sent.lock().push(message);
            std::future::ready(Ok::<_, BoxError>(()))
        });
        outbound(parts, sink)
    }

    pub(crate) async fn send(&self, request: SendRequest) -> SendMessageResponse {
        self.pipeline()
            .oneshot(request)
            .await
            .expect("the sink never fails")
    }

    pub(crate) fn frames(&self) -> Vec<Bytes> {
        self.sent
            .lock()
            .iter()
            .map(|message| message.frame.clone())
            .collect()
    }

    /// The only frame sent so far, as a receiver sees it.
    pub(crate) fn received(&self) -> Sealed {
        let frames = self.frames();
        let (first, rest) = frames.split_first().expect("something was sent");
        assert!(rest.iter().all(|frame| frame == first));
        let raw = RawEnvelope::parse(first.clone()).expect("an envelope");
        assert!(raw.is_canonical());
        raw.into_sealed().expect("a good header")
    }
}

pub(crate) fn hello() -> Payload {
    Payload::Domain(DomainMessage::new(1, &b"hello"[..]))
}

pub(crate) fn message(params: SendParams) -> SendRequest {
    SendRequest::new(params, hello())
}
