//! The tasks of a node: each is owned here, none outlives the node.

use std::{sync::Arc, time::Duration};

use dht_core::{Clock as _, PeerAddress, Severity, SharedClock};
use dht_inbound::{Bans, DedupTable, DirectoryBans, FloodMeter};
use dht_transport::{Event, Transport};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::roster::Roster;

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

/// Acts on what the transport reports.
pub(crate) struct Watcher {
    pub(crate) roster: Roster,
    pub(crate) meter: FloodMeter,
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
                () = self.banned.notified() => self.roster.drop_banned(),
            }
        }
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Connected {
                connection,
                replaced,
            } => {
                self.roster.enter(&connection);
                if replaced {
                    self.roster.replaced(&connection);
                }
            }
            Event::Disconnected { node_id, minimized } => {
                tracing::info!(peer = %node_id.short(), minimized, "disconnected");
                self.roster.remove_if_gone(&node_id);
                self.meter.clear(&node_id);
            }
            Event::Offence {
                public_key,
                offence,
                ban,
            } => {
                let now = self.roster.clock.now();
                let until = now.saturating_add(ban.as_secs());
                let reason = offence.to_string();
                self.roster
                    .directory
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
    pub(crate) bans: Bans<DirectoryBans<SharedClock>>,
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
        self.bans.report_floods(&self.meter, now);
        self.meter.prune(now);
        self.dedup.trim(now);
    }
}
