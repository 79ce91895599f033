//! Which peers are asked for peers, and when: the state machine of specification 06 section 7.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use dht_core::{Features, NodeId};
use dht_peers::{FeatureRule, PeerFilter, PeerRecord};
use rand_core::Rng;
use tokio::time::Instant;

use crate::{config::Config, sync::SyncReport, view::View};

/// Pause before peers that were asked already are asked again, while the pools are not full; it doubles up to the idle period.
const FIRST_HURRY: Duration = Duration::from_secs(10);
/// Peers that are remembered as asked.
const MAX_ATTEMPTED: usize = 1_024;

/// Peers that a round, or one peer, brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersAdded {
    /// Peers that were not known before.
    pub new: usize,
    /// Peers that were known.
    pub duplicates: usize,
    /// Peers that answered without an error; after a request on connecting, the number of new peers.
    pub succeeded: usize,
    /// Peers that were asked over a connection.
    pub sync_peers: Vec<NodeId>,
}

/// Next step in the state *ready*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask these peers.
    Begin(Vec<NodeId>),
    /// Wait for the idle period.
    Idle,
    /// Ask those that connect, from now on.
    OnConnect,
}

#[derive(Debug)]
enum State {
    /// Not online yet.
    Initializing,
    Ready,
    Discovering {
        waiting: BTreeSet<NodeId>,
        round: PeersAdded,
    },
    Waiting {
        until: Instant,
    },
    OnConnect,
}

/// Decides which peers are asked in rounds.
#[derive(Debug)]
pub struct NetworkDiscovery {
    config: Config,
    state: State,
    rounds: u32,
    last: Option<PeersAdded>,
    /// Peers that were asked, and when; they are asked again after the idle period (defect N10).
    attempted: BTreeMap<NodeId, Instant>,
    /// Pause before the next round of a node whose pools are not full, and when that ends.
    hurry: Duration,
    hurry_at: Option<Instant>,
}

impl NetworkDiscovery {
    /// A machine that waits until the node is online; without [`Config::sync`] for ever.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            state: State::Initializing,
            rounds: 0,
            last: None,
            attempted: BTreeMap::new(),
            hurry: FIRST_HURRY,
            hurry_at: None,
        }
    }

    /// The node is online.
    pub fn on_online(&mut self, at: Instant) {
        if matches!(self.state, State::Initializing) && self.config.sync {
            let delay = Duration::from_secs(self.config.initial_sync_delay_seconds);
            self.state = State::Waiting { until: at + delay };
        }
    }

    /// Whether peers are asked as soon as they connect: whenever no round is under way.
    #[must_use]
    pub const fn asks_on_connect(&self) -> bool {
        !matches!(self.state, State::Initializing | State::Discovering { .. })
    }

    /// The peers to ask now. A [report](Self::on_synced) for each follows. `is_starved` says that the pools are not full.
    pub fn begin(&mut self, is_starved: bool, view: &View<'_>, rng: &mut impl Rng) -> Vec<NodeId> {
        match &self.state {
            State::Waiting { until } if *until <= view.at => {
                self.state = State::Ready;
                self.hurry_at = None;
            }
            State::Waiting { .. } | State::OnConnect => self.hurry(is_starved, view.at),
            _ => {}
        }
        if !matches!(self.state, State::Ready) {
            return Vec::new();
        }
        match self.decide(view, rng) {
            Decision::Begin(peers) => {
                self.attempt(&peers, view.at);
                self.state = State::Discovering {
                    waiting: peers.iter().copied().collect(),
                    round: PeersAdded::default(),
                };
                peers
            }
            Decision::Idle => {
                self.wait(view.at, self.config.idle_seconds);
                Vec::new()
            }
            Decision::OnConnect => {
                self.state = State::OnConnect;
                Vec::new()
            }
        }
    }

    /// A peer was asked, or could not be. With the last of a round, what the round brought.
    pub fn on_synced(&mut self, report: &SyncReport, at: Instant) -> Option<PeersAdded> {
        let State::Discovering { waiting, round } = &mut self.state else {
            return None;
        };
        if !waiting.remove(&report.peer) {
            return None;
        }
        round.new += report.new;
        round.duplicates += report.duplicates;
        round.succeeded += usize::from(report.is_success());
        if report.was_connected {
            round.sync_peers.push(report.peer);
        }
        if !waiting.is_empty() {
            return None;
        }
        let round = std::mem::take(round);
        if round.succeeded > 0 {
            self.state = State::Ready;
        } else {
            self.wait(at, self.config.failure_idle_seconds);
        }
        self.last = Some(round.clone());
        (round.new > 0).then_some(round)
    }

    /// When [`begin`](Self::begin) may have something to say even if nothing changed.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(self.hurry_at.map_or(until, |at| at.min(until))),
            State::OnConnect => self.hurry_at,
            _ => None,
        }
    }

    /// Section 7.1. The number of rounds grows only in the second case there.
    pub(crate) fn decide(&mut self, view: &View<'_>, rng: &mut impl Rng) -> Decision {
        let fresh = Duration::from_secs(self.config.idle_seconds);
        self.attempted.retain(|_, asked| *asked + fresh > view.at);
        let is_tired = self.rounds >= self.config.idle_after_rounds;
        let peers = if view.directory.len() < self.config.min_desired_peers {
            if is_tired {
                self.rounds = 0;
                return Decision::Idle;
            }
            self.random(view, rng)
        } else if let Some(last) = &self.last {
            self.rounds += 1;
            if last.new == 0 && last.succeeded > 0 {
                self.rounds = 0;
                return Decision::OnConnect;
            }
            if self.rounds >= self.config.idle_after_rounds {
                self.rounds = 0;
                return Decision::Idle;
            }
            if last.new == 0 {
                return Decision::OnConnect;
            }
            self.closest(view)
        } else {
            self.random(view, rng)
        };
        if peers.is_empty() {
            Decision::Idle
        } else {
            Decision::Begin(peers)
        }
    }

    /// Peers at random that were not asked, those that are connected first.
    fn random(&self, view: &View<'_>, rng: &mut impl Rng) -> Vec<NodeId> {
        let exclude: Vec<_> = self.attempted.keys().copied().collect();
        let mut drawn = view.random(4 * self.config.max_sync_peers, &exclude, rng);
        drawn.sort_by_key(|record| !view.connected.contains(record.node_id()));
        diverse(&drawn, self.config.max_sync_peers, view)
    }

    /// The closest active peers that were not asked.
    fn closest(&self, view: &View<'_>) -> Vec<NodeId> {
        let exclude: Vec<_> = self.attempted.keys().copied().collect();
        let filter = PeerFilter::active(view.now)
            .features(FeatureRule::Exactly(Features::NODE))
            .exclude(&exclude);
        let (me, n) = (view.directory.me(), self.config.max_sync_peers);
        diverse(&view.directory.closest(me, 2 * n, &filter), n, view)
    }

    /// A node whose pools are not full does not wait: it asks again those that it asked.
    fn hurry(&mut self, is_starved: bool, at: Instant) {
        if !is_starved {
            (self.hurry, self.hurry_at) = (FIRST_HURRY, None);
            return;
        }
        let due = *self.hurry_at.get_or_insert(at + self.hurry);
        if due <= at {
            let idle = Duration::from_secs(self.config.idle_seconds);
            self.hurry = (self.hurry * 2).min(idle);
            self.hurry_at = None;
            self.attempted.clear();
            self.state = State::Ready;
        }
    }

    fn attempt(&mut self, peers: &[NodeId], at: Instant) {
        self.attempted.extend(peers.iter().map(|peer| (*peer, at)));
        while self.attempted.len() > MAX_ATTEMPTED {
            let oldest = self.attempted.iter().min_by_key(|(_, asked)| **asked);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                return;
            };
            self.attempted.remove(&oldest);
        }
    }

    fn wait(&mut self, at: Instant, seconds: u64) {
        let until = at + Duration::from_secs(seconds);
        self.state = State::Waiting { until };
    }
}

/// Up to `n` of these peers in their order, if possible each of another network and another eighth of the ids, so that no
/// place in the network tells this node all that it knows.
fn diverse(peers: &[Arc<PeerRecord>], n: usize, view: &View<'_>) -> Vec<NodeId> {
    let eighth = |id: &NodeId| id.as_bytes().first().map_or(0, |byte| byte >> 5);
    let (mut networks, mut eighths) = (BTreeSet::new(), BTreeSet::new());
    let mut chosen: Vec<NodeId> = Vec::new();
    for strictness in (0..3).rev() {
        for record in peers {
            let (id, network) = (record.node_id(), view.network(record));
            let is_new_network = network.is_none_or(|network| !networks.contains(&network));
            let is_new = match strictness {
                2 => is_new_network && !eighths.contains(&eighth(id)),
                1 => is_new_network,
                _ => true,
            };
            if chosen.len() < n && is_new && !chosen.contains(id) {
                networks.extend(network);
                eighths.insert(eighth(id));
                chosen.push(*id);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
