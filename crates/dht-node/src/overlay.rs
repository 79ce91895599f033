//! The overlay of this node, and the peer-sync service over its connections, both roles.

use std::{io, sync::Arc};

use dht_core::{Clock as _, Entropy as _, Features, NodeId};
use dht_outbound::Outbound;
use dht_overlay::{
    BootstrapPeers, DialOutcome, Driver, Notice, OverlayEvent, Ports, Summary,
    lookup::SyncNetwork,
    sync::{Learner, PEER_SYNC_PROTOCOL, SyncCaller, peer_sync_server},
};
use dht_transport::{Builder, DialCause, DialError, InboundStream, Substream, Transport};
use futures::StreamExt as _;
use parking_lot::Mutex;
use rand_core::Rng as _;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    channels,
    config::Config,
    connection_mirror::{ConnectionMirror, OverlayEvents},
    context::NodeContext,
    events::Event,
    tasks::Tasks,
};

/// The overlay before its task runs.
pub(crate) struct Overlay {
    driver: Driver<NodePorts>,
    summary: Arc<Mutex<Summary>>,
}

/// The node as the overlay uses it.
struct NodePorts {
    peers: ConnectionMirror,
    outbound: Outbound,
    summary: Arc<Mutex<Summary>>,
    #[cfg(feature = "dns-seeds")]
    dns: crate::dns_seeds::DnsSeeds,
}

/// Streams on which peers ask for peers.
pub(crate) struct SyncStreams(mpsc::Receiver<InboundStream>);

/// Makes the transport of a full node offer the peer-sync service.
pub(crate) fn offer(transport: Builder, features: Features) -> (Builder, Option<SyncStreams>) {
    if features != Features::NODE {
        return (transport, None);
    }
    let (sender, streams) = channels::SYNC_STREAMS.open();
    let transport = transport.serve(PEER_SYNC_PROTOCOL, sender);
    (transport, Some(SyncStreams(streams)))
}

impl SyncStreams {
    /// Starts the task that answers, in at most `max_sessions` sessions.
    pub(crate) fn serve(mut self, shared: &NodeContext, max_sessions: usize, tasks: &Tasks) {
        let streams = futures::stream::poll_fn(move |cx| self.0.poll_recv(cx));
        let streams = streams.map(|inbound| {
            let caller = SyncCaller {
                peer: inbound.peer.node_id,
                source: inbound.peer.source,
            };
            (caller, inbound.stream)
        });
        let (clock, entropy) = (Arc::clone(&shared.clock), Arc::clone(&shared.entropy));
        let server = peer_sync_server(shared.directory.clone(), clock, entropy, max_sessions);
        tasks.spawn("peer-sync service", server.serve(streams));
    }
}

/// The connections over which lookups ask.
pub(crate) struct SyncLinks(pub(crate) Transport);

impl SyncNetwork for SyncLinks {
    type Stream = Substream;

    fn is_connected(&self, peer: &NodeId) -> bool {
        self.0.connection(peer).is_some()
    }

    async fn connect(&self, peer: NodeId) -> bool {
        self.0.dial_for(&peer, DialCause::Overlay).await.is_ok()
    }

    async fn open(&self, peer: NodeId) -> Option<Substream> {
        let connection = self.0.connection(&peer)?;
        connection.open(&PEER_SYNC_PROTOCOL).await.ok()
    }

    fn release(&self, peer: &NodeId) {
        let connection = self.0.connection(peer);
        // Another part of the node, or the peer, may have begun to use it.
        if connection.is_some_and(|connection| connection.streams() == 0) {
            self.0.disconnect(peer);
        }
    }
}

/// The channel of events for the overlay.
pub(crate) fn events() -> (OverlayEvents, mpsc::Receiver<OverlayEvent>) {
    let (sender, events) = channels::OVERLAY_EVENTS.open();
    (OverlayEvents(sender), events)
}

impl Overlay {
    pub(crate) fn new(config: &Config, peers: ConnectionMirror, outbound: Outbound) -> Self {
        let shared = peers.shared.clone();
        let (me, at) = (*shared.directory.me(), Instant::now());
        let anchors = shared.directory.anchors(shared.clock.now());
        let named = config.peers.iter().chain(&config.seeds);
        let bootstrap_peers = BootstrapPeers {
            anchors: anchors.iter().map(|peer| *peer.node_id()).collect(),
            seeds: named.map(|peer| peer.public_key.node_id()).collect(),
            names: config.seed_names(),
        };
        let summary = Arc::default();
        let learner = Learner {
            directory: shared.directory.clone(),
            bans: shared.bans.clone(),
            clock: Arc::clone(&shared.clock),
            claims: peers.claims,
        };
        let ports = NodePorts {
            peers,
            outbound,
            summary: Arc::clone(&summary),
            #[cfg(feature = "dns-seeds")]
            dns: crate::dns_seeds::DnsSeeds::new(config.dns_servers.clone()),
        };
        let driver = Driver {
            ports: Arc::new(ports),
            overlay: dht_overlay::Overlay::new(me, &config.overlay, bootstrap_peers, at),
            learner,
            connections: shared.connections,
            clock: shared.clock,
            entropy: shared.entropy,
        };
        Self { driver, summary }
    }

    pub(crate) fn summary(&self) -> Arc<Mutex<Summary>> {
        Arc::clone(&self.summary)
    }

    pub(crate) async fn run(self, events: mpsc::Receiver<OverlayEvent>) {
        self.driver.run(events).await;
    }
}

impl Ports for NodePorts {
    type Stream = Substream;

    async fn dial(&self, peer: NodeId) -> DialOutcome {
        let dial = self.peers.transport.dial_for(&peer, DialCause::Overlay);
        match dial.await {
            Ok(_connection) => {
                self.peers.ensure(&peer);
                DialOutcome::Connected
            }
            Err(DialError::TooManyConnections | DialError::TooManyDials | DialError::Cancelled) => {
                DialOutcome::Refused
            }
            Err(error) => {
                tracing::debug!(peer = %peer.short(), %error, "dial of the overlay failed");
                DialOutcome::Failed
            }
        }
    }

    async fn open_sync(&self, peer: NodeId) -> io::Result<Substream> {
        let protocol = PEER_SYNC_PROTOCOL;
        let stream = self.peers.transport.open(&peer, &protocol);
        stream.await.map_err(io::Error::other)
    }

    async fn join(&self) -> bool {
        let shared = &self.peers.shared;
        let nonce = shared.entropy.rng().next_u64();
        match self.outbound.join(&shared.identity, nonce).await {
            Ok(_copies) => true,
            Err(error) => {
                tracing::debug!(%error, "no join sent");
                false
            }
        }
    }

    #[cfg(feature = "dns-seeds")]
    async fn look_up(&self, name: String) -> Vec<NodeId> {
        self.dns
            .look_up(&name, &self.peers.shared, &self.peers.claims)
            .await
    }

    /// Without the feature there are no names.
    #[cfg(not(feature = "dns-seeds"))]
    async fn look_up(&self, _name: String) -> Vec<NodeId> {
        Vec::new()
    }

    fn disconnect(&self, peer: &NodeId) {
        self.peers.transport.disconnect(peer);
    }

    fn changed(&self, summary: &Summary) {
        self.summary.lock().clone_from(summary);
    }

    fn notify(&self, notice: Notice) {
        if let Notice::Status(status) = &notice {
            tracing::info!(%status, "status of the node");
        }
        let events = &self.peers.shared.events;
        events.publish(|| Event::Overlay(notice));
    }
}
