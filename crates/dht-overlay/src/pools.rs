//! Peers to stay connected to: the neighbour pool and the random pool, specification 06 section 8.
//!
//! The neighbour pool holds the nodes closest to this one, the random pool nodes from anywhere. [`Pools`] is a state machine
//! without I/O: an event and a [`View`] go in, dials and disconnects come out.
//!
//! - A pool that is not full is filled at once. A full one changes by one peer at a time: the nearer peer is dialled while the
//!   farther one stays, and takes its place once it is connected.
//! - A neighbour that was connected for [`TENURE`] counts as tenured; one of those at most is replaced in that time, so that
//!   somebody who makes keys close to this node needs hours to have the pool to himself.
//! - Of one network ([`NetGroup`]) a pool takes a few peers only. Networks within a machine or a house are not counted.
//! - A peer whose connection ends is dialled again once, unless it ended soon or on purpose. A peer whose dial failed is left
//!   alone for a while, longer each time.
//! - Both pools take proven peers first; hearsay is used as long as there is nothing else. Nodes that are nearer by hearsay are
//!   for [feelers](crate::Feelers) to test: what one connects to is a neighbour from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dht_core::{Distance, NodeId};
use dht_peers::{Direction, NetGroup, PeerFilter, PeerRecord};
use rand_core::Rng;
use tokio::time::Instant;

use self::cooldown::{Cooldown, Known};
use crate::{config::Config, view::View};

pub(crate) mod cooldown;
mod pool;

pub use self::pool::{Member, Pool};

/// How long a peer is connected before it counts as tenured, and between replacements of tenured neighbours.
pub const TENURE: Duration = Duration::from_secs(10 * 60);

/// A connection that ends before this says that the peer does not want it.
const SHORT: Duration = Duration::from_secs(20);
/// How long a peer is left alone whose connection this node closed on purpose.
const REST: Duration = Duration::from_secs(60);
/// Connected nodes beyond which old ones that are in no pool are closed (02 section 10), and their age.
const SPARE_CONNECTIONS: usize = 50;
const SPARE_AGE: Duration = Duration::from_secs(20 * 60);
/// Age at which such a connection is closed if connections are to be few.
const MINIMIZED_AGE: Duration = Duration::from_secs(60);

/// Event that the pools take in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// A peer is connected.
    Connected(NodeId),
    /// A peer is no longer connected.
    Disconnected {
        /// Peer that was connected.
        peer: NodeId,
        /// Whether this node closed the connection on purpose.
        minimized: bool,
    },
    /// A dial gave no connection.
    DialFailed {
        /// Peer that was dialled.
        peer: NodeId,
        /// Whether this node's own limits were the reason.
        is_local: bool,
    },
    /// Something else changed: the time, or the directory.
    Changed,
}

/// Action that the pools ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolAction {
    /// Connect to this peer. [`PoolEvent::Connected`] or [`PoolEvent::DialFailed`] follows.
    Dial(NodeId),
    /// Close the connection to this peer, which is in no pool.
    Disconnect(NodeId),
}

/// The neighbour pool and the random pool of one node.
#[derive(Debug)]
pub struct Pools {
    me: NodeId,
    config: Config,
    /// Peers that are dialled only when nobody else is left.
    seeds: BTreeSet<NodeId>,
    /// Seeds that a name stood for, until the node is online.
    found: BTreeSet<NodeId>,
    neighbours: Pool,
    random: Pool,
    /// Dialled to take the place of a farther neighbour.
    challenger: Option<NodeId>,
    /// Dialled to take the place of a random peer.
    successor: Option<NodeId>,
    cooldown: Cooldown,
    /// When a tenured neighbour was replaced last.
    replaced: Option<Instant>,
    /// When the random pool changed last while it was full.
    turned: Option<Instant>,
    /// Connected nodes, and since when.
    connected: BTreeMap<NodeId, Instant>,
    actions: Vec<PoolAction>,
}

/// Where a neighbour would find its place.
enum Place {
    Free,
    Instead(NodeId),
    None,
}

impl Pools {
    /// The empty pools of the node `me`.
    #[must_use]
    pub fn new(me: NodeId, config: &Config, seeds: BTreeSet<NodeId>) -> Self {
        Self {
            me,
            seeds,
            found: BTreeSet::new(),
            neighbours: Pool::new(config.neighbours),
            random: Pool::new(config.random_peers),
            config: config.clone(),
            challenger: None,
            successor: None,
            cooldown: Cooldown::default(),
            replaced: None,
            turned: None,
            connected: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in a seed that a name stands for, which is dialled only when nobody else is left, until the node is online. A
    /// proven peer stays what it is: a name must not keep it out of the pools.
    pub fn on_found(&mut self, seed: NodeId, view: &View<'_>) {
        let known = view.directory.find(&seed);
        if !known.is_some_and(|record| record.is_proven()) {
            self.found.insert(seed);
        }
    }

    /// Takes in that the node is online: seeds that a name stands for are peers as others.
    pub fn on_online(&mut self) {
        self.found.clear();
    }

    /// Takes in an event. The actions are to be done in their order.
    pub fn on(&mut self, event: PoolEvent, view: &View<'_>, rng: &mut impl Rng) -> Vec<PoolAction> {
        self.note_connected(view);
        match event {
            PoolEvent::Connected(peer) => self.on_connected(peer, view, rng),
            PoolEvent::Disconnected { peer, minimized } => {
                self.on_disconnected(peer, minimized, view, rng);
            }
            PoolEvent::DialFailed { peer, is_local } => {
                self.on_dial_failed(peer, is_local, view, rng);
            }
            PoolEvent::Changed => {}
        }
        self.refresh(view, rng);
        std::mem::take(&mut self.actions)
    }

    /// The nodes closest to this one, connected or being dialled.
    #[must_use]
    pub const fn neighbours(&self) -> &Pool {
        &self.neighbours
    }

    /// The nodes from anywhere, connected or being dialled.
    #[must_use]
    pub const fn random(&self) -> &Pool {
        &self.random
    }

    /// Whether a pool has room that nobody known can take.
    #[must_use]
    pub const fn is_starved(&self) -> bool {
        self.neighbours.room() > 0
    }

    /// When [`PoolEvent::Changed`] has something to do even if nothing changed.
    #[must_use]
    pub fn next_timeout(&self, at: Instant) -> Option<Instant> {
        let missing = self.neighbours.room() + self.random.room() > 0;
        let pause = missing.then(|| self.cooldown.next(at)).flatten();
        let turn = self.turned.map(|turned| turned + self.turn_interval());
        [pause, turn].into_iter().flatten().min()
    }

    fn contains(&self, id: &NodeId) -> bool {
        self.neighbours.contains(id) || self.random.contains(id)
    }
}

// --- events ---

impl Pools {
    /// Notes who is connected, and forgives failures of the time in which nobody was.
    fn note_connected(&mut self, view: &View<'_>) {
        let was_alone = self.connected.is_empty();
        self.connected.retain(|id, _| view.connected.contains(id));
        for node in view.connected.nodes() {
            self.connected.entry(node.node_id).or_insert(view.at);
        }
        if was_alone && !self.connected.is_empty() {
            self.cooldown.forgive();
        }
    }

    fn on_connected(&mut self, peer: NodeId, view: &View<'_>, rng: &mut impl Rng) {
        if !self.connected.contains_key(&peer) {
            return;
        }
        self.cooldown.recovered(&peer, view.at, rng);
        self.challenger.take_if(|challenger| *challenger == peer);
        for pool in [&mut self.neighbours, &mut self.random] {
            if let Some(member) = pool.find_mut(&peer) {
                member.since = Some(view.at);
            }
        }
        if self.successor.take_if(|id| *id == peer).is_some() && !self.contains(&peer) {
            let oldest = self.random.members().iter().min_by_key(|m| m.since);
            let oldest = oldest.map(|member| member.id);
            let others = self.random.members().iter().map(|member| member.id);
            let others: Vec<_> = others.filter(|id| Some(*id) != oldest).collect();
            if let Some(id) = pick(&others, rng).copied() {
                self.random.remove(&id);
            }
            if self.random.room() > 0 {
                self.random.insert(self.member(peer, view, Some(view.at)));
            }
        }
    }

    fn on_disconnected(
        &mut self,
        peer: NodeId,
        minimized: bool,
        view: &View<'_>,
        rng: &mut impl Rng,
    ) {
        if view.connected.contains(&peer) {
            return;
        }
        let Some(since) = self.since(&peer) else {
            return;
        };
        if minimized || self.config.minimize_connections {
            self.forget(&peer);
            self.cooldown.lasted(&peer);
            self.cooldown.rest(peer, view.at + REST);
        } else if view.at < since + SHORT {
            self.forget(&peer);
            self.cooldown.failed(peer, Known::Short, view.at, rng);
        } else {
            self.cooldown.lasted(&peer);
            for pool in [&mut self.neighbours, &mut self.random] {
                if let Some(member) = pool.find_mut(&peer) {
                    member.since = None;
                }
            }
            self.actions.push(PoolAction::Dial(peer));
        }
    }

    fn on_dial_failed(
        &mut self,
        peer: NodeId,
        is_local: bool,
        view: &View<'_>,
        rng: &mut impl Rng,
    ) {
        if view.connected.contains(&peer) {
            return;
        }
        self.forget(&peer);
        if is_local {
            self.cooldown.rest(peer, view.at + REST);
        } else {
            self.fail(peer, view, rng);
        }
    }

    fn fail(&mut self, peer: NodeId, view: &View<'_>, rng: &mut impl Rng) {
        let is_proven = |record: &PeerRecord| record.is_proven();
        let known = if view.connected.is_empty() {
            Known::Outage
        } else if view.directory.find(&peer).is_some_and(|it| is_proven(&it)) {
            Known::Proven
        } else {
            Known::HeardOf
        };
        self.cooldown.failed(peer, known, view.at, rng);
    }

    /// Takes a peer out of whatever it is in.
    fn forget(&mut self, peer: &NodeId) {
        self.neighbours.remove(peer);
        self.random.remove(peer);
        self.challenger.take_if(|id| id == peer);
        self.successor.take_if(|id| id == peer);
    }

    /// Whether connections to this peer end soon, so that it is left alone: another process may use the key of this node.
    pub(crate) fn is_short(&self, peer: &NodeId, at: Instant) -> bool {
        self.cooldown.is_short(peer, at)
    }

    /// The nearest node of which this one only heard that would replace a neighbour.
    pub(crate) fn nearer_heard_of(&self, view: &View<'_>) -> Option<NodeId> {
        let exclude = self.untouched(view);
        self.nearer(PeerFilter::heard_of(view.now).exclude(&exclude), view)
    }

    /// Since when a peer of a pool is connected.
    fn since(&self, peer: &NodeId) -> Option<Instant> {
        let members = self.neighbours.members().iter();
        let mut members = members.chain(self.random.members());
        members.find(|member| member.id == *peer)?.since
    }
}

// --- upkeep ---

impl Pools {
    fn refresh(&mut self, view: &View<'_>, rng: &mut impl Rng) {
        self.reconcile(view, rng);
        self.adopt(view);
        self.fill_neighbours(view);
        self.challenge(view);
        self.fill_random(view, rng);
        self.turn(view, rng);
        self.close_spare(view);
    }

    /// Brings the members in step with the connections, of whose events some may be lost, and with the bans.
    fn reconcile(&mut self, view: &View<'_>, rng: &mut impl Rng) {
        let members = self.neighbours.members().iter();
        let members = members.chain(self.random.members());
        let members: Vec<_> = members.map(|member| (member.id, member.since)).collect();
        for (id, since) in members {
            let record = view.directory.find(&id);
            if record.is_some_and(|it| it.is_banned(view.now)) || view.directory.is_allowed(&id) {
                self.forget(&id);
                continue;
            }
            match (since, view.connected.contains(&id)) {
                (None, true) => self.on_connected(id, view, rng),
                (Some(_), false) => self.on_disconnected(id, false, view, rng),
                _ => {}
            }
        }
    }

    /// Takes connected nodes into the neighbour pool that belong there.
    fn adopt(&mut self, view: &View<'_>) {
        let members = self.neighbours.members().iter();
        let exclude: Vec<_> = members.map(|member| member.id).collect();
        let near = view
            .connected
            .closest(&self.me, 4 * self.neighbours.size(), &exclude);
        for node in near {
            let id = node.node_id;
            if view.directory.is_allowed(&id) {
                continue;
            }
            let member = self.member(id, view, Some(view.at));
            match self.place(member.distance, member.network, view.at) {
                Place::None => continue,
                Place::Free => {}
                Place::Instead(other) => self.make_room(&other, view.at),
            }
            self.random.remove(&id);
            self.neighbours.insert(member);
        }
    }

    /// Takes a neighbour out for a nearer one. If it is connected, it may become a random peer.
    fn make_room(&mut self, neighbour: &NodeId, at: Instant) {
        let out = self.neighbours.remove(neighbour);
        let Some(out) = out.filter(|out| out.since.is_some()) else {
            return;
        };
        if is_tenured(&out, at) {
            self.replaced = Some(at);
        }
        if self.random.room() > 0 && self.fits(&self.random, out.network) {
            self.random.insert(out);
        }
    }

    /// Dials the nearest nodes for the room that is left, those first that answered when last dialled.
    fn fill_neighbours(&mut self, view: &View<'_>) {
        while self.neighbours.room() > 0 {
            let exclude = self.untouched(view);
            let of = |filter: PeerFilter<'_>| {
                let fits = |record: &PeerRecord| self.fits(&self.neighbours, view.network(record));
                view.closest(1, None, filter.exclude(&exclude), fits).pop()
            };
            let found =
                of(PeerFilter::reachable(view.now)).or_else(|| of(PeerFilter::everybody(view.now)));
            let Some(record) = found else { return };
            let id = *record.node_id();
            self.neighbours.insert(self.member(id, view, None));
            self.actions.push(PoolAction::Dial(id));
        }
    }

    /// Dials a proven node that is nearer than a neighbour, if there is one.
    fn challenge(&mut self, view: &View<'_>) {
        if self.challenger.is_some() {
            return;
        }
        let exclude = self.untouched(view);
        let proven = PeerFilter::allowed(view.now).exclude(&exclude);
        if let Some(id) = self.nearer(proven, view) {
            self.challenger = Some(id);
            self.actions.push(PoolAction::Dial(id));
        }
    }

    /// The nearest node of `filter` that would replace a neighbour, of a pool that is full.
    fn nearer(&self, filter: PeerFilter<'_>, view: &View<'_>) -> Option<NodeId> {
        let farthest = self.neighbours.members().last()?;
        if self.neighbours.room() > 0 {
            return None;
        }
        let found = view.closest(1, Some(farthest.distance), filter, |record| {
            let distance = self.me.distance(record.node_id());
            let place = self.place(distance, view.network(record), view.at);
            !matches!(place, Place::None)
        });
        Some(*found.first()?.node_id())
    }

    fn fill_random(&mut self, view: &View<'_>, rng: &mut impl Rng) {
        while self.random.room() > 0 {
            let Some(id) = self.draw(view, rng) else {
                return;
            };
            let is_connected = view.connected.contains(&id);
            let since = is_connected.then_some(view.at);
            self.random.insert(self.member(id, view, since));
            self.turned = Some(view.at);
            if !is_connected {
                self.actions.push(PoolAction::Dial(id));
            }
        }
    }

    /// Replaces one random peer when it is time.
    fn turn(&mut self, view: &View<'_>, rng: &mut impl Rng) {
        let is_due = (self.turned).is_some_and(|turned| turned + self.turn_interval() <= view.at);
        if self.successor.is_some() || self.random.room() > 0 || !is_due {
            return;
        }
        self.turned = Some(view.at);
        if let Some(id) = self.draw(view, rng) {
            self.successor = Some(id);
            if view.connected.contains(&id) {
                self.on_connected(id, view, rng);
            } else {
                self.actions.push(PoolAction::Dial(id));
            }
        }
    }

    /// A peer for the random pool: proven if there is one, of a network that is in neither pool if possible.
    fn draw(&self, view: &View<'_>, rng: &mut impl Rng) -> Option<NodeId> {
        let exclude = self.untouched(view);
        let mut drawn = view.random(DRAWN, &exclude, rng);
        if drawn.is_empty() {
            drawn = view.random_heard_of(DRAWN, &exclude, rng);
        }
        drawn.retain(|record| self.fits(&self.random, view.network(record)));
        let is_new = |network: Option<NetGroup>| {
            network.is_none_or(|network| {
                let pools = [&self.neighbours, &self.random];
                pools.iter().all(|pool| pool.of_network(network) == 0)
            })
        };
        let new = drawn.iter().find(|record| is_new(view.network(record)));
        Some(*new.or_else(|| drawn.first())?.node_id())
    }

    /// Closes connections that this node opened, that are in no pool, and of which there are too many.
    fn close_spare(&mut self, view: &View<'_>) {
        let (keep, age) = if self.config.minimize_connections {
            (self.neighbours.size() + self.random.size(), MINIMIZED_AGE)
        } else {
            (SPARE_CONNECTIONS, SPARE_AGE)
        };
        let excess = self.connected.len().saturating_sub(keep);
        let mut spare: Vec<_> = self
            .connected
            .iter()
            .filter(|(id, since)| {
                let entry = view.connected.find(id);
                let record = view.directory.find(id);
                **since + age <= view.at
                    && entry.is_some_and(|entry| entry.direction == Direction::Outbound)
                    && !record.is_some_and(|record| record.is_seed())
                    && !view.directory.is_allowed(id)
                    && !self.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        spare.sort_by_key(|id| std::cmp::Reverse(self.me.distance(id)));
        let closed = spare.into_iter().take(excess);
        self.actions.extend(closed.map(PoolAction::Disconnect));
    }
}

// --- rules ---

impl Pools {
    /// The peers that are not to be dialled: members, peers under way, peers left alone, and seeds.
    fn untouched(&self, view: &View<'_>) -> Vec<NodeId> {
        let members = self.neighbours.members().iter();
        let members = members.chain(self.random.members()).map(|member| member.id);
        let under_way = [self.challenger, self.successor].into_iter().flatten();
        let seeds = self.seeds.union(&self.found).copied();
        let seeds = seeds.filter(|id| !view.connected.contains(id));
        let paused = self.cooldown.peers(view.at);
        let mut all: Vec<_> = members
            .chain(under_way)
            .chain(seeds)
            .chain(paused)
            .collect();
        all.push(self.me);
        all
    }

    fn member(&self, id: NodeId, view: &View<'_>, since: Option<Instant>) -> Member {
        let record = view.directory.find(&id);
        Member {
            id,
            distance: self.me.distance(&id),
            network: record.and_then(|record| view.network(&record)),
            since,
        }
    }

    /// Where a node at this distance would find its place among the neighbours.
    fn place(&self, distance: Distance, network: Option<NetGroup>, at: Instant) -> Place {
        let fits = self.fits(&self.neighbours, network);
        if fits && self.neighbours.room() > 0 {
            return Place::Free;
        }
        let mut members = self.neighbours.members().iter().rev();
        let farthest = if fits {
            members.next()
        } else {
            members.find(|member| member.network == network)
        };
        let may_replace = |member: &&Member| {
            let is_spent = self.replaced.is_some_and(|replaced| at < replaced + TENURE);
            distance < member.distance && !(is_tenured(member, at) && is_spent)
        };
        let farthest = farthest.filter(may_replace);
        farthest.map_or(Place::None, |member| Place::Instead(member.id))
    }

    /// Whether a pool may have one more peer of a network.
    fn fits(&self, pool: &Pool, network: Option<NetGroup>) -> bool {
        network.is_none_or(|network| {
            let most = match network {
                // All host names are one network.
                NetGroup::Name => self.config.max_per_network.max(pool.size() / 2),
                _ => self.config.max_per_network,
            };
            pool.of_network(network) < most
        })
    }

    fn turn_interval(&self) -> Duration {
        let size = u64::try_from(self.random.size()).unwrap_or(u64::MAX).max(1);
        Duration::from_secs((self.config.random_refresh_seconds / size).max(1))
    }
}

/// Peers drawn to find one of a new network.
const DRAWN: usize = 16;

fn is_tenured(member: &Member, at: Instant) -> bool {
    member.since.is_some_and(|since| since + TENURE <= at)
}

fn pick<'a, T>(from: &'a [T], rng: &mut impl Rng) -> Option<&'a T> {
    let count = u64::try_from(from.len()).unwrap_or(u64::MAX);
    let at = rng.next_u64().checked_rem(count)?;
    from.get(usize::try_from(at).ok()?)
}

#[cfg(test)]
mod tests;
