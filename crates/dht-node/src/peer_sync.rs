//! Who is connected, as the node's tables tell it.

use std::sync::Arc;

use dht_core::{Clock as _, NodeId, SharedClock};
use dht_peers::{Channel, ClaimPolicy, Connections, Directory};
use dht_transport::{Connection, Direction, Transport};

use crate::saf::Mail;

/// Keeps directory and connection table in step with the transport.
///
/// Two tasks enter peers here: the one that watches the transport's events, and, for a peer whose first message
/// overtakes the event of its connection, the one that takes messages. Whoever can read a message can therefore
/// answer it. Either way the transport is asked again at the end, so that no order of events leaves a peer in the
/// table that has gone.
#[derive(Clone)]
pub(crate) struct Roster {
    pub(crate) transport: Transport,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) clock: SharedClock,
    /// Told of every peer that comes and goes.
    pub(crate) mail: Mail,
    /// Which of the addresses a peer claims are used.
    pub(crate) claims: ClaimPolicy,
}

impl Roster {
    /// Makes sure that a peer a message came from is in the tables. Costs a look-up if it is.
    pub(crate) fn ensure(&self, peer: &NodeId) {
        if !self.connections.contains(peer)
            && let Some(connection) = self.transport.connection(peer)
        {
            self.enter(&connection);
        }
    }

    /// Enters the peer of a connection.
    pub(crate) fn enter(&self, connection: &Connection) {
        let now = self.clock.now();
        let (peer, info) = (connection.peer(), connection.info());
        let claim = Arc::clone(&info.claim);
        let record = self
            .claims
            .record(peer.public_key, claim, Channel::Connection, now)
            .with_agent(&info.user_agent, info.protocols.iter().cloned());
        self.directory.add_or_update(record, now);
        let direction = match connection.direction() {
            Direction::Inbound => dht_peers::Direction::Inbound,
            Direction::Outbound => dht_peers::Direction::Outbound,
        };
        if self.connections.insert(Arc::clone(peer), direction) {
            tracing::info!(peer = %peer.node_id.short(), ?direction, "connected");
            self.mail.connected(peer);
        }
        // It may have been banned between the handshake and now.
        if self.directory.is_banned(&peer.node_id, now) {
            self.transport.disconnect(&peer.node_id);
        }
        self.remove_if_gone(&peer.node_id);
    }

    /// The peer's connection took over from another, on which a question may have been lost.
    pub(crate) fn replaced(&self, connection: &Connection) {
        let peer = connection.peer();
        self.mail
            .disconnected(&peer.node_id, Some(&peer.public_key));
        self.mail.connected(peer);
    }

    /// Takes a peer out unless it is connected again.
    pub(crate) fn remove_if_gone(&self, peer: &NodeId) {
        if self.transport.connection(peer).is_none() && self.connections.remove(peer) {
            let known = self.directory.find(peer);
            self.mail
                .disconnected(peer, known.as_ref().map(|known| known.public_key()));
        }
    }

    /// Cuts the connections of everybody who is banned.
    pub(crate) fn drop_banned(&self) {
        let now = self.clock.now();
        for connection in self.transport.connections() {
            if self.directory.is_banned(connection.node_id(), now) {
                self.transport.disconnect(connection.node_id());
            }
        }
    }
}
