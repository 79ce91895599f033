//! The peer-sync service over connections of this node.

use std::sync::Arc;

use dht_core::Features;
use dht_overlay::sync::{PEER_SYNC_PROTOCOL, SyncCaller, peer_sync_server};
use dht_transport::{Builder, InboundStream};
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
