//! A pipeline over real parts, with a sink and a duplicate table that record.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Features, ManualClock, Message, NodeIdentity, Payload, RawEnvelope, RemotePeer, Sealed,
    SeededEntropy, SendParams, SendRequest,
    test_util::{NOW, identity},
};
use dht_dedup::DedupTable;
use dht_outbound::{
    Config, Deliveries, Outbound, OutboundMessage, PipelineParts, SendError, Worker, pipeline,
};
use dht_peers::{Connections, Direction, Directory, PeerRecord};
use parking_lot::Mutex;
use tower::{BoxError, service_fn};

/// A node that sends, and what has left it.
pub(crate) struct Node {
    pub(crate) me: Arc<NodeIdentity>,
    pub(crate) connections: Connections,
    pub(crate) directory: Directory,
    pub(crate) config: Config,
    pub(crate) dedup: DedupTable,
    pub(crate) sent: Arc<Mutex<Vec<OutboundMessage>>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let me = Arc::new(identity(0));
        Self {
            connections: Connections::new(),
            directory: Directory::new(*me.node_id()),
            config: Config::default(),
            dedup: DedupTable::new(1_000, [1; 16]),
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
        let record = PeerRecord::seed(*identity(seed).public_key(), Features::NODE, [], NOW);
        self.directory.add_or_update(record, NOW);
    }

    pub(crate) fn parts(&self) -> PipelineParts {
        PipelineParts {
            identity: Arc::clone(&self.me),
            connections: self.connections.clone(),
            directory: self.directory.clone(),
            clock: Arc::new(ManualClock::new(NOW)),
            entropy: Arc::new(SeededEntropy::new(7)),
            dedup: self.dedup.clone(),
        }
    }

    /// A door with its worker, in front of a sink that takes everything.
    pub(crate) fn outbound(&self) -> (Outbound, Worker) {
        let sent = Arc::clone(&self.sent);
        let sink = service_fn(move |message: OutboundMessage| {
            sent.lock().push(message);
            std::future::ready(Ok::<_, BoxError>(()))
        });
        Outbound::new(&self.config, pipeline(self.parts(), &self.config, sink))
    }

    pub(crate) async fn send(&self, request: SendRequest) -> Result<Deliveries, SendError> {
        let (outbound, _worker) = self.outbound();
        outbound.send(request).await
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
    Payload::Domain(Message::new(1, &b"hello"[..]))
}

pub(crate) fn message(params: SendParams) -> SendRequest {
    SendRequest::new(params, hello())
}
