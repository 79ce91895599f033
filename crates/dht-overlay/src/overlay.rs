//! The cores put together: one state machine, which performs no I/O and reads no clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dht_core::NodeId;
use rand_core::Rng;
use tokio::time::Instant;

use crate::{
    bootstrap::{Bootstrap, BootstrapPeers},
    config::Config,
    density::Density,
    feeler::Feelers,
    join::JoinTimer,
    metrics,
    network_discovery::{NetworkDiscovery, PeersAdded},
    on_connect::SyncOnConnect,
    pace::Pace,
    pools::{Pool, PoolAction, PoolEvent, Pools},
    status::{Status, low_ipv4_share},
    sync::{Ask, DEFAULT_TOLD_PEERS, SyncFailure, SyncReport},
    view::View,
};

/// Time between two dials once those at the start are spent.
const DIAL_EVERY: Duration = Duration::from_secs(1);

/// Event that the overlay takes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayEvent {
    /// A peer is connected. That is seen from the [`View`] as well, if the event is lost.
    Connected(NodeId),
    /// A peer is no longer connected.
    Disconnected {
        /// Peer that was connected.
        peer: NodeId,
        /// Whether this node closed the connection on purpose.
        minimized: bool,
    },
    /// A dial has ended.
    Dialled {
        /// Peer that was dialled.
        peer: NodeId,
        /// Its outcome.
        outcome: DialOutcome,
    },
    /// A peer was asked for peers, or could not be.
    Synced(SyncReport),
    /// A join was sent, or could not be.
    Joined {
        /// Whether it was sent.
        was_sent: bool,
    },
    /// A name of seeds was looked up; no seeds if that failed.
    Found(Vec<NodeId>),
    /// This node has other addresses.
    AddressChanged,
    /// Time has passed.
    Tick,
}

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialOutcome {
    /// The peer is connected.
    Connected,
    /// The peer did not answer, or not as it must.
    Failed,
    /// This node's own limits refused the dial.
    Refused,
}

impl DialOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Action that the overlay asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayAction {
    /// Connect to this peer. [`OverlayEvent::Dialled`] follows.
    Dial(NodeId),
    /// Close the connection to this peer, which nobody needs.
    Disconnect(NodeId),
    /// Ask this connected peer for peers. [`OverlayEvent::Synced`] follows.
    Sync(NodeId, Ask),
    /// Send a join. [`OverlayEvent::Joined`] follows.
    Join,
    /// Look up a name of seeds and enter these in the directory. [`OverlayEvent::Found`] follows.
    LookUp(String),
    /// Tell the application.
    Notify(Notice),
}

/// News for an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The node got online, degraded or offline.
    Status(Status),
    /// Peers told of peers that were not known.
    PeersAdded(PeersAdded),
    /// The nodes closest to this one are closer than chance explains, by this factor: somebody may have made keys to
    /// surround it.
    Crowded {
        /// How much closer they are than those of others are to them.
        factor: u64,
    },
}

/// Whether a node is in the network, and whom it stays connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether enough nodes are connected.
    pub status: Status,
    /// Connected nodes of the neighbour pool, nearest first.
    pub neighbours: Vec<NodeId>,
    /// Connected nodes of the random pool, nearest first.
    pub random: Vec<NodeId>,
    /// Whether the nodes closest to this one are closer than chance explains.
    pub is_crowded: bool,
}

/// Choice of the peers of a node, of those asked for others, and of the time of joins. An event and a [`View`] go in, actions
/// come out; time and randomness are given.
///
/// Dials are paced: after those that fill the pools at the start, one a second.
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    status: Status,
    pools: Pools,
    discovery: NetworkDiscovery,
    on_connect: SyncOnConnect,
    join: JoinTimer,
    bootstrap: Bootstrap,
    feelers: Feelers,
    density: Density,
    /// Whether the crowd around this node was reported.
    is_crowded: bool,
    /// Peers that are to be dialled, in this order.
    waiting: VecDeque<NodeId>,
    /// Peers that are dialled now.
    dialling: BTreeSet<NodeId>,
    /// Peers that are asked once they are connected.
    syncs: BTreeMap<NodeId, Ask>,
    pace: Pace,
    next_look: Instant,
    actions: VecDeque<OverlayAction>,
}

impl Overlay {
    /// The overlay of the node `me`, which has just started.
    #[must_use]
    pub fn new(me: NodeId, config: &Config, bootstrap_peers: BootstrapPeers, at: Instant) -> Self {
        let burst = config.neighbours + config.random_peers + config.max_sync_peers;
        Self {
            status: Status::default(),
            pools: Pools::new(me, config, bootstrap_peers.seeds.iter().copied().collect()),
            discovery: NetworkDiscovery::new(config),
            on_connect: SyncOnConnect::new(config),
            join: JoinTimer::new(config),
            bootstrap: Bootstrap::new(bootstrap_peers),
            feelers: Feelers::new(config),
            density: Density::default(),
            is_crowded: false,
            waiting: VecDeque::new(),
            dialling: BTreeSet::new(),
            syncs: BTreeMap::new(),
            pace: Pace::new(DIAL_EVERY, u32::try_from(burst).unwrap_or(u32::MAX), at),
            next_look: at,
            actions: VecDeque::new(),
            config: config.clone(),
        }
    }

    /// Takes in an event, and decides what follows from it and from the time.
    pub fn on(&mut self, event: OverlayEvent, view: &View<'_>, rng: &mut impl Rng) {
        self.update_status(view, rng);
        let pool_event = self.take_in(event, view, rng);
        self.update_pools(pool_event, view, rng);
        self.update_syncs(view, rng);
        if self.join.take(view.at) {
            self.actions.push_back(OverlayAction::Join);
        }
        if self.status.is_online() {
            let nearer = self.pools.nearer_heard_of(view);
            if let Some(peer) = self.feelers.dial(nearer, view, rng) {
                self.dial(peer, view);
            }
        }
        while let Some(peer) = self.feelers.done(view.at) {
            if !self.is_wanted(&peer) {
                self.actions.push_back(OverlayAction::Disconnect(peer));
            }
        }
        if self.next_look <= view.at {
            self.look(view);
        }
        self.release_dials(view.at);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<OverlayAction> {
        self.actions.pop_front()
    }

    /// When [`OverlayEvent::Tick`] is due.
    #[must_use]
    pub fn next_timeout(&self, at: Instant) -> Instant {
        let dial = (!self.waiting.is_empty()).then(|| self.pace.next());
        let timeouts = [
            Some(self.next_look),
            self.pools.next_timeout(at),
            self.discovery.next_timeout(),
            self.on_connect
                .next_timeout(at)
                .filter(|_| self.discovery.asks_on_connect()),
            self.join.next_timeout(),
            self.bootstrap.next_timeout(),
            self.feelers.next_timeout(),
            dial.flatten(),
        ];
        // A machine that has nothing to say yet is not asked again at once.
        let soonest = at + Duration::from_millis(100);
        let next = timeouts.into_iter().flatten().min();
        next.unwrap_or(self.next_look).max(soonest)
    }

    /// Whether the node is in the network, and whom it stays connected to.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let connected = |pool: &Pool| {
            let members = pool.members().iter();
            let connected = members.filter(|member| member.since.is_some());
            connected.map(|member| member.id).collect()
        };
        Summary {
            status: self.status,
            neighbours: connected(self.pools.neighbours()),
            random: connected(self.pools.random()),
            is_crowded: self.is_crowded,
        }
    }

    fn is_wanted(&self, peer: &NodeId) -> bool {
        let pools = [self.pools.neighbours(), self.pools.random()];
        pools.iter().any(|pool| pool.contains(peer))
    }
}

impl Overlay {
    fn update_status(&mut self, view: &View<'_>, rng: &mut impl Rng) {
        if let Some(status) = self.status.update(view, self.config.min_connected) {
            self.notify(Notice::Status(status));
        }
        let is_online = self.status.is_online();
        self.join.on_status(is_online, view.at, rng);
        if is_online {
            self.discovery.on_online(view.at);
            self.bootstrap.on_online();
            self.pools.on_online();
        }
    }

    /// Event for the pools that follows; the other machines take the event in here.
    fn take_in(&mut self, event: OverlayEvent, view: &View<'_>, rng: &mut impl Rng) -> PoolEvent {
        match event {
            OverlayEvent::Connected(peer) => return PoolEvent::Connected(peer),
            OverlayEvent::Disconnected { peer, minimized } => {
                return PoolEvent::Disconnected { peer, minimized };
            }
            OverlayEvent::Dialled { peer, outcome } => {
                return self.on_dialled(peer, outcome, view, rng);
            }
            OverlayEvent::Synced(report) => self.on_synced(&report, view),
            OverlayEvent::Joined { was_sent } => self.join.on_joined(was_sent, view.at, rng),
            OverlayEvent::Found(seeds) => {
                for seed in seeds {
                    if self.bootstrap.on_found(seed) {
                        self.pools.on_found(seed, view);
                    }
                }
            }
            OverlayEvent::AddressChanged => self.join.on_address_changed(view.at, rng),
            OverlayEvent::Tick => {}
        }
        PoolEvent::Changed
    }

    fn on_dialled(
        &mut self,
        peer: NodeId,
        outcome: DialOutcome,
        view: &View<'_>,
        rng: &mut impl Rng,
    ) -> PoolEvent {
        metrics::dialled(outcome.name());
        self.dialling.remove(&peer);
        match outcome {
            DialOutcome::Connected => self.feelers.on_connected(&peer, view.at),
            DialOutcome::Failed => self.feelers.on_failed(&peer, view.at, rng),
            DialOutcome::Refused => self.feelers.on_refused(&peer),
        }
        let ask = self.syncs.remove(&peer);
        match (ask, outcome) {
            (Some(ask), DialOutcome::Connected) => {
                self.actions.push_back(OverlayAction::Sync(peer, ask));
            }
            (Some(_), _) => {
                let failure = Some(SyncFailure::Session);
                let report = SyncReport {
                    failure,
                    ..SyncReport::of(peer)
                };
                self.on_synced(&report, view);
            }
            (None, _) => {}
        }
        match outcome {
            DialOutcome::Connected => PoolEvent::Connected(peer),
            DialOutcome::Failed | DialOutcome::Refused => PoolEvent::DialFailed {
                peer,
                is_local: outcome == DialOutcome::Refused,
            },
        }
    }

    fn on_synced(&mut self, report: &SyncReport, view: &View<'_>) {
        metrics::learned(report.new, report.duplicates);
        if let Some(around) = report.around {
            self.density.add(report.peer, around);
        }
        let of_round = self.discovery.on_synced(report, view.at);
        let of_peer = self.on_connect.on_synced(report, view.at);
        for added in [of_round, of_peer].into_iter().flatten() {
            self.notify(Notice::PeersAdded(added));
        }
    }

    fn update_pools(&mut self, event: PoolEvent, view: &View<'_>, rng: &mut impl Rng) {
        for action in self.pools.on(event, view, rng) {
            match action {
                PoolAction::Dial(peer) => self.dial(peer, view),
                PoolAction::Disconnect(peer) => {
                    self.actions.push_back(OverlayAction::Disconnect(peer));
                }
            }
        }
        let neighbours = self.pools.neighbours();
        metrics::pools(neighbours.connected(), self.pools.random().connected());
        let is_thin = self.pools.is_starved() && neighbours.connected() * 2 < neighbours.size();
        let needs_peers = !self.status.is_online() || is_thin;
        self.bootstrap.on_need(needs_peers, view);
        for peer in self.bootstrap.dials(view, rng) {
            if !self.pools.is_short(&peer, view.at) {
                self.dial(peer, view);
            }
        }
        let names = self.bootstrap.names(view, rng).into_iter();
        self.actions.extend(names.map(OverlayAction::LookUp));
    }

    fn update_syncs(&mut self, view: &View<'_>, rng: &mut impl Rng) {
        let ask = Ask {
            peers: self.config.max_peers_per_round,
            include_clients: true,
            closest: true,
        };
        for peer in self.discovery.begin(self.pools.is_starved(), view, rng) {
            if view.connected.contains(&peer) {
                self.actions.push_back(OverlayAction::Sync(peer, ask));
            } else {
                self.syncs.insert(peer, ask);
                self.dial(peer, view);
            }
        }
        if self.discovery.asks_on_connect()
            && let Some(peer) = self.on_connect.ask(view)
        {
            let ask = Ask {
                peers: u32::try_from(DEFAULT_TOLD_PEERS).unwrap_or(u32::MAX),
                include_clients: false,
                closest: false,
            };
            self.actions.push_back(OverlayAction::Sync(peer, ask));
        }
    }

    /// Checks made now and then.
    fn look(&mut self, view: &View<'_>) {
        self.next_look = view.at + Duration::from_secs(self.config.update_seconds);
        if let Some(percent) = low_ipv4_share(view, self.config.min_ipv4_percent) {
            tracing::warn!(percent, "few connected nodes have an IPv4 address");
        }
        let suspicion = self.density.suspicion(view);
        if let Some(factor) = suspicion.filter(|_| !self.is_crowded) {
            tracing::warn!(
                factor,
                "the nodes closest to this one are closer than chance explains: keys may have been made to surround it"
            );
            self.notify(Notice::Crowded { factor });
        }
        self.is_crowded = suspicion.is_some();
        metrics::crowded(self.is_crowded);
    }

    fn dial(&mut self, peer: NodeId, view: &View<'_>) {
        if view.connected.contains(&peer) {
            return;
        }
        if !self.dialling.contains(&peer) && !self.waiting.contains(&peer) {
            self.waiting.push_back(peer);
        }
    }

    fn release_dials(&mut self, at: Instant) {
        while !self.waiting.is_empty() && self.pace.take(at) {
            if let Some(peer) = self.waiting.pop_front() {
                self.dialling.insert(peer);
                self.actions.push_back(OverlayAction::Dial(peer));
            }
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.actions.push_back(OverlayAction::Notify(notice));
    }
}

#[cfg(test)]
mod tests;
