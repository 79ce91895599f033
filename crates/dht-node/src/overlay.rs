//! The peer-sync service over connections of this node, both roles.

use std::sync::Arc;

use dht_core::{Features, NodeId};
use dht_overlay::{
    lookup::SyncNetwork,
    sync::{PEER_SYNC_PROTOCOL, SyncCaller, peer_sync_server},
};
use dht_transport::{Builder, DialCause, InboundStream, Substream, Transport};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::{channels, shared::Shared, tasks::Tasks};

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
    pub(crate) fn serve(mut self, shared: &Shared, max_sessions: usize, tasks: &Tasks) {
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
