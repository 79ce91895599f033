//! Peers that a node learns of, and offences that it bans for: docs/protocol/06-discovery-and-peer-sync.md section 7.2.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{Claim, Features, ManualClock, NodeId, Severity, UnixSeconds};
use dht_overlay::sync::{Ask, Learner, SyncCaller, SyncFailure, SyncReport};
use dht_peers::{
    ClaimPolicy, Directory,
    policy::{AttributionProfile, BanPolicy, BanTerms, Offence},
    test_util::{BanLog, claim, public_key},
};
use dht_proto::dht_rpc::{
    GetCloserPeersRequest, GetPeersRequest, GetPeersResponse, PeerIdentityClaim, PeerInfo,
};
use dht_rpc::{Caller, Router, Server, ServerConfig, Status, StatusCode};
use futures::{StreamExt as _, stream};
use tokio::{io::DuplexStream, time::Instant};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
/// Seed of the node that is asked.
const PEER: u64 = 1;
/// Seed of the node that asks.
const ME: u64 = 0;

const ASK: Ask = Ask {
    peers: 4,
    include_clients: true,
    closest: false,
};

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

fn signed(seed: u64) -> Claim {
    claim(seed, &["/ip4/1.2.3.4/tcp/5"], Features::NODE, NOW)
}

fn response(seed: u64, claim: &Claim) -> GetPeersResponse {
    let bytes = |address: &dht_core::Address| Bytes::copy_from_slice(address.as_bytes());
    let claim = PeerIdentityClaim {
        addresses: claim.addresses.iter().map(bytes).collect(),
        peer_features: claim.features.bits(),
        identity_signature: Some((&claim.signature).into()),
    };
    GetPeersResponse {
        peer: Some(PeerInfo {
            public_key: Bytes::copy_from_slice(public_key(seed).as_bytes()),
            claims: vec![claim],
        }),
    }
}

fn told(seeds: &[u64]) -> Vec<Result<GetPeersResponse, Status>> {
    let told = seeds.iter().map(|seed| Ok(response(*seed, &signed(*seed))));
    told.collect()
}

/// A stream to a node that tells this.
fn telling(responses: Vec<Result<GetPeersResponse, Status>>) -> DuplexStream {
    let closest = responses.clone();
    serving(telling_of_some(responses).streaming(
        1,
        move |_: SyncCaller, request: GetCloserPeersRequest| {
            assert!(!request.include_clients);
            let responses = closest.clone();
            async move { Ok(stream::iter(responses)) }
        },
    ))
}

/// `get_peers`, the only method of a stock node of version 6.
fn telling_of_some(responses: Vec<Result<GetPeersResponse, Status>>) -> Router<SyncCaller> {
    Router::new().streaming(10, move |_: SyncCaller, _: GetPeersRequest| {
        let responses = responses.clone();
        async move { Ok(stream::iter(responses)) }
    })
}

/// A stream to a node with these methods.
fn serving(router: Router<SyncCaller>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let caller = Caller {
        peer: id(ME),
        source: None,
    };
    let streams = stream::iter([(caller, far)]).chain(stream::pending());
    tokio::spawn(Server::new(router, ServerConfig::default()).serve(streams));
    near
}

struct Test {
    learner: Learner,
    bans: BanLog,
}

fn test(profile: AttributionProfile) -> Test {
    let directory = Directory::new(id(ME));
    let clock = Arc::new(ManualClock::new(NOW));
    let terms = BanTerms::default();
    Test {
        bans: BanLog::of(&directory),
        learner: Learner {
            bans: BanPolicy::new(profile, terms, directory.clone(), clock.clone()),
            directory,
            clock,
            claims: ClaimPolicy::default(),
        },
    }
}

impl Test {
    async fn ask(&self, responses: Vec<Result<GetPeersResponse, Status>>) -> SyncReport {
        self.learner.ask(telling(responses), id(PEER), ASK).await
    }

    /// Severities of the bans, all of the peer that was asked.
    fn bans(&self) -> Vec<Severity> {
        let bans = self.bans.take();
        assert!(bans.iter().all(|ban| ban.node_id == id(PEER)));
        bans.iter().map(|ban| ban.severity).collect()
    }
}

const PROFILES: [AttributionProfile; 2] = [AttributionProfile::Strict, AttributionProfile::Legacy];

/// A round of discovery goes on without a peer that says nothing more, or one peer in half a minute; it keeps what was told.
#[tokio::test(start_paused = true)]
async fn stalled_answer_ends_soon() {
    let test = test(AttributionProfile::Legacy);
    for (pause, new) in [(Duration::MAX, 0), (Duration::from_secs(30), 1)] {
        let router =
            Router::new().streaming(10, move |_: SyncCaller, _: GetPeersRequest| async move {
                Ok(stream::iter(told(&[2, 3, 4])).then(move |told| async move {
                    tokio::time::sleep(pause).await;
                    told
                }))
            });
        let start = Instant::now();
        let report = test.learner.ask(serving(router), id(PEER), ASK).await;
        assert_eq!((report.new, report.failure), (new, Some(SyncFailure::Call)));
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_eq!(test.bans(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn dp33_unknown_peers_are_new() {
    let test = test(AttributionProfile::Strict);
    let report = test.ask(told(&[2, 3, 4])).await;
    assert!(report.is_success());
    assert_eq!((report.new, report.duplicates), (3, 0));
    // Hearsay, whoever told it.
    let record = test.learner.directory.find(&id(3)).unwrap();
    assert!(!record.is_proven());
    let again = test.ask(told(&[2, 3, 4, 5])).await;
    assert_eq!((again.new, again.duplicates), (1, 3));
    assert_eq!(test.bans(), []);
}

#[tokio::test(start_paused = true)]
async fn dp34_repeated_key_bans_teller() {
    for profile in PROFILES {
        let test = test(profile);
        let report = test.ask(told(&[2, 3, 2, 4])).await;
        let failure = SyncFailure::Offence(Offence::SyncDuplicate);
        assert_eq!(report.failure, Some(failure));
        assert_eq!((report.new, report.is_success()), (2, false));
        assert_eq!(test.bans(), [Severity::High]);
    }
}

#[tokio::test(start_paused = true)]
async fn dp35_own_key_is_skipped() {
    let test = test(AttributionProfile::Legacy);
    let report = test.ask(told(&[2, ME])).await;
    assert!(report.is_success());
    assert_eq!((report.new, report.duplicates), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dp36_failure_status_bans_legacy() {
    let mut responses = told(&[2]);
    responses.push(Err(Status::new(StatusCode::General, "busy")));
    for (profile, expected) in PROFILES.into_iter().zip([vec![], vec![Severity::Low]]) {
        let test = test(profile);
        let report = test.ask(responses.clone()).await;
        let failure = SyncFailure::Offence(Offence::SyncStatus);
        assert_eq!(report.failure, Some(failure));
        assert_eq!(report.new, 1, "what came before is kept");
        assert_eq!(test.bans(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_peers_ban_teller() {
    for profile in PROFILES {
        let test = test(profile);
        let report = test.ask(told(&[2, 3, 4, 5, 6])).await;
        assert_eq!((report.new, report.is_success()), (4, false));
        assert_eq!(test.bans(), [Severity::High]);
    }
}

/// The one who tells could have checked the signature, so it is banned; unless it covers an address that this node cannot
/// read, as one of a later version.
#[tokio::test(start_paused = true)]
async fn forged_claims_ban_teller() {
    for is_readable in [true, false] {
        let test = test(AttributionProfile::Strict);
        let mut forged = response(2, &signed(3));
        if !is_readable {
            let claim = &mut forged.peer.as_mut().unwrap().claims[0];
            claim
                .addresses
                .push(Bytes::from_static(&[0xff, 0xff, 0x7f]));
        }
        let report = test.ask(vec![Ok(forged), told(&[4]).remove(0)]).await;
        assert_eq!(report.is_success(), !is_readable);
        assert_eq!(test.bans().len(), usize::from(is_readable));
        assert_eq!(report.new, usize::from(!is_readable), "the rest is read");
    }
}

/// One bad item costs the strict profile that item, the legacy one the peer that helps.
#[tokio::test(start_paused = true)]
async fn unusable_items_are_skipped() {
    let private = claim(2, &["/ip4/0.0.0.0/tcp/5"], Features::NODE, NOW);
    let no_key = GetPeersResponse { peer: None };
    for item in [response(2, &private), no_key] {
        let responses = vec![Ok(item), told(&[3]).remove(0)];
        for (profile, bans, new) in [
            (AttributionProfile::Strict, 0, 1),
            (AttributionProfile::Legacy, 1, 0),
        ] {
            let test = test(profile);
            let report = test.ask(responses.clone()).await;
            assert_eq!(report.new, new);
            assert_eq!(test.bans().len(), bans);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn surroundings_of_teller_are_measured() {
    let test = test(AttributionProfile::Strict);
    let seeds: Vec<_> = (2..22).collect();
    let ask = Ask {
        peers: 20,
        closest: true,
        ..ASK
    };
    let report = test.learner.ask(telling(told(&seeds)), id(PEER), ask).await;
    assert!(report.is_success());
    let farthest = seeds.iter().map(|seed| id(PEER).distance(&id(*seed))).max();
    assert_eq!(report.around, farthest);
    assert_eq!((report.new, report.duplicates), (20, 40));
}

#[tokio::test(start_paused = true)]
async fn missing_closest_method_is_no_failure() {
    for profile in PROFILES {
        let test = test(profile);
        let stream = serving(telling_of_some(told(&[2, 3])));
        let ask = Ask {
            closest: true,
            ..ASK
        };
        let report = test.learner.ask(stream, id(PEER), ask).await;
        assert_eq!((report.new, report.failure), (2, None));
        assert_eq!(test.bans(), []);
    }
}
