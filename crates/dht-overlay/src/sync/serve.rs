//! Tells peers of peers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{Claim, Features, NodeId, SharedClock, SharedEntropy, SourceGroup, UnixSeconds};
use dht_peers::{Directory, FeatureRule, PeerFilter, PeerRecord};
use dht_proto::{
    dht_rpc::{
        GetCloserPeersRequest, GetPeersRequest, GetPeersResponse, PeerIdentityClaim, PeerInfo,
    },
    limits::MAX_EXCLUDED_PEERS,
};
use dht_rpc::{Router, Server, ServerConfig, Status};
use dht_stack::TokenBuckets;
use futures::{Stream, stream};
use rand_core::Rng as _;
use tokio::time::{Instant, sleep_until};

use super::{
    DEFAULT_TOLD_PEERS, GET_CLOSER_PEERS, GET_PEERS, MAX_REQUEST_BYTES, MAX_TOLD_PEERS,
    NETWORK_RATE, PEER_RATE, SyncCaller,
};
use crate::metrics;

/// Time for the first response to a request, and for all of them. A longer wait would let one peer keep its sessions busy.
const REPLY_LIMIT: Duration = Duration::from_secs(2 * 60);
/// Peers and source groups whose rate is remembered; more than can be connected.
const MAX_RATES: usize = 4_096;

/// A server of the peer-sync service that tells of the proven peers of this directory. Each of its sessions takes at most
/// [`SESSION_BYTES`](super::SESSION_BYTES).
///
/// ```
/// use std::sync::Arc;
/// # use dht_core::{ManualClock, SeededEntropy, UnixSeconds};
/// use dht_core::{Features, NodeId};
/// use dht_overlay::sync::{PeerSyncClient, peer_sync_server};
/// use dht_peers::Directory;
/// use futures::{StreamExt as _, stream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (clock, entropy) = (Arc::new(ManualClock::new(UnixSeconds(0))), Arc::new(SeededEntropy::new(1)));
/// let server = peer_sync_server(Directory::new(NodeId::default()), clock, entropy, 100);
/// let (near, far) = tokio::io::duplex(1024);
/// let caller = dht_rpc::Caller { peer: NodeId::default(), source: None };
/// let serving = tokio::spawn(server.serve(stream::iter([(caller, far)]).chain(stream::pending())));
///
/// let mut client = PeerSyncClient::connect(near).await?;
/// let mut peers = client.peers(10, false).await?;
/// assert!(peers.next().await?.is_none());
/// # serving.abort();
/// # Ok(())
/// # }
/// ```
pub fn peer_sync_server(
    directory: Directory,
    clock: SharedClock,
    entropy: SharedEntropy,
    max_sessions: usize,
) -> Server<Router<SyncCaller>> {
    let service = Arc::new(SyncService::new(directory, clock, entropy));
    let closer = Arc::clone(&service);
    let router = Router::new()
        .streaming(GET_CLOSER_PEERS, move |caller, request| {
            let service = Arc::clone(&closer);
            async move { service.closer_peers(caller, request).await }
        })
        .streaming(GET_PEERS, move |caller, request| {
            let service = Arc::clone(&service);
            async move { service.peers(caller, request).await }
        });
    let config = ServerConfig {
        max_sessions,
        max_request_bytes: MAX_REQUEST_BYTES,
        max_deadline: REPLY_LIMIT,
        reply_limit: REPLY_LIMIT,
        ..ServerConfig::default()
    };
    Server::new(router, config)
}

struct SyncService {
    directory: Directory,
    clock: SharedClock,
    entropy: SharedEntropy,
    /// Peers told to each peer, and to each source group.
    peers: TokenBuckets<NodeId>,
    networks: TokenBuckets<SourceGroup>,
    /// The second 0 of the buckets.
    start: Instant,
}

/// Claims that a request asks for.
#[derive(Clone, Copy)]
struct Wanted {
    claims: usize,
    addresses: usize,
}

// === impl SyncService ===

impl SyncService {
    fn new(directory: Directory, clock: SharedClock, entropy: SharedEntropy) -> Self {
        let seed = || {
            let mut seed = [0; 16];
            entropy.rng().fill_bytes(&mut seed);
            seed
        };
        Self {
            peers: TokenBuckets::new([PEER_RATE], MAX_RATES, seed()),
            networks: TokenBuckets::new([NETWORK_RATE], MAX_RATES, seed()),
            start: Instant::now(),
            directory,
            clock,
            entropy,
        }
    }

    async fn closer_peers(
        &self,
        caller: SyncCaller,
        request: GetCloserPeersRequest,
    ) -> Result<impl Stream<Item = Result<GetPeersResponse, Status>> + use<>, Status> {
        let n = match to_usize(request.n) {
            0 => return Err(Status::bad_request("n is 0")),
            n if n > DEFAULT_TOLD_PEERS => return Err(Status::bad_request("n is over 100")),
            n => n,
        };
        let wanted = Wanted::new(request.max_claims, request.max_addresses_per_claim)?;
        let target = match &*request.closer_to {
            [] => caller.peer,
            id => node_id(id)?,
        };
        if request.excluded.len() > MAX_EXCLUDED_PEERS {
            return Err(Status::bad_request("more than 1000 peers are excluded"));
        }
        let excluded = request.excluded.iter().map(|id| node_id(id));
        let mut excluded = excluded.collect::<Result<Vec<_>, _>>()?;
        excluded.push(caller.peer);
        self.take(&caller, n).await;
        let now = self.clock.now();
        let filter = filter(now, request.include_clients, &excluded);
        let found = self.directory.closest(&target, n, &filter);
        Ok(responses(found, wanted, now, "get_closer_peers"))
    }

    async fn peers(
        &self,
        caller: SyncCaller,
        request: GetPeersRequest,
    ) -> Result<impl Stream<Item = Result<GetPeersResponse, Status>> + use<>, Status> {
        let wanted = Wanted::new(request.max_claims, request.max_addresses_per_claim)?;
        let n = match to_usize(request.n) {
            0 => DEFAULT_TOLD_PEERS,
            n => n.min(MAX_TOLD_PEERS),
        };
        self.take(&caller, n).await;
        let now = self.clock.now();
        let excluded = [caller.peer];
        let filter = filter(now, request.include_clients, &excluded);
        let mut rng = self.entropy.rng();
        let found = self.directory.random(n, &filter, &mut rng);
        Ok(responses(found, wanted, now, "get_peers"))
    }

    /// Takes the room to tell this peer of `n` others, and waits for it as long as there is none.
    async fn take(&self, caller: &SyncCaller, n: usize) {
        let tokens = u32::try_from(n.min(self.directory.len())).unwrap_or(u32::MAX);
        let mut is_delayed = false;
        loop {
            let now = self.start.elapsed().as_secs();
            // Charging nothing tells when there is room again.
            let network = |tokens| {
                let network = caller.source.as_ref()?;
                self.networks.charge(network, 0, tokens, now)
            };
            let peer = |tokens| self.peers.charge(&caller.peer, 0, tokens, now);
            let Some(until) = peer(0).max(network(0)) else {
                let _ = (peer(tokens), network(tokens));
                return;
            };
            if !is_delayed {
                is_delayed = true;
                metrics::delayed();
            }
            sleep_until(self.start + Duration::from_secs(until)).await;
        }
    }
}

// === impl Wanted ===

impl Wanted {
    fn new(max_claims: u32, max_addresses: u32) -> Result<Self, Status> {
        if max_claims == 0 {
            return Err(Status::bad_request("max_claims is 0"));
        }
        if max_addresses == 0 {
            return Err(Status::bad_request("max_addresses_per_claim is 0"));
        }
        Ok(Self {
            claims: to_usize(max_claims),
            addresses: to_usize(max_addresses),
        })
    }

    /// The peer with its claims, those of its best addresses first and each once; `None` if it has no claim that is wanted.
    fn info(self, record: &PeerRecord, now: UnixSeconds) -> Option<PeerInfo> {
        let mut claims = Vec::new();
        for address in record.dial_order(now) {
            // An address that the operator named may be one that its owner signed.
            let signed = |claim: &&Arc<Claim>| claim.addresses.contains(&address.address);
            let Some(claim) = address.claim().or_else(|| record.claim().filter(signed)) else {
                continue;
            };
            if claims.len() < self.claims
                && claim.addresses.len() <= self.addresses
                && !claims.contains(&claim)
            {
                claims.push(claim);
            }
        }
        let claims: Vec<_> = claims
            .into_iter()
            .map(|claim| PeerIdentityClaim {
                addresses: claim
                    .addresses
                    .iter()
                    .map(|address| Bytes::copy_from_slice(address.as_bytes()))
                    .collect(),
                peer_features: claim.features.bits(),
                identity_signature: Some((&claim.signature).into()),
            })
            .collect();
        (!claims.is_empty()).then(|| PeerInfo {
            public_key: Bytes::copy_from_slice(record.public_key().as_bytes()),
            claims,
        })
    }
}

/// Proven peers seen in the last 7 days.
fn filter(now: UnixSeconds, include_clients: bool, excluded: &[NodeId]) -> PeerFilter<'_> {
    let rule = if include_clients {
        FeatureRule::Any
    } else {
        FeatureRule::Exactly(Features::NODE)
    };
    PeerFilter::active(now).features(rule).exclude(excluded)
}

/// One response a peer, made when it is sent.
fn responses(
    found: Vec<Arc<PeerRecord>>,
    wanted: Wanted,
    now: UnixSeconds,
    method: &'static str,
) -> impl Stream<Item = Result<GetPeersResponse, Status>> + use<> {
    let infos = found
        .into_iter()
        .filter_map(move |record| wanted.info(&record, now));
    stream::iter(infos.map(move |info| {
        metrics::told(method);
        Ok(GetPeersResponse { peer: Some(info) })
    }))
}

fn node_id(bytes: &[u8]) -> Result<NodeId, Status> {
    NodeId::from_bytes(bytes).map_err(|_| Status::bad_request("a node id is not 13 bytes long"))
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
