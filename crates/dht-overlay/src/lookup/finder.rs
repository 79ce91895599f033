//! Runs lookups over the network.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use dht_core::{Clock as _, Features, NodeId, PublicKey, UnixSeconds};
use dht_peers::{FeatureRule, NetGroup, PeerFilter, PeerRecord, policy::Parties};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared, WeakShared},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};

use super::{Candidate, Lookup, LookupConfig};
use crate::{
    metrics,
    sync::{DEFAULT_TOLD_PEERS, Learner, PeerSyncClient, SyncFailure, SyncReport},
};

/// Time in which a key that was not found is not looked for again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Keys of which it is known that they were not found.
const MAX_FAILED: usize = 256;

/// Time in which a node whose addresses all failed is not dialled because others tell of it.
const OFFLINE_SECONDS: u64 = 10 * 60;

/// The connections over which a [`Finder`] asks.
pub trait SyncNetwork: Send + Sync + 'static {
    /// Stream of the protocol [`PEER_SYNC_PROTOCOL`](crate::sync::PEER_SYNC_PROTOCOL).
    type Stream: AsyncRead + AsyncWrite + Send;

    /// Whether the peer is connected now.
    fn is_connected(&self, peer: &NodeId) -> bool;

    /// Dials a peer of the directory, unless it is connected; whether it then is.
    fn connect(&self, peer: NodeId) -> impl Future<Output = bool> + Send;

    /// Opens a stream on the connection of a peer; `None` if there is none, or the peer does not offer the service.
    fn open(&self, peer: NodeId) -> impl Future<Output = Option<Self::Stream>> + Send;

    /// A lookup has no further use for a connection that [`connect`](Self::connect) made.
    fn release(&self, peer: &NodeId);
}

/// Finds nodes by key or id. Cheap to clone.
///
/// Callers that look for one key share a lookup. None of them fails because another gives up, and a caller that comes while it
/// runs does not begin one of its own.
pub struct Finder<N> {
    shared: Arc<Inner<N>>,
    /// Places for lookups that this handle begins.
    places: Arc<Semaphore>,
}

struct Inner<N> {
    network: N,
    learner: Learner,
    config: LookupConfig,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    running: HashMap<NodeId, WeakShared<Running>>,
    /// Keys that were not found, the oldest first.
    failed: VecDeque<(NodeId, Instant)>,
}

type Running = BoxFuture<'static, Result<(), LookupError>>;

/// Why a lookup did not find a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// No node that was asked knows a claim of the key at which it answers.
    #[error("{asked} nodes do not know it, or not where it answers")]
    NotFound {
        /// Nodes that were asked.
        asked: usize,
    },
    /// It was not found within the last minute.
    #[error("it was not found a moment ago")]
    Repeated,
    /// All places for lookups are in use.
    #[error("too many lookups")]
    TooMany,
}

/// Outcome of asking one node.
enum Answer {
    /// The node that is sought is connected.
    Reached,
    /// Nodes that it told of.
    Told(Vec<Candidate>),
    Failed,
}

// === impl Finder ===

impl<N: SyncNetwork> Finder<N> {
    /// A finder that begins at the peers of the learner's directory, where it enters what it is told, and runs at most `places`
    /// lookups for keys at a time.
    pub fn new(network: N, learner: Learner, config: LookupConfig, places: usize) -> Self {
        Self {
            shared: Arc::new(Inner {
                network,
                learner,
                config,
                table: Mutex::default(),
            }),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// The same lookups, with places of its own for those that this handle begins.
    #[must_use]
    pub fn with_places(&self, places: usize) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// Looks for the holder of `key` and connects to it. Addresses that the directory has are not tried again without news.
    ///
    /// # Errors
    /// [`LookupError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the lookup if no other caller waits for it.
    pub async fn find(&self, key: &PublicKey) -> Result<(), LookupError> {
        let running = self.join(key)?;
        running.await
    }

    /// The nodes closest to an id, among those that answered: nearest first, at most [`k`](LookupConfig::k).
    ///
    /// # Cancel safety
    /// Dropping the future ends the lookup.
    pub async fn closest(&self, target: &NodeId) -> Vec<NodeId> {
        self.shared.run(*target, None).await.1.closest()
    }

    fn join(&self, key: &PublicKey) -> Result<Shared<Running>, LookupError> {
        let (id, now) = (key.node_id(), Instant::now());
        let mut table = self.shared.table.lock();
        if let Some(running) = table.running.get(&id).and_then(WeakShared::upgrade) {
            return Ok(running);
        }
        table.running.retain(|_, other| other.upgrade().is_some());
        while let Some((_, at)) = table.failed.front()
            && now.saturating_duration_since(*at) >= RETRY_AFTER
        {
            table.failed.pop_front();
        }
        if table.failed.iter().any(|(failed, _)| *failed == id) {
            return Err(LookupError::Repeated);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| LookupError::TooMany)?;
        let (shared, key) = (Arc::clone(&self.shared), *key);
        let running = async move {
            let _place = place;
            shared.find(key).await
        };
        let running = running.boxed().shared();
        if let Some(weak) = running.downgrade() {
            table.running.insert(id, weak);
        }
        Ok(running)
    }
}

impl<N> Clone for Finder<N> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            places: Arc::clone(&self.places),
        }
    }
}

impl<N> fmt::Debug for Finder<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl<N: SyncNetwork> Inner<N> {
    async fn find(&self, key: PublicKey) -> Result<(), LookupError> {
        let target = key.node_id();
        let (is_found, lookup) = self.run(target, Some(key)).await;
        metrics::looked_up(is_found, lookup.queries());
        let asked = lookup.queries();
        tracing::debug!(peer = %key.short(), is_found, asked, "lookup ended");
        if is_found {
            return Ok(());
        }
        let mut table = self.table.lock();
        table.failed.push_back((target, Instant::now()));
        if table.failed.len() > MAX_FAILED {
            table.failed.pop_front();
        }
        Err(LookupError::NotFound { asked })
    }

    /// Runs a lookup until it ends or its time is up. With a key, it ends once the holder is connected.
    async fn run(&self, target: NodeId, wanted: Option<PublicKey>) -> (bool, Lookup) {
        let mut lookup = Lookup::new(target, self.config, self.starts(&target));
        let mut opened = Opened {
            network: &self.network,
            peers: BTreeSet::new(),
        };
        let walk = self.walk(&mut lookup, &mut opened, wanted);
        let is_found = timeout(self.config.total, walk).await.unwrap_or(false);
        drop(opened);
        (is_found, lookup)
    }

    async fn walk(
        &self,
        lookup: &mut Lookup,
        opened: &mut Opened<'_, N>,
        wanted: Option<PublicKey>,
    ) -> bool {
        let target = *lookup.target();
        let mut asks = FuturesUnordered::new();
        loop {
            while let Some(peer) = lookup.next(Instant::now()) {
                if !self.network.is_connected(&peer) {
                    opened.peers.insert(peer);
                }
                asks.push(async move {
                    let asked = timeout(self.config.query, self.ask(peer, target, wanted)).await;
                    (peer, asked.unwrap_or(Answer::Failed))
                });
            }
            let now = Instant::now();
            let slow = lookup.next_slow(now);
            let (peer, answer) = tokio::select! {
                biased;
                answered = asks.next() => match answered {
                    Some(answered) => answered,
                    None => return false,
                },
                () = sleep_until(slow.unwrap_or(now)), if slow.is_some() => continue,
            };
            match answer {
                Answer::Reached => {
                    opened.peers.remove(&target);
                    return true;
                }
                Answer::Told(closer) => {
                    if closer.iter().any(|told| told.id == target) {
                        lookup.renew(&target);
                    }
                    lookup.answered(&peer, closer);
                }
                Answer::Failed => lookup.failed(&peer),
            }
        }
    }

    /// The connected and the proven nodes closest to the target.
    fn starts(&self, target: &NodeId) -> Vec<Candidate> {
        let (directory, now) = (&self.learner.directory, self.learner.clock.now());
        let without = [*target];
        let nodes = FeatureRule::Exactly(Features::NODE);
        let filter = PeerFilter::reachable(now).features(nodes).exclude(&without);
        let proven = directory.closest(target, self.config.k, &filter);
        let connected = directory.connections().snapshot();
        let connected = connected.closest(target, self.config.k, &without);
        let connected = connected
            .iter()
            .filter_map(|peer| directory.find(&peer.node_id));
        let starts = connected.chain(proven).map(|peer| candidate(&peer));
        starts.collect()
    }

    async fn ask(&self, peer: NodeId, target: NodeId, wanted: Option<PublicKey>) -> Answer {
        if !self.network.connect(peer).await {
            return Answer::Failed;
        }
        if wanted.is_some() && peer == target {
            return Answer::Reached;
        }
        match self.ask_connected(peer, &target, wanted.is_some()).await {
            Ok(told) => Answer::Told(told),
            Err(failure) => {
                if let SyncFailure::Offence(offence) = failure {
                    self.learner.bans.report(offence, Parties::peer(peer));
                }
                Answer::Failed
            }
        }
    }

    async fn ask_connected(
        &self,
        peer: NodeId,
        target: &NodeId,
        is_wanted: bool,
    ) -> Result<Vec<Candidate>, SyncFailure> {
        let learner = &self.learner;
        let stream = self.network.open(peer).await.ok_or(SyncFailure::Session)?;
        let client = PeerSyncClient::connect(Box::pin(stream)).await;
        let mut client = client.map_err(|_| SyncFailure::Session)?;
        let (before, mut report) = (self.signed_at(target), SyncReport::of(peer));
        let closer = self.closer(&mut client, target, is_wanted, &mut report);
        let told = match closer.await {
            // A stock node of version 6 tells of peers from anywhere; the lookup takes the nearest.
            Err(SyncFailure::Unsupported) => {
                let n = u32::try_from(DEFAULT_TOLD_PEERS).unwrap_or(u32::MAX);
                learner.some(&mut client, n, is_wanted, &mut report).await?
            }
            closer => closer?,
        };
        let has_news = self.signed_at(target) > before;
        let (directory, now) = (&learner.directory, learner.clock.now());
        let known = told.iter().filter_map(|id| directory.find(id));
        let worth = known.filter(|peer| match peer.node_id() == target {
            true => has_news,
            false => peer.features().is_node() && !is_offline(peer, now),
        });
        let worth = worth.filter(|peer| !peer.is_banned(now) && !peer.addresses().is_empty());
        Ok(worth.map(|peer| candidate(&peer)).collect())
    }

    /// Asks for the nodes closest to the target, and for the target itself if it is wanted.
    async fn closer(
        &self,
        client: &mut PeerSyncClient<impl AsyncRead + AsyncWrite>,
        target: &NodeId,
        is_wanted: bool,
        report: &mut SyncReport,
    ) -> Result<Vec<NodeId>, SyncFailure> {
        let (learner, mut told) = (&self.learner, Vec::new());
        if is_wanted {
            // It may be a client, of which a node is not told otherwise.
            told = learner.closer(client, target, 1, true, report).await?;
        }
        let k = self.config.k;
        told.extend(learner.closer(client, target, k, false, report).await?);
        Ok(told)
    }

    /// When the newest claim of a peer was signed.
    fn signed_at(&self, peer: &NodeId) -> Option<i64> {
        let peer = self.learner.directory.find(peer)?;
        Some(peer.claim()?.signature.updated_at())
    }
}

/// Whether all addresses of a peer failed a short while ago.
fn is_offline(peer: &PeerRecord, now: UnixSeconds) -> bool {
    let since = peer.offline_since();
    since.is_some_and(|since| now.saturating_since(since) < OFFLINE_SECONDS)
}

fn candidate(peer: &PeerRecord) -> Candidate {
    // Anybody may be behind an address that is not public; a proven peer is where it was seen.
    let network = match peer.network() {
        network if peer.is_proven() => network,
        _ => {
            let address = peer.addresses().first().map(|held| &held.address);
            let public = address.filter(|address| address.is_public());
            public.map_or(NetGroup::Unknown, NetGroup::of_address)
        }
    };
    Candidate {
        id: *peer.node_id(),
        network,
    }
}

/// Connections that a lookup makes, and releases at its end.
struct Opened<'a, N: SyncNetwork> {
    network: &'a N,
    peers: BTreeSet<NodeId>,
}

impl<N: SyncNetwork> Drop for Opened<'_, N> {
    fn drop(&mut self) {
        for peer in &self.peers {
            self.network.release(peer);
        }
    }
}
