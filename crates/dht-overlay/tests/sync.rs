//! The peer-sync service, both roles, over streams in memory and on a paused clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    ClaimError, Features, ManualClock, NodeId, SeededEntropy, SourceGroup, UnixSeconds,
};
use dht_overlay::sync::{
    AnnouncedPeer, AnnouncedPeers, MAX_TOLD_PEERS, PEER_RATE, PeerSyncClient, SyncCaller,
    SyncError, peer_sync_server,
};
use dht_peers::{
    ClaimPolicy, Directory, NetGroup, PeerRecord,
    test_util::{claim, public_key},
    validate_claims,
};
use dht_proto::dht_rpc::{GetCloserPeersRequest, GetPeersRequest, GetPeersResponse, PeerInfo};
use dht_rpc::{CallError, Caller, Client, ClientConfig, Router, Server, ServerConfig, StatusCode};
use futures::{StreamExt as _, stream};
use tokio::{io::DuplexStream, time::Instant};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
/// Seed of the node that asks.
const CALLER: u64 = 1;
const NODE: Features = Features::NODE;
const CLIENT: Features = Features::CLIENT;

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

fn record(seed: u64, features: Features) -> PeerRecord {
    let port = seed % 60_000 + 1;
    let claim = claim(seed, &[&format!("/ip4/1.2.3.4/tcp/{port}")], features, NOW);
    PeerRecord::from_claim(public_key(seed), Arc::new(claim), NOW)
}

/// A directory that authenticated these peers.
fn directory(peers: impl IntoIterator<Item = (u64, Features)>) -> Directory {
    let directory = Directory::new(id(0));
    for (seed, features) in peers {
        directory.authenticated(record(seed, features), NetGroup::Unknown, NOW);
    }
    directory
}

fn nodes(seeds: std::ops::Range<u64>) -> Directory {
    directory(seeds.map(|seed| (seed, NODE)))
}

fn caller() -> SyncCaller {
    Caller {
        peer: id(CALLER),
        source: SourceGroup::of(&"/ip4/1.2.3.4/tcp/5".parse().unwrap()),
    }
}

fn stream_to(directory: &Directory) -> DuplexStream {
    let (clock, entropy) = (ManualClock::new(NOW), SeededEntropy::new(7));
    let server = peer_sync_server(directory.clone(), Arc::new(clock), Arc::new(entropy), 10);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let streams = stream::iter([(caller(), far)]).chain(stream::pending());
    tokio::spawn(server.serve(streams));
    near
}

async fn client(directory: &Directory) -> PeerSyncClient<DuplexStream> {
    PeerSyncClient::connect(stream_to(directory)).await.unwrap()
}

async fn all(mut peers: AnnouncedPeers<'_, DuplexStream>) -> Vec<AnnouncedPeer> {
    let mut all = Vec::new();
    while let Some(peer) = peers.next().await.unwrap() {
        all.push(peer);
    }
    all
}

fn ids(peers: &[AnnouncedPeer]) -> BTreeSet<NodeId> {
    peers.iter().map(|peer| peer.public_key.node_id()).collect()
}

async fn peers(directory: &Directory, n: u32, include_clients: bool) -> Vec<AnnouncedPeer> {
    let mut client = client(directory).await;
    all(client.peers(n, include_clients).await.unwrap()).await
}

async fn closer(directory: &Directory, n: u32, excluded: &[NodeId]) -> Vec<AnnouncedPeer> {
    let mut client = client(directory).await;
    all(client.closer_peers(None, n, excluded, true).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn b100_dp20_no_closer_peers() {
    assert!(closer(&nodes(2..2), 10, &[]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn b101_dp21_five_of_six_closer_peers() {
    assert_eq!(closer(&nodes(2..8), 5, &[]).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn b102_dp22_excluded_peer_is_absent() {
    let found = closer(&nodes(2..7), 100, &[id(4)]).await;
    assert_eq!(ids(&found), [2, 3, 5, 6].map(id).into());
}

/// The operator named the address that the peer signed: others are told of it.
#[tokio::test(start_paused = true)]
async fn configured_peer_is_told_of() {
    let directory = nodes(2..3);
    let held = directory.find(&id(2)).unwrap();
    let named = held.addresses().iter().map(|held| held.address.clone());
    let named = PeerRecord::seed(public_key(3), NODE, named, NOW);
    directory.add_or_update(named, NOW);
    assert_eq!(ids(&closer(&directory, 5, &[]).await), [id(2)].into());
    // It connects, and its claim is held.
    let own: Vec<_> = record(3, NODE).addresses().to_vec();
    let own = own.iter().map(|own| own.address.clone());
    directory.add_or_update(PeerRecord::seed(public_key(3), NODE, own, NOW), NOW);
    directory.authenticated(record(3, NODE), NetGroup::Unknown, NOW);
    assert_eq!(
        ids(&closer(&directory, 5, &[]).await),
        [2, 3].map(id).into()
    );
}

#[tokio::test(start_paused = true)]
async fn b103_no_peers() {
    assert!(peers(&nodes(2..2), 10, true).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn b104_dp25_clients_are_included() {
    let seeds = [(2, NODE), (3, NODE), (4, NODE), (5, CLIENT), (6, CLIENT)];
    let directory = directory(seeds);
    let found = peers(&directory, 5, true).await;
    assert_eq!(found.len(), 5);
    for peer in found {
        let (_, features) = seeds
            .into_iter()
            .find(|(seed, _)| id(*seed) == peer.public_key.node_id())
            .unwrap();
        assert_eq!(peer.claims[0].features, features);
        let policy = ClaimPolicy::default();
        validate_claims(&peer.public_key, peer.claims, None, &policy, NOW).unwrap();
    }
    assert_eq!(peers(&directory, 5, false).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn b105_dp26_two_of_three_peers() {
    assert_eq!(peers(&nodes(2..5), 2, true).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn dp23_callers_are_not_told_of_themselves() {
    let directory = nodes(CALLER..40);
    let found = closer(&directory, 8, &[]).await;
    let mut nearest: Vec<_> = (CALLER + 1..40).map(id).collect();
    nearest.sort_by_key(|other| other.distance(&id(CALLER)));
    let found: Vec<_> = found.iter().map(|peer| peer.public_key.node_id()).collect();
    assert_eq!(found, nearest[..8]);
    assert!(!ids(&peers(&directory, 0, true).await).contains(&id(CALLER)));
    // To an id of the caller's choice.
    let mut client = client(&directory).await;
    let target = id(77);
    let near = client
        .closer_peers(Some(&target), 1, &[], true)
        .await
        .unwrap();
    nearest.sort_by_key(|other| other.distance(&target));
    assert_eq!(all(near).await[0].public_key.node_id(), nearest[0]);
}

/// Heard-of peers, named ones that never connected, and those not seen for a week.
#[tokio::test(start_paused = true)]
async fn dp24_unseen_peers_are_not_told() {
    let directory = nodes(2..3);
    directory.hear(record(3, NODE), &id(2), NOW);
    let address = "/ip4/1.2.3.4/tcp/9".parse().unwrap();
    directory.add_or_update(PeerRecord::seed(public_key(4), NODE, [address], NOW), NOW);
    let long_ago = UnixSeconds(NOW.0 - 8 * 24 * 60 * 60);
    directory.authenticated(record(5, NODE), NetGroup::Unknown, long_ago);
    assert_eq!(ids(&closer(&directory, 100, &[]).await), [id(2)].into());
    assert_eq!(ids(&peers(&directory, 0, true).await), [id(2)].into());
}

#[tokio::test(start_paused = true)]
async fn dp27_zero_means_a_hundred() {
    let directory = nodes(2..122);
    assert_eq!(peers(&directory, 0, true).await.len(), 100);
    let most = peers(&directory, 115, true).await;
    assert_eq!(ids(&most).len(), 115);
    assert_eq!(peers(&directory, u32::MAX, true).await.len(), 120);
}

#[tokio::test(start_paused = true)]
async fn dp28_bad_requests_are_refused() {
    let good = GetCloserPeersRequest {
        n: 1,
        max_claims: 1,
        max_addresses_per_claim: 1,
        ..GetCloserPeersRequest::default()
    };
    let short = Bytes::from_static(&[1; 12]);
    let bad = [
        GetCloserPeersRequest {
            n: 0,
            ..good.clone()
        },
        GetCloserPeersRequest {
            n: 101,
            ..good.clone()
        },
        GetCloserPeersRequest {
            max_claims: 0,
            ..good.clone()
        },
        GetCloserPeersRequest {
            max_addresses_per_claim: 0,
            ..good.clone()
        },
        GetCloserPeersRequest {
            closer_to: short.clone(),
            ..good.clone()
        },
        GetCloserPeersRequest {
            excluded: vec![short],
            ..good.clone()
        },
        GetCloserPeersRequest {
            excluded: vec![Bytes::from_static(&[1; 13]); 1_001],
            ..good.clone()
        },
    ];
    let stream = stream_to(&nodes(2..5));
    let mut raw = Client::connect(stream, ClientConfig::default())
        .await
        .unwrap();
    for request in bad {
        let mut answer = raw
            .stream::<_, GetPeersResponse>(1, &request)
            .await
            .unwrap();
        let refused = answer.next().await.unwrap_err();
        let bad_request = StatusCode::BadRequest;
        assert!(
            matches!(refused, CallError::Status(status) if status.code == bad_request),
            "{request:?}"
        );
    }
    for (max_claims, max_addresses_per_claim) in [(0, 1), (1, 0)] {
        let request = GetPeersRequest {
            max_claims,
            max_addresses_per_claim,
            ..GetPeersRequest::default()
        };
        let mut answer = raw
            .stream::<_, GetPeersResponse>(10, &request)
            .await
            .unwrap();
        assert!(answer.next().await.is_err());
    }
    let mut answer = raw.stream::<_, GetPeersResponse>(1, &good).await.unwrap();
    assert!(answer.next().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn long_claims_are_left_out() {
    let directory = nodes(2..3);
    let addresses = ["/ip4/1.2.3.4/tcp/5", "/ip4/1.2.3.5/tcp/5"];
    let two = Arc::new(claim(3, &addresses, NODE, NOW));
    let record = PeerRecord::from_claim(public_key(3), two, NOW);
    directory.authenticated(record, NetGroup::Unknown, NOW);
    let mut raw = Client::connect(stream_to(&directory), ClientConfig::default())
        .await
        .unwrap();
    for (max_addresses_per_claim, expected) in [(1, 1), (2, 2)] {
        let request = GetPeersRequest {
            max_claims: 5,
            max_addresses_per_claim,
            ..GetPeersRequest::default()
        };
        let mut answer = raw
            .stream::<_, GetPeersResponse>(10, &request)
            .await
            .unwrap();
        let mut told = 0;
        while let Some(GetPeersResponse { peer }) = answer.next().await.unwrap() {
            // A claim of two addresses is sent once.
            assert_eq!(peer.unwrap().claims.len(), 1);
            told += 1;
        }
        assert_eq!(told, expected);
    }
}

/// A caller that repeats itself waits; it is refused nothing, for which a stock node would ban this one.
#[tokio::test(start_paused = true)]
async fn repeated_requests_wait() {
    let directory = nodes(2..502);
    let mut client = client(&directory).await;
    let start = Instant::now();
    for _ in 0..12 {
        let told = all(client.peers(u32::MAX, true).await.unwrap()).await;
        assert_eq!(told.len(), MAX_TOLD_PEERS);
    }
    let told = 11 * u64::try_from(MAX_TOLD_PEERS).unwrap() - u64::from(PEER_RATE.burst);
    let least = Duration::from_secs(told / u64::from(PEER_RATE.per_second));
    // Overdrawing the bucket once saves one burst.
    let saved = Duration::from_secs(u64::from(PEER_RATE.burst / PEER_RATE.per_second));
    assert!(start.elapsed() >= least - saved, "{:?}", start.elapsed());
}

/// Serves these responses, whatever is asked.
async fn told(responses: Vec<GetPeersResponse>) -> PeerSyncClient<DuplexStream> {
    let router = Router::new().streaming(10, move |_: SyncCaller, _: GetPeersRequest| {
        let responses = responses.clone();
        async move { Ok(stream::iter(responses.into_iter().map(Ok))) }
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    let streams = stream::iter([(caller(), far)]).chain(stream::pending());
    tokio::spawn(Server::new(router, ServerConfig::default()).serve(streams));
    PeerSyncClient::connect(near).await.unwrap()
}

fn response(public_key: Bytes) -> GetPeersResponse {
    let claims = Vec::new();
    GetPeersResponse {
        peer: Some(PeerInfo { public_key, claims }),
    }
}

fn key(seed: u64) -> Bytes {
    Bytes::copy_from_slice(public_key(seed).as_bytes())
}

#[tokio::test(start_paused = true)]
async fn bad_items_are_named() {
    let mut unsigned = response(key(4));
    unsigned
        .peer
        .as_mut()
        .unwrap()
        .claims
        .push(Default::default());
    let mut client = told(vec![
        response(key(2)),
        GetPeersResponse { peer: None },
        response(key(2)),
        response(Bytes::from_static(&[0xff; 32])),
        unsigned,
        response(key(3)),
    ])
    .await;
    let mut peers = client.peers(10, true).await.unwrap();
    assert!(peers.next().await.unwrap().is_some());
    assert!(matches!(peers.next().await, Err(SyncError::Empty)));
    assert!(matches!(peers.next().await, Err(SyncError::Duplicate)));
    assert!(matches!(peers.next().await, Err(SyncError::Key(_))));
    let not_signed = peers.next().await;
    assert!(matches!(
        not_signed,
        Err(SyncError::Claim(ClaimError::NotSigned))
    ));
    assert!(peers.next().await.unwrap().is_some());
    assert!(peers.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn surplus_peers_end_the_call() {
    let mut client = told((2..9).map(|seed| response(key(seed))).collect()).await;
    let mut peers = client.peers(3, true).await.unwrap();
    for _ in 0..3 {
        peers.next().await.unwrap();
    }
    assert!(matches!(
        peers.next().await,
        Err(SyncError::TooMany { asked: 3 })
    ));
    assert!(peers.next().await.unwrap().is_none());
    assert_eq!(all(client.peers(7, true).await.unwrap()).await.len(), 7);
}
