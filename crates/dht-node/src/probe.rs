//! Visits the nodes of a network, from a few on, by asking each for the peers that it tells of.

mod crawl;

use std::{sync::Arc, time::Duration};

use dht_core::{Address, Clock as _, Features, PeerAddress, PublicKey, UnixSeconds};
use dht_overlay::sync::{
    AnnouncedPeer, MAX_TOLD_PEERS, PEER_SYNC_PROTOCOL, PeerSyncClient, SyncError,
};
use dht_peers::validate_claims;
use dht_transport::{Connection, DialError, StreamError};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};

use self::crawl::Crawl;
use crate::node::Node;

/// Time in which a node tells of peers. What it told of by then counts.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// How far a [probe](Node::probe) goes.
#[derive(Clone, Copy, Debug)]
pub struct ProbeLimits {
    /// Most nodes that are visited or listed.
    pub peers: usize,
    /// Nodes that are visited at a time.
    pub at_once: usize,
    /// Longest time of the probe; nodes that were not visited by then are listed as such.
    pub time: Duration,
}

/// How far a [probe](Node::probe) has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeProgress {
    /// Nodes that are known.
    pub known: usize,
    /// Nodes that were visited or are not reached.
    pub visited: usize,
    /// Nodes that were reached.
    pub reached: usize,
}

/// Findings of a [probe](Node::probe).
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Nodes in the order in which they became known, the seeds first.
    pub peers: Vec<ProbedPeer>,
    /// Whether there was room for every node that was told of.
    pub is_complete: bool,
}

/// A node that a [probe](Node::probe) found.
#[derive(Clone, Debug)]
pub struct ProbedPeer {
    /// Key of the node.
    pub public_key: PublicKey,
    /// Addresses that it is said to have signed.
    pub addresses: Vec<Address>,
    /// Nodes that told of it.
    pub told_by: usize,
    /// Outcome of the visit.
    pub visit: ProbeVisit,
}

/// Outcome of the visit of a node.
#[derive(Clone, Debug)]
pub enum ProbeVisit {
    /// There was no time.
    NotVisited,
    /// It was not reached.
    Failed(DialError),
    /// It answered.
    Reached(ReachedPeer),
}

/// Answer of a node that was visited.
#[derive(Clone, Debug)]
pub struct ReachedPeer {
    /// Its software, as it says.
    pub user_agent: Arc<str>,
    /// Features that it offers.
    pub features: Features,
    /// Time at which it signed its claim, by its own clock.
    pub claimed_at: UnixSeconds,
    /// Time until the connection was there.
    pub dial_time: Duration,
    /// Places in [`ProbeReport::peers`] of the nodes that it told of.
    pub tells_of: Vec<usize>,
    /// Why it did not tell of all.
    pub failure: Option<ProbeFailure>,
}

/// Why a node that was reached did not tell of all its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// It does not offer the peer-sync service.
    #[error("tells of no peers")]
    NotOffered,
    /// The connection or the session ended.
    #[error("the session ended")]
    Session,
    /// It told of more peers than it was asked for.
    #[error("told of too many peers")]
    TooMany,
    /// It did not answer in time.
    #[error("did not tell of all peers in time")]
    TimedOut,
}

impl Node {
    /// Visits the nodes of the network: dials the seeds and, over each connection, asks for peers, which are visited in turn. Calls
    /// `progress` whenever a visit has ended.
    ///
    /// Each node is visited once, and its connection closed unless there was one before. What nodes tell enters no directory; the
    /// probed ones do, as any peer that connects. Meant for a node that is there only for the probe.
    ///
    /// # Cancel safety
    /// Dropping the future ends the probe; dials under way go on.
    pub async fn probe(
        &self,
        seeds: &[PeerAddress],
        limits: ProbeLimits,
        mut progress: impl FnMut(ProbeProgress),
    ) -> ProbeReport {
        let mut crawl = Crawl::new(*self.public_key(), seeds, limits.peers);
        let mut visits = FuturesUnordered::new();
        let mut end = std::pin::pin!(sleep(limits.time));
        loop {
            while visits.len() < limits.at_once
                && let Some((place, peer)) = crawl.next()
            {
                visits.push(async move { (place, self.visit(peer).await) });
            }
            progress(crawl.progress());
            tokio::select! {
                biased;
                () = &mut end => break,
                visited = visits.next() => match visited {
                    Some((place, Ok((reached, told)))) => {
                        crawl.reached(place, reached, told, |peer| self.valid(peer));
                    }
                    Some((place, Err(error))) => crawl.failed(place, error),
                    None => break,
                },
            }
        }
        drop(visits);
        crawl.finish()
    }

    /// Connects to a node and asks it for peers.
    async fn visit(
        &self,
        peer: PeerAddress,
    ) -> Result<(ReachedPeer, Vec<AnnouncedPeer>), DialError> {
        let id = peer.public_key.node_id();
        let was_connected = self.transport.connection(&id).is_some();
        let start = Instant::now();
        let dial = self.transport.dial(&peer.public_key, &peer.addresses);
        let connection = dial.await?;
        let dial_time = start.elapsed();
        let mut told = Vec::new();
        let asked = timeout(ASK_LIMIT, ask(&connection, &mut told)).await;
        let failure = asked.unwrap_or(Err(ProbeFailure::TimedOut)).err();
        if !was_connected {
            self.transport.disconnect(&id);
        }
        let info = connection.info();
        let claimed_at = u64::try_from(info.claim.signature.updated_at()).unwrap_or(0);
        let reached = ReachedPeer {
            user_agent: Arc::clone(&info.user_agent),
            features: info.claim.features,
            claimed_at: UnixSeconds(claimed_at),
            dial_time,
            tells_of: Vec::new(),
            failure,
        };
        Ok((reached, told))
    }

    /// A peer that a node told of, if it signed its claims, with the addresses that this node may dial.
    fn valid(&self, peer: AnnouncedPeer) -> Option<PeerAddress> {
        let (policy, now) = (&self.connection_mirror.claims, self.shared.clock.now());
        let key = peer.public_key;
        let valid = validate_claims(&key, peer.claims, None, policy, now).ok()?;
        Some(PeerAddress {
            public_key: key,
            addresses: valid.addresses().to_vec(),
        })
    }
}

/// Asks a connected node for as many nodes as one answer holds.
async fn ask(connection: &Connection, told: &mut Vec<AnnouncedPeer>) -> Result<(), ProbeFailure> {
    let stream = connection.open(&PEER_SYNC_PROTOCOL).await;
    let stream = stream.map_err(|error| match error {
        StreamError::NotSupported => ProbeFailure::NotOffered,
        _ => ProbeFailure::Session,
    })?;
    let client = PeerSyncClient::connect(stream).await;
    let mut client = client.map_err(|_| ProbeFailure::Session)?;
    let most = u32::try_from(MAX_TOLD_PEERS).unwrap_or(u32::MAX);
    let peers = client.peers(most, false).await;
    let mut peers = peers.map_err(|_| ProbeFailure::Session)?;
    loop {
        match peers.next().await {
            Ok(Some(peer)) => told.push(peer),
            Ok(None) => return Ok(()),
            Err(SyncError::Call(_)) => return Err(ProbeFailure::Session),
            Err(SyncError::TooMany { .. }) => return Err(ProbeFailure::TooMany),
            // Others may follow.
            Err(_) => {}
        }
    }
}
