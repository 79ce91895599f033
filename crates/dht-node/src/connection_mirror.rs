//! Keeps the peer directory and the table of connected peers in step with the transport.

use std::sync::Arc;

use dht_core::{Clock as _, NodeId, SourceGroup};
#[cfg(feature = "overlay")]
use dht_overlay::OverlayEvent;
use dht_peers::{ClaimPolicy, NetGroup};
use dht_transport::{Connection, Transport};

use crate::{context::NodeContext, events::Event, outbox::OutboxHandle, saf::SafHandle};

/// Tells the overlay who connects and disconnects. Clones share one channel.
#[cfg(feature = "overlay")]
#[derive(Clone)]
pub(crate) struct OverlayEvents(pub(crate) tokio::sync::mpsc::Sender<OverlayEvent>);

/// Copies connections of the transport into the directory and the table of connected peers.
///
/// Two tasks add peers: the watcher of transport events, and the inbound worker for a peer whose first message
/// overtakes the event of its connection, so that a message can be answered as soon as it is read.
///
/// Correctness: each addition asks the transport again at the end, so that no order of events leaves a disconnected
/// peer in the table.
#[derive(Clone)]
pub(crate) struct ConnectionMirror {
    pub(crate) transport: Transport,
    pub(crate) shared: NodeContext,
    /// Informed of each connected and disconnected peer.
    pub(crate) saf: SafHandle,
    pub(crate) outbox: OutboxHandle,
    #[cfg(feature = "overlay")]
    pub(crate) overlay: OverlayEvents,
    /// Decides which of the addresses in a peer's claim are used.
    pub(crate) claims: ClaimPolicy,
}

#[cfg(feature = "overlay")]
impl OverlayEvents {
    fn connected(&self, peer: NodeId) {
        // If the channel is full or nobody listens: the table of connections says it, too.
        let _lost = self.0.try_send(OverlayEvent::Connected(peer));
    }

    /// This node claims other addresses.
    pub(crate) fn address_changed(&self) {
        let _lost = self.0.try_send(OverlayEvent::AddressChanged);
    }

    fn disconnected(&self, peer: NodeId, minimized: bool) {
        let event = OverlayEvent::Disconnected { peer, minimized };
        let _lost = self.0.try_send(event);
    }
}

impl ConnectionMirror {
    /// Adds the deliverer of a message if it is not in the table. Costs one look-up if it is.
    pub(crate) fn ensure(&self, peer: &NodeId) {
        if !self.shared.connections.contains(peer)
            && let Some(connection) = self.transport.connection(peer)
        {
            self.add(&connection);
        }
    }

    /// Adds the peer of a connection.
    pub(crate) fn add(&self, connection: &Connection) {
        let now = self.shared.clock.now();
        let (peer, info) = (connection.peer(), connection.info());
        let claim = Arc::clone(&info.claim);
        let record = self
            .claims
            .record(peer.public_key, claim, now)
            .with_agent(&info.user_agent, info.protocols.iter().cloned());
        let from = match peer.source {
            // The address says nothing: anybody may be behind it.
            None => NetGroup::Unknown,
            Some(SourceGroup::ONION_SERVICE) => NetGroup::OnionService,
            Some(_) => NetGroup::of_address(connection.address()),
        };
        self.shared.directory.authenticated(record, from, now);
        let direction = connection.direction();
        if self.shared.connections.insert(Arc::clone(peer), direction) {
            tracing::info!(peer = %peer.node_id.short(), ?direction, "connected");
            let events = &self.shared.events;
            events.publish(|| Event::Connected(Arc::clone(peer)));
            #[cfg(feature = "overlay")]
            self.overlay.connected(peer.node_id);
            self.saf.connected(peer);
            self.outbox.appeared(&peer.node_id);
        }
        // The peer may have been banned since the handshake.
        if self.shared.directory.is_banned(&peer.node_id, now) {
            self.transport.disconnect(&peer.node_id);
        }
        self.remove_if_gone(&peer.node_id, false);
    }

    /// Restarts requests of store-and-forward and tries messages of the outbox, which may have been lost with the connection
    /// before this one.
    pub(crate) fn replaced(&self, connection: &Connection) {
        let peer = connection.peer();
        self.saf
            .disconnected(&peer.node_id, Some(peer.public_key.compressed()));
        self.saf.connected(peer);
        self.outbox.appeared(&peer.node_id);
    }

    /// Removes a peer unless it is connected again. `minimized` says that this node closed its connection on purpose.
    pub(crate) fn remove_if_gone(&self, peer: &NodeId, minimized: bool) {
        if self.transport.connection(peer).is_none() && self.shared.connections.remove(peer) {
            let events = &self.shared.events;
            events.publish(|| Event::Disconnected { peer: *peer });
            #[cfg(feature = "overlay")]
            self.overlay.disconnected(*peer, minimized);
            #[cfg(not(feature = "overlay"))]
            let _nobody_asks = minimized;
            let known = self.shared.directory.find(peer);
            self.saf
                .disconnected(peer, known.as_ref().map(|known| known.public_key()));
        }
    }

    /// Closes the connections of banned peers.
    pub(crate) fn drop_banned(&self) {
        let now = self.shared.clock.now();
        for connection in self.transport.connections() {
            if self.shared.directory.is_banned(connection.node_id(), now) {
                self.transport.disconnect(connection.node_id());
            }
        }
    }
}
