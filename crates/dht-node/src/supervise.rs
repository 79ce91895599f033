//! Background tasks of a node: the watcher of transport events, redials, and periodic upkeep.

use std::{sync::Arc, time::Duration};

use dht_core::{Clock as _, PeerAddress};
use dht_inbound::FloodMeter;
use dht_transport::{ConnectionEvent, Transport};
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval},
};

use crate::{peer_sync::PeerSync, shared::Shared};

/// Interval at which configured peers that are not connected are dialled.
const REDIAL_INTERVAL: Duration = Duration::from_secs(10);

/// How often the flood meter is read and tables are trimmed (03 section 5).
const UPKEEP_INTERVAL: Duration = Duration::from_secs(120);

/// Applies transport events and bans to the tables.
pub(crate) struct Watcher {
    pub(crate) peers: PeerSync,
    pub(crate) meter: FloodMeter,
    /// Notified by the directory at each ban.
    pub(crate) banned: Arc<Notify>,
}

impl Watcher {
    pub(crate) async fn run(self, mut events: mpsc::Receiver<ConnectionEvent>) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                () = self.banned.notified() => self.peers.drop_banned(),
            }
        }
    }

    fn on_event(&self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Connected {
                connection,
                replaced,
            } => {
                self.peers.add(&connection);
                if replaced {
                    self.peers.replaced(&connection);
                }
            }
            ConnectionEvent::Disconnected { node_id, minimized } => {
                tracing::info!(peer = %node_id.short(), minimized, "disconnected");
                self.peers.remove_if_gone(&node_id);
                if !minimized {
                    self.peers.outbox.connection_ended(&node_id);
                }
                self.meter.clear(&node_id);
            }
            ConnectionEvent::DialFailed { node_id, error } => {
                tracing::debug!(peer = %node_id.short(), %error, "dial failed");
                self.meter.clear(&node_id);
            }
            ConnectionEvent::InboundFailed { address, error, .. } => {
                tracing::debug!(%address, %error, "inbound connection failed");
            }
            ConnectionEvent::Offline => tracing::info!("no peer is connected any more"),
            _ => {}
        }
    }
}

/// Dials configured peers that are not connected, for ever.
pub(crate) async fn keep_connected(transport: Transport, peers: Vec<PeerAddress>) {
    let mut ticks = interval(REDIAL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let missing = peers
            .iter()
            .filter(|peer| transport.connection(&peer.public_key.node_id()).is_none());
        let dials = missing.map(|peer| async {
            if let Err(error) = transport.dial(&peer.public_key, &peer.addresses).await {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(peer = %peer.public_key.short(), error, "configured peer not reached");
            }
        });
        futures::future::join_all(dials).await;
    }
}

/// Bans peers that flood, and removes expired entries from tables.
pub(crate) struct Upkeep {
    pub(crate) shared: Shared,
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
