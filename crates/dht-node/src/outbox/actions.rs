//! Actions of attempts: deliver here, send copies, choose holders, search, ask for receipts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dht_core::{
    Clock as _, DedupHash, DeliveryError, Features, NodeId, PublicKey, SendRequest, Strategy,
    UnixSeconds,
};
use dht_outbound::{Connector, Discover as _, Outbound, SearchCause, SelectConfig, SendError};
use dht_peers::{ConnectedPeers, Directory, FeatureRule, NetGroup, PeerFilter};
use dht_transport::{Connection, Transport};
use tokio::time::{Instant, sleep};

use super::{
    OutboxShared,
    event::{Answer, CopyOutcome, SendingEvent},
    sealed::SealedFrame,
};
#[cfg(feature = "saf")]
use crate::saf::receipt::ReceiptAskers;
use crate::{
    adapters::ToApplication,
    context::NodeContext,
    discovery::{Dialler, Discoveries},
};

/// Time a connection must be old for a stock peer to have taken its streams.
const YOUNG: Duration = Duration::from_millis(500);

/// Nodes of one network group among the holders of a message, if others are known.
const HOLDERS_PER_GROUP: usize = 2;

/// Nodes looked at for each holder that is chosen, so that one network group does not hide the others; as many times more if
/// few groups hold all of them.
const CANDIDATES: usize = 8;

/// Nodes after which no more are looked at.
const MAX_CANDIDATES: usize = 4096;

/// Parts of the node that the worker uses.
#[derive(Clone)]
pub(crate) struct WorkerParts {
    pub(crate) node: NodeContext,
    pub(crate) transport: Transport,
    pub(crate) outbound: Outbound,
    pub(crate) discoveries: Discoveries,
    /// Finds and dials recipients whose known addresses do not answer.
    pub(crate) connector: Connector<Dialler>,
    pub(crate) select: SelectConfig,
    pub(crate) application: ToApplication,
    #[cfg(feature = "saf")]
    pub(crate) receipts: ReceiptAskers,
}

/// Does what attempts ask for; each answer is the event that it brings about.
#[derive(Clone)]
pub(super) struct Actions {
    pub(super) parts: WorkerParts,
    shared: Arc<OutboxShared>,
}

impl Actions {
    pub(super) const fn new(parts: WorkerParts, shared: Arc<OutboxShared>) -> Self {
        Self { parts, shared }
    }

    pub(super) fn is_connected(&self, peer: &NodeId) -> bool {
        self.parts.transport.connection(peer).is_some()
    }

    /// Whether a peer is written to more slowly than there are messages, because it bans fast senders.
    pub(super) fn is_paced(&self, peer: &NodeId) -> bool {
        self.parts.transport.is_paced(peer)
    }

    /// Hands a message of this node to itself to the application.
    pub(super) async fn deliver_locally(self, sealed: SealedFrame) -> SendingEvent {
        let hash = sealed.hash;
        let Some(received) = sealed.open(&self.parts.node) else {
            return SendingEvent::Local(false);
        };
        SendingEvent::Local(self.parts.application.deliver_own(received, hash).await)
    }

    /// Sends a copy to the recipient, if it is known.
    pub(super) async fn send_direct(
        self,
        to: PublicKey,
        sealed: SealedFrame,
        wait: Duration,
    ) -> SendingEvent {
        pause(wait).await;
        let peer = to.node_id();
        if self.parts.node.directory.find(&peer).is_none() {
            return SendingEvent::Direct(CopyOutcome::Unknown);
        }
        let copy = self
            .send(Strategy::DirectPublicKey(to), &sealed, &peer)
            .await;
        if matches!(copy, CopyOutcome::Unconfirmed(_)) {
            self.linger_for(&peer);
        }
        SendingEvent::Direct(copy)
    }

    /// The nodes closest to the recipient, at most `most`.
    pub(super) fn choose_holders(
        &self,
        target: NodeId,
        mut except: Vec<NodeId>,
        most: usize,
        sealed: &SealedFrame,
    ) -> Vec<NodeId> {
        except.push(target);
        let node = &self.parts.node;
        let now = node.clock.now();
        // Copies may come back.
        node.dedup.seed(&sealed.hash, sealed.meta, now);
        let connected = node.connections.snapshot();
        closest_nodes(&target, most, &except, &connected, &node.directory, now)
    }

    pub(super) async fn send_to_holder(
        self,
        holder: NodeId,
        sealed: SealedFrame,
        wait: Duration,
    ) -> SendingEvent {
        pause(wait).await;
        let strategy = Strategy::SelectedPeers(vec![holder]);
        SendingEvent::Holder(holder, self.send(strategy, &sealed, &holder).await)
    }

    /// Searches for a recipient whose known addresses do not answer. It appears when it is found and dialled.
    pub(super) async fn search_stale(self, to: PublicKey) {
        let peer = to.node_id();
        if self.is_connected(&peer) || self.parts.node.directory.find(&peer).is_none() {
            return;
        }
        // The next attempt tells whether it was reached.
        let _found = self.parts.connector.discover(to).await;
    }

    pub(super) async fn ask(self, peer: NodeId, hash: DedupHash, wait: Duration) -> SendingEvent {
        pause(wait).await;
        SendingEvent::Receipt(peer, self.parts.ask(&peer, hash).await)
    }

    /// Pings a peer over the connection that carried a copy; one that has ended does not answer.
    pub(super) async fn ping(self, peer: NodeId, connection: u64) -> SendingEvent {
        let current = self.parts.transport.connection(&peer);
        let carrier = current.filter(|current| current.id() == connection);
        SendingEvent::Answers(match carrier {
            Some(carrier) => carrier.answers().await,
            None => false,
        })
    }

    /// Sends one copy and waits until a socket took it.
    async fn send(&self, strategy: Strategy, sealed: &SealedFrame, peer: &NodeId) -> CopyOutcome {
        let request = SendRequest::sealed(sealed.frame.clone(), strategy, sealed.tag);
        let sent = match self.parts.outbound.send(request).await {
            Ok(deliveries) => deliveries.wait_single_result().await,
            Err(SendError::Full | SendError::TimedOut) => return CopyOutcome::NoRoom,
            Err(SendError::NobodySelected) => {
                return CopyOutcome::Failed("the peer is not known, or is banned".to_owned());
            }
            Err(error) => return CopyOutcome::Failed(error.to_string()),
        };
        match sent {
            Ok(()) => match self.parts.transport.connection(peer) {
                None => CopyOutcome::Lost,
                Some(connection) if gives_receipts(&connection) => CopyOutcome::Written,
                Some(connection) => CopyOutcome::Unconfirmed(connection.id()),
            },
            Err(DeliveryError::Dropped | DeliveryError::Expired) => CopyOutcome::NoRoom,
            Err(failure) => CopyOutcome::Failed(failure.to_string()),
        }
    }

    /// Searches for a recipient that is not known, if not too many are being searched for.
    pub(super) async fn find_recipient(self, to: PublicKey, cause: SearchCause) -> SendingEvent {
        let found = self.parts.discoveries.for_cause(cause).discover(&to).await;
        SendingEvent::Found(found.map_err(|error| format!("recipient not found: {error}")))
    }

    /// A stock peer takes a stream only while its own table has the connection, which is so a moment after it is made.
    fn linger_for(&self, peer: &NodeId) {
        let age = self
            .parts
            .transport
            .connection(peer)
            .map(|connection| connection.age());
        if let Some(left) = age.and_then(|age| YOUNG.checked_sub(age)) {
            let until = Instant::now() + left;
            let mut linger = self.shared.linger.lock();
            *linger = Some(linger.map_or(until, |before| before.max(until)));
        }
    }
}

/// Whether the peer answers when it is asked for a receipt.
#[cfg(feature = "saf")]
fn gives_receipts(connection: &Connection) -> bool {
    let protocols = &connection.info().protocols;
    protocols.contains(&dht_saf::RECEIPT_PROTOCOL)
}

#[cfg(not(feature = "saf"))]
const fn gives_receipts(_connection: &Connection) -> bool {
    false
}

impl WorkerParts {
    #[cfg(feature = "saf")]
    async fn ask(&self, peer: &NodeId, hash: DedupHash) -> Answer {
        use dht_saf::Receipt;
        match self.receipts.ask(peer, hash).await {
            Some(Receipt::Received) => Answer::Received,
            Some(Receipt::Stored) => Answer::Stored,
            Some(Receipt::Neither) => Answer::Neither,
            None => Answer::Silent,
        }
    }

    #[cfg(not(feature = "saf"))]
    async fn ask(&self, _peer: &NodeId, _hash: DedupHash) -> Answer {
        Answer::Silent
    }
}

/// Of the connected and the known nodes, those closest to an id, at most `most`.
///
/// Keys are free, and ids close to a recipient can be ground: more than [`HOLDERS_PER_GROUP`] nodes of one network group come
/// after all others.
fn closest_nodes(
    target: &NodeId,
    most: usize,
    except: &[NodeId],
    connected: &ConnectedPeers,
    directory: &Directory,
    now: UnixSeconds,
) -> Vec<NodeId> {
    let filter = PeerFilter::reachable(now)
        .features(FeatureRule::Contains(Features::MESSAGE_PROPAGATION))
        .exclude(except);
    let group_of = |node: &NodeId| {
        let known = directory.find(node);
        known.map_or(NetGroup::Unknown, |peer| peer.network())
    };
    // A network in which nodes were tried already comes after the others.
    let tried = except.iter().filter(|node| *node != target);
    let tried = tried.map(group_of);
    let tried: HashMap<_, _> = tried.map(|group| (group, HOLDERS_PER_GROUP)).collect();
    let mut candidates = most.saturating_add(except.len()).saturating_mul(CANDIDATES);
    loop {
        let connected = connected.closest(target, candidates, except);
        let known = directory.closest(target, candidates, &filter);
        let are_all = connected.len() < candidates && known.len() < candidates;
        let connected = connected.iter().map(|node| node.node_id);
        let known = known.iter().map(|peer| *peer.node_id());
        let mut nodes: Vec<_> = connected.chain(known).collect();
        nodes.sort_by_key(|node| node.distance(target));
        nodes.dedup();
        let mut of_group = tried.clone();
        let (mut chosen, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| {
            let group = group_of(node);
            let chosen = of_group.entry(group).or_default();
            *chosen += 1;
            group == NetGroup::Unknown || *chosen <= HOLDERS_PER_GROUP
        });
        if chosen.len() >= most || are_all || candidates >= MAX_CANDIDATES {
            chosen.extend(others);
            chosen.truncate(most);
            return chosen;
        }
        // The nearest are of few groups: those behind them are looked at, too.
        candidates = candidates.saturating_mul(CANDIDATES);
    }
}

/// Waits; not at all for a time of zero, which a timer rounds up to a millisecond.
async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{
        Address, RemotePeer,
        test_util::{NOW, public_key},
    };
    use dht_peers::{Connections, Direction, PeerRecord};

    use super::*;

    /// Connected nodes are not preferred to closer ones that have to be dialled, and each is chosen once.
    #[test]
    fn closest_nodes_store_the_copies() {
        let id = |seed| public_key(seed).node_id();
        let (target, except) = (id(100), id(4));
        let (connections, directory) = (Connections::new(), Directory::new(id(0)));
        for seed in 1..=20 {
            let known = PeerRecord::seed(
                public_key(seed),
                Features::NODE,
                [Address::memory(seed)],
                NOW,
            );
            directory.add_or_update(known, NOW);
            if seed % 2 == 0 {
                let peer = RemotePeer::new(public_key(seed), Features::NODE);
                connections.insert(Arc::new(peer), Direction::Outbound);
            }
        }
        let mut expected: Vec<_> = (1..=20).map(id).filter(|node| *node != except).collect();
        expected.sort_by_key(|node| node.distance(&target));
        let connected = connections.snapshot();
        for most in [1, 3, 8, 30] {
            let nodes = closest_nodes(&target, most, &[except], &connected, &directory, NOW);
            assert_eq!(nodes, expected[..most.min(19)]);
        }
    }

    /// Ids ground around a recipient in one network group do not keep the copies from everybody else.
    #[test]
    fn holders_come_from_several_groups() {
        let target = public_key(300).node_id();
        let mut keys: Vec<_> = (1..=208).map(public_key).collect();
        keys.sort_by_key(|key| key.node_id().distance(&target));
        let directory = Directory::new(public_key(0).node_id());
        for (at, key) in keys.iter().enumerate() {
            let network = if at < 200 {
                NetGroup::V4([6, 6])
            } else {
                NetGroup::Unknown
            };
            let record = PeerRecord::new(*key, Features::NODE, NOW);
            directory.authenticated(record, network, NOW);
        }
        let nodes = |most| {
            let connected = Connections::new().snapshot();
            closest_nodes(&target, most, &[], &connected, &directory, NOW)
        };
        let ids = |at: &[usize]| -> Vec<_> { at.iter().map(|at| keys[*at].node_id()).collect() };
        assert_eq!(nodes(4), ids(&[0, 1, 200, 201]));
        assert_eq!(
            nodes(11),
            ids(&[0, 1, 200, 201, 202, 203, 204, 205, 206, 207, 2])
        );
        // A group in which a node refused comes last.
        let tried = [keys[0].node_id(), target];
        let connected = Connections::new().snapshot();
        let next = closest_nodes(&target, 1, &tried, &connected, &directory, NOW);
        assert_eq!(next, ids(&[200]));
    }
}
