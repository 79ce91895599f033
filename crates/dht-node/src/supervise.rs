//! The tasks of a node: each is owned here, none outlives the node.

use std::{sync::Arc, time::Duration};

use dht_core::{Clock as _, PeerAddress, Severity, SharedClock};
use dht_inbound::{DedupTable, FloodMeter};
use dht_peers::{Channel, Connections, Directory, PeerRecord};
use dht_transport::{Connection, Direction, Event, Transport};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// How often a configured peer that is not connected is dialled.
const REDIAL_INTERVAL: Duration = Duration::from_secs(10);

/// How often floods are looked for and tables are trimmed (specification 03, section 5).
const UPKEEP_INTERVAL: Duration = Duration::from_secs(120);

/// The tasks of one node, aborted when dropped.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().spawn(task);
    }

    /// Ends every task that has not ended by itself within `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        tasks.abort_all();
        let ended = async { while tasks.join_next().await.is_some() {} };
        // A task can only be late by one message's arithmetic.
        let _late = timeout(limit, ended).await;
    }
}

/// Keeps directory and connection table in step with the transport.
pub(crate) struct Watcher {
    pub(crate) transport: Transport,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) meter: FloodMeter,
    pub(crate) clock: SharedClock,
    /// Rung by the directory at each ban.
    pub(crate) banned: Arc<Notify>,
}

impl Watcher {
    pub(crate) async fn run(self, mut events: mpsc::Receiver<Event>) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                () = self.banned.notified() => self.drop_banned(),
            }
        }
    }

    fn on_event(&self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Connected { connection, .. } => self.on_connected(&connection),
            Event::Disconnected { node_id, minimized } => {
                tracing::info!(peer = %node_id.short(), minimized, "disconnected");
                self.connections.remove(&node_id);
                self.meter.clear(&node_id);
            }
            Event::Offence {
                public_key,
                offence,
                ban,
            } => {
                let until = now.saturating_add(ban.as_secs());
                let reason = offence.to_string();
                self.directory
                    .ban(public_key, until, Severity::High, &reason, now);
            }
            Event::DialFailed { node_id, error } => {
                tracing::debug!(peer = %node_id.short(), %error, "dial failed");
                self.meter.clear(&node_id);
            }
            Event::InboundFailed { address, error, .. } => {
                tracing::debug!(%address, %error, "inbound connection failed");
            }
            Event::Offline => tracing::info!("no peer is connected any more"),
            _ => {}
        }
    }

    fn on_connected(&self, connection: &Connection) {
        let now = self.clock.now();
        let (peer, info) = (connection.peer(), connection.info());
        let record = PeerRecord::from_claim(
            peer.public_key,
            Arc::clone(&info.claim),
            Channel::Connection,
            now,
        )
        .with_agent(&info.user_agent, info.protocols.iter().cloned());
        self.directory.add_or_update(record, now);
        let direction = match connection.direction() {
            Direction::Inbound => dht_peers::Direction::Inbound,
            Direction::Outbound => dht_peers::Direction::Outbound,
        };
        tracing::info!(peer = %peer.node_id.short(), ?direction, "connected");
        self.connections.insert(Arc::clone(peer), direction);
        // It may have been banned between the handshake and now.
        if self.directory.is_banned(&peer.node_id, now) {
            self.transport.disconnect(&peer.node_id);
        }
    }

    fn drop_banned(&self) {
        let now = self.clock.now();
        for connection in self.transport.connections() {
            if self.directory.is_banned(connection.node_id(), now) {
                self.transport.disconnect(connection.node_id());
            }
        }
    }
}

/// Dials the configured peers until they are connected, and again when they are lost.
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
                tracing::warn!(peer = %peer.public_key.short(), %error, "configured peer not reached");
            }
        });
        futures::future::join_all(dials).await;
    }
}

/// Bans floods and forgets what is out of date.
pub(crate) struct Upkeep {
    pub(crate) directory: Directory,
    pub(crate) meter: FloodMeter,
    pub(crate) dedup: Arc<DedupTable>,
    pub(crate) clock: SharedClock,
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
        let now = self.clock.now();
        for flooder in self.meter.exceeding(now) {
            let peer = flooder.node_id;
            let until = now.saturating_add(Severity::Low.default_seconds());
            self.directory
                .ban(peer, until, Severity::Low, "message flood", now);
        }
        self.meter.prune(now);
        self.dedup.trim(now);
    }
}
