//! Which peers a message goes to: specification 04, section 3. Pure: the same peers, seed and time give the same choice.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use dht_core::{Destination, Distance, NodeId, RemotePeer, SourceGroup, Strategy, UnixSeconds};
use dht_peers::{ConnectedPeers, Directory, FeatureRule, PeerFilter};
use rand_core::Rng;

use crate::config::{PropagationRule, SelectConfig};
pub use layer::{Select, SelectLayer, Selected};

mod layer;

/// Connected nodes of one source group that a message towards its destination goes to at most.
const NODES_PER_SOURCE: usize = 2;

/// The peers chosen for a message and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    strategy: &'static str,
    chosen: Vec<Chosen>,
    is_broadcast: bool,
    /// Whether this node itself was asked for and left out.
    left_out_self: bool,
}

/// A peer chosen as recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Node id of the chosen peer.
    pub node_id: NodeId,
    /// Reason of the choice.
    pub why: Why,
}

/// Why a peer was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The strategy names it and it is known.
    Named,
    /// The strategy lists it; nothing was checked.
    Listed,
    /// It is the destination, and connected.
    ConnectedDestination,
    /// A connected node, like all others.
    Connected,
    /// A connected node, drawn at random.
    ConnectedAtRandom,
    /// A known node, drawn at random.
    KnownAtRandom,
    /// One of the connected nodes nearest to the target.
    ConnectedNearby(Distance),
    /// One of the known peers nearest to the target; has to be dialled.
    KnownNearby(Distance),
}

/// Input of a selection.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// This node; never chosen.
    pub me: &'a NodeId,
    /// The peers connected now.
    pub connected: &'a ConnectedPeers,
    /// Peers that are known, connected or not.
    pub directory: &'a Directory,
    /// The time, for bans.
    pub now: UnixSeconds,
}

/// Chooses the peers for a strategy.
///
/// Specification 04, section 3.
///
/// # Panics
/// Never.
#[must_use]
pub fn select(
    strategy: &Strategy,
    candidates: Candidates<'_>,
    config: &SelectConfig,
    rng: &mut impl Rng,
) -> Selection {
    let Candidates {
        me,
        connected,
        directory,
        now,
    } = candidates;
    let mut chosen = match strategy {
        Strategy::DirectNodeId(id) => named(*id, candidates),
        Strategy::DirectPublicKey(key) => {
            let id = key.node_id();
            let connected = connected.find(&id);
            let connected = connected.map(|entry| *entry.peer.public_key.compressed());
            let known = || directory.find(&id).map(|peer| *peer.public_key());
            match connected.or_else(known) {
                Some(other) if other != *key.compressed() => Vec::new(),
                _ => named(id, candidates),
            }
        }
        Strategy::Flood { exclude } => {
            let exclude: HashSet<_> = exclude.iter().collect();
            let nodes = connected
                .nodes()
                .iter()
                .filter(|node| !exclude.contains(&node.node_id));
            nodes
                .map(|node| chosen(node.node_id, Why::Connected))
                .collect()
        }
        Strategy::Broadcast { exclude } => {
            at_random(connected, config.broadcast_factor, exclude, rng)
        }
        Strategy::Random { n, exclude } => {
            let filter = PeerFilter::reachable(now)
                .features(FeatureRule::Exactly(dht_core::Features::NODE))
                .exclude(exclude);
            let peers = directory.random((*n).min(config.max_dialled), &filter, rng);
            peers
                .iter()
                .map(|peer| chosen(*peer.node_id(), Why::KnownAtRandom))
                .collect()
        }
        Strategy::SelectedPeers(ids) => {
            let ids = ids.iter().take(config.max_dialled);
            ids.map(|id| chosen(*id, Why::Listed)).collect()
        }
        Strategy::ClosestNodes {
            target,
            exclude,
            connected_only,
        } => closest(target, exclude, *connected_only, candidates, config),
        Strategy::DirectOrClosestNodes {
            target,
            exclude,
            connected_only,
        } => {
            if connected.contains(target) {
                vec![chosen(*target, Why::ConnectedDestination)]
            } else {
                closest(target, exclude, *connected_only, candidates, config)
            }
        }
        Strategy::Propagate {
            destination,
            exclude,
        } => match destination {
            Destination::Unknown => at_random(connected, config.propagation_factor, exclude, rng),
            Destination::PublicKey(key) => towards(&key.node_id(), exclude, candidates, config),
        },
    };
    let before = chosen.len();
    chosen.retain(|peer| peer.node_id != *me);
    let left_out_self = chosen.len() < before;
    let is_broadcast = is_multi_message(strategy, &chosen);
    Selection {
        strategy: strategy.name(),
        chosen,
        is_broadcast,
        left_out_self,
    }
}

/// Whether copies of the message may come back from others, so that this node should recognise its own.
///
/// True for every strategy that chooses among many, unless the choice fell on the destination alone.
fn is_multi_message(strategy: &Strategy, chosen: &[Chosen]) -> bool {
    match strategy {
        Strategy::DirectNodeId(_) | Strategy::DirectPublicKey(_) | Strategy::SelectedPeers(_) => {
            false
        }
        Strategy::DirectOrClosestNodes { target, .. } => {
            !matches!(chosen, [only] if only.node_id == *target)
        }
        Strategy::Flood { .. }
        | Strategy::Random { .. }
        | Strategy::ClosestNodes { .. }
        | Strategy::Broadcast { .. }
        | Strategy::Propagate { .. } => true,
    }
}

const fn chosen(node_id: NodeId, why: Why) -> Chosen {
    Chosen { node_id, why }
}

/// The peer of this id if it is connected or known. A connected peer is found even if the directory has lost it; this
/// node is not in its own directory, but to name it is a mistake worth telling from an unknown peer.
fn named(
    id: NodeId,
    Candidates {
        me,
        connected,
        directory,
        now,
    }: Candidates<'_>,
) -> Vec<Chosen> {
    let is_known = connected.contains(&id) || directory.contains(&id) || id == *me;
    if is_known && !directory.is_banned(&id, now) {
        vec![chosen(id, Why::Named)]
    } else {
        Vec::new()
    }
}

fn at_random(
    connected: &ConnectedPeers,
    n: usize,
    exclude: &[NodeId],
    rng: &mut impl Rng,
) -> Vec<Chosen> {
    let nodes = connected.random(n, exclude, rng);
    nodes
        .iter()
        .map(|node| chosen(node.node_id, Why::ConnectedAtRandom))
        .collect()
}

/// The connected nodes closest to an id and, if some may be dialled, at least 2 known ones.
fn closest(
    target: &NodeId,
    exclude: &[NodeId],
    connected_only: bool,
    Candidates {
        connected,
        directory,
        now,
        ..
    }: Candidates<'_>,
    config: &SelectConfig,
) -> Vec<Chosen> {
    let nodes = connected.closest(target, config.broadcast_factor, exclude);
    let mut peers: Vec<_> = nodes.iter().map(|node| nearby(node, target)).collect();
    if connected_only {
        return peers;
    }
    let more = config.broadcast_factor.saturating_sub(peers.len()).max(2);
    let mut exclude = exclude.to_vec();
    exclude.extend(peers.iter().map(|peer| peer.node_id));
    let filter = PeerFilter::reachable(now)
        .features(FeatureRule::Contains(
            dht_core::Features::MESSAGE_PROPAGATION,
        ))
        .exclude(&exclude);
    peers.extend(directory.closest(target, more, &filter).iter().map(|peer| {
        let id = *peer.node_id();
        chosen(id, Why::KnownNearby(id.distance(target)))
    }));
    peers
}

/// To the destination itself if it is connected, otherwise to the connected nodes nearest to it.
fn towards(
    destination: &NodeId,
    exclude: &[NodeId],
    Candidates { me, connected, .. }: Candidates<'_>,
    config: &SelectConfig,
) -> Vec<Chosen> {
    if connected.contains(destination) && !exclude.contains(destination) {
        return vec![chosen(*destination, Why::ConnectedDestination)];
    }
    let nearest = connected.nearest(destination, exclude);
    let mut nodes = spread(nearest, config.neighbouring_nodes);
    nodes.sort_by_cached_key(|node| node.node_id.distance(destination));
    let ours = me.distance(destination);
    match config.propagation {
        PropagationRule::Legacy if nodes.len() >= config.propagation_factor => {
            nodes.retain(|node| node.node_id.distance(destination) <= ours);
        }
        PropagationRule::Legacy => (),
        PropagationRule::PreferCloser => {
            // Nearest first, so the closer ones are at the front.
            let closer = nodes.partition_point(|node| node.node_id.distance(destination) < ours);
            if closer > 0 {
                let other = outside_of_only_source(&nodes, closer).cloned();
                nodes.truncate(closer);
                nodes.extend(other);
            }
        }
    }
    nodes.truncate(config.propagation_factor);
    nodes.iter().map(|node| nearby(node, destination)).collect()
}

/// The first `n` nodes, of each source group no more than [`NODES_PER_SOURCE`] as long as there are others, however far: keys
/// near any destination are free, so that few groups would otherwise take every copy. Nodes that count for no group have no
/// limit.
fn spread<'a>(
    nearest: impl Iterator<Item = &'a Arc<RemotePeer>>,
    n: usize,
) -> Vec<Arc<RemotePeer>> {
    let mut taken = HashMap::<SourceGroup, usize>::new();
    let (mut within, mut over) = (Vec::with_capacity(n), Vec::new());
    for node in nearest {
        if within.len() >= n {
            break;
        }
        let is_over = node.source.is_some_and(|group| {
            let taken = taken.entry(group).or_default();
            *taken += 1;
            *taken > NODES_PER_SOURCE
        });
        if !is_over {
            within.push(Arc::clone(node));
        } else if over.len() < n {
            over.push(Arc::clone(node));
        }
    }
    within.extend(over);
    within.truncate(n);
    within
}

/// The nearest of the nodes behind the first `closer` ones that is of another source group, if those all are of one.
fn outside_of_only_source(nodes: &[Arc<RemotePeer>], closer: usize) -> Option<&Arc<RemotePeer>> {
    let (near, far) = nodes.split_at_checked(closer)?;
    let group = near.first()?.source?;
    let is_of_group = |node: &Arc<RemotePeer>| node.source == Some(group);
    (near.iter().all(is_of_group)).then(|| far.iter().find(|node| !is_of_group(node)))?
}

fn nearby(node: &RemotePeer, target: &NodeId) -> Chosen {
    chosen(
        node.node_id,
        Why::ConnectedNearby(node.node_id.distance(target)),
    )
}

// === impl Selection ===

impl Selection {
    /// The chosen peers, in the order of the rule.
    #[must_use]
    pub fn chosen(&self) -> &[Chosen] {
        &self.chosen
    }

    /// The ids of the chosen peers.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.chosen.iter().map(|peer| peer.node_id).collect()
    }

    /// Number of chosen peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// True if no peer was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Whether copies of the message may come back from others ("multi message").
    #[must_use]
    pub const fn is_broadcast(&self) -> bool {
        self.is_broadcast
    }

    /// Whether this node was the only one asked for.
    #[must_use]
    pub fn only_ourselves(&self) -> bool {
        self.left_out_self && self.chosen.is_empty()
    }

    /// The choice in words, a line for each peer.
    #[must_use]
    pub fn explain(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} chosen", self.strategy, self.len())?;
        if self.left_out_self {
            f.write_str(", this node itself left out")?;
        }
        self.chosen
            .iter()
            .try_for_each(|peer| write!(f, "\n  {}: {}", peer.node_id, peer.why))
    }
}

// === impl Why ===

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("named by the request"),
            Self::Listed => f.write_str("listed by the request"),
            Self::ConnectedDestination => f.write_str("the destination, connected"),
            Self::Connected => f.write_str("connected node"),
            Self::ConnectedAtRandom => f.write_str("connected node, drawn at random"),
            Self::KnownAtRandom => f.write_str("known node, drawn at random"),
            Self::ConnectedNearby(distance) => {
                write!(
                    f,
                    "connected node near the target (bucket {})",
                    distance.bucket()
                )
            }
            Self::KnownNearby(distance) => {
                write!(
                    f,
                    "known peer near the target (bucket {}), to be dialled",
                    distance.bucket()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
