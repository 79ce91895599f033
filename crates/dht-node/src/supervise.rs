//! Background tasks of a node: the watcher of transport events, redials, and periodic upkeep.

mod configured;
mod flapping;

use std::{sync::Arc, time::Duration};

use dht_core::{Address, ClaimError, Clock as _, Network, NodeId, PeerAddress};
use dht_inbound::FloodMeter;
use dht_peers::Direction;
use dht_transport::{ConnectionEvent, IdentityError, Transport, UpgradeError};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval},
};

use self::flapping::{CLOSE, REDIAL_INTERVAL, Redial};
pub(crate) use self::{configured::ConfiguredPeers, flapping::Repetitions};
use crate::{connection_mirror::ConnectionMirror, context::NodeContext, events::Events};

/// How often the flood meter is read and tables are trimmed (03 section 5).
const UPKEEP_INTERVAL: Duration = Duration::from_secs(120);

/// Applies transport events and bans to the tables.
pub(crate) struct Watcher {
    pub(crate) peers: ConnectionMirror,
    /// Notified by the directory at each ban.
    pub(crate) banned: Arc<Notify>,
    /// Connections that took over from another one of the same peer.
    pub(crate) replaced: Repetitions,
    pub(crate) configured: ConfiguredPeers,
    pub(crate) events: Events,
}

impl Watcher {
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<ConnectionEvent>) {
        loop {
            tokio::select! {
                biased;
                () = self.banned.notified() => self.peers.drop_banned(),
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
            }
        }
    }

    fn on_event(&mut self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Connected {
                connection,
                replaced,
            } => {
                let before = self.direction(connection.node_id());
                self.peers.add(&connection);
                if replaced {
                    self.peers.replaced(&connection);
                    // Two nodes that dial each other at the same time have two connections, of which one stays.
                    let inbound = Direction::Inbound;
                    if before == Some(inbound) && connection.direction() == inbound {
                        self.note_replaced(connection.node_id());
                    }
                }
            }
            ConnectionEvent::Disconnected {
                node_id,
                minimized,
                refused,
            } => {
                tracing::info!(peer = %node_id.short(), minimized, "disconnected");
                let is_dialled = self.direction(&node_id) == Some(Direction::Outbound);
                // The next connection may be there before the end of this one is told, which then announces no new peer.
                match self.peers.transport.connection(&node_id) {
                    Some(next) => self.peers.replaced(&next),
                    None => self.peers.remove_if_gone(&node_id, minimized),
                }
                if !minimized {
                    let transport = &self.peers.transport;
                    let is_kept = || {
                        let mut connections = transport.connections().into_iter();
                        connections.any(|kept| {
                            kept.direction() == Direction::Outbound && kept.age() > CLOSE
                        })
                    };
                    let now = Instant::now();
                    self.configured
                        .lost(&node_id, refused, is_dialled, is_kept, now);
                    self.peers.outbox.connection_ended(&node_id);
                }
            }
            ConnectionEvent::DialFailed { node_id, error } => {
                self.configured.failed(&node_id, &error);
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::debug!(peer = %node_id.short(), error, "dial failed");
            }
            ConnectionEvent::InboundFailed { address, error, .. } => refused(&address, &error),
            ConnectionEvent::ListenerFailed { address } => {
                tracing::error!(%address, "nobody can connect to this address any more");
                self.events.fail("listener", "its task panicked");
            }
            ConnectionEvent::Offline => tracing::info!("no peer is connected any more"),
            _ => {}
        }
    }
}

impl Watcher {
    /// Side that made the present connection of a peer.
    fn direction(&self, peer: &NodeId) -> Option<Direction> {
        let connections = self.peers.shared.connections.snapshot();
        connections.find(peer).map(|found| found.direction)
    }

    fn note_replaced(&mut self, peer: &NodeId) {
        if self.replaced.add(*peer, Instant::now()) {
            tracing::warn!(
                peer = %peer.short(),
                "a peer connects again and again while it is connected: two processes may use its key"
            );
        }
    }
}

/// Tells of a connection that a peer made and that was refused: what its operator, or the one of this node, can repair as a
/// warning, one line for each cause.
fn refused(address: &Address, error: &UpgradeError) {
    match error {
        UpgradeError::Identity(IdentityError::Claim(ClaimError::FromTheFuture)) => tracing::warn!(
            %address,
            "a peer was refused: its clock is more than a day ahead of the clock of this node"
        ),
        UpgradeError::WireByte(byte) => {
            let mut networks = Network::ALL.into_iter();
            match networks.find(|network| network.wire_byte() == *byte) {
                Some(network) => tracing::warn!(
                    %address, %network,
                    "a peer was refused: it is of another network"
                ),
                None => tracing::debug!(%address, byte, "not a node"),
            }
        }
        UpgradeError::OwnKey => tracing::warn!(
            %address,
            "a connection with the key of this node was refused: another process may use its key"
        ),
        UpgradeError::Identity(error)
            if !matches!(error, IdentityError::Io(_) | IdentityError::Timeout) =>
        {
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::warn!(%address, error, "a peer was refused: its identity is not acceptable");
        }
        error => {
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::debug!(%address, error, "inbound connection failed");
        }
    }
}

/// Dials configured peers that are not connected, for ever; rarely those whose connections end soon.
pub(crate) async fn keep_connected(transport: Transport, peers: Vec<PeerAddress>) {
    let mut ticks = interval(REDIAL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut peers: Vec<_> = peers
        .into_iter()
        .map(|peer| (peer, Redial::default()))
        .collect();
    loop {
        let now = ticks.tick().await;
        let mut missing = Vec::new();
        for (peer, redial) in &mut peers {
            let node_id = peer.public_key.node_id();
            if redial.look(transport.connection(&node_id).is_some(), now) {
                missing.push((peer, redial));
            }
        }
        let transport = &transport;
        let dials = missing.into_iter().map(|(peer, redial)| async move {
            // The watcher tells of a failure, once.
            if let Ok(_connection) = transport.dial(&peer.public_key, &peer.addresses).await {
                redial.dialled();
            }
        });
        futures::future::join_all(dials).await;
    }
}

/// Bans peers that flood, and removes expired entries from tables.
pub(crate) struct Upkeep {
    pub(crate) shared: NodeContext,
    pub(crate) meter: FloodMeter,
}

impl Upkeep {
    pub(crate) async fn run(self) {
        let mut ticks = interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick();
        }
    }

    fn tick(&self) {
        let now = self.shared.clock.now();
        self.meter.report(&self.shared.bans, now);
        self.meter.prune(now);
        self.shared.dedup.trim(now);
    }
}
