use dht_core::{
    Address, Destination, Encryption, Features, IdentitySignature, ManualClock, NodeIdentity,
    Priority, SendQueueError, Severity, Signing, Strategy, UnixSeconds, encode_parts,
    test_util::{clear, encrypted, identity, identity_with, public_key},
};
use dht_peers::{BanTarget, PeerRecord};
use dht_proto::dht::{DiscoveryMessage, DiscoveryResponseMessage, JoinMessage};
use dht_stack::Rate;

use super::*;
use crate::{
    filter::RateLimits,
    test_support::{self as support, DELIVERER, ME, NOW, OutRecorder, bans, peer},
};
use dht_peers::{
    policy::AttributionProfile::{self, Legacy, Strict},
    test_util::BanLog,
};

/// Seed of the peer that signs.
const PEER: u64 = 3;
const BOTH: [AttributionProfile; 2] = [Strict, Legacy];
const BAD: Disposition = Disposition::Dropped(DropReason::BadProtocolMessage);

struct Setup {
    out: Arc<OutRecorder>,
    banned: BanLog,
    directory: Directory,
    me: Arc<NodeIdentity>,
    check: Protocol,
}

fn setup(profile: AttributionProfile) -> Setup {
    let out = Arc::new(OutRecorder::default());
    let me = Arc::new(identity(ME));
    let directory = Directory::new(*me.node_id());
    let (bans, banned) = bans(profile);
    let check = Protocol {
        identity: Arc::clone(&me),
        directory: directory.clone(),
        send_queue: Arc::clone(&out) as Arc<dyn SendQueue>,
        discovery: Arc::clone(&out) as Arc<dyn DiscoveryHook>,
        limiter: RateLimiter::new(RateLimits::default(), [0; 16]),
        bans,
        clock: Arc::new(ManualClock::new(NOW)),
        claims: ClaimPolicy::default().under(profile),
    };
    Setup {
        out,
        banned,
        directory,
        me,
        check,
    }
}

/// Where the loopback addresses of test identities are of use.
fn on_localnet(mut setup: Setup) -> Setup {
    setup.check.claims.addresses.allow_test = true;
    setup
}

impl Setup {
    async fn run(&self, message: OpenedMessage) -> Disposition {
        support::run_check(self.check.clone(), message).await
    }

    /// Whom was banned for how long, since last asked.
    fn bans(&self) -> Vec<(BanTarget, Severity, u64)> {
        let bans = self.banned.take();
        bans.iter()
            .map(|ban| {
                let by_id = BanTarget::from(ban.node_id);
                let target = ban.public_key.map_or(by_id, BanTarget::from);
                (target, ban.severity, ban.until.saturating_since(NOW))
            })
            .collect()
    }

    fn knows(&self, seed: u64) -> bool {
        self.directory.find_by_key(&public_key(seed)).is_some()
    }

    fn nothing_sent(&self) -> bool {
        let OutRecorder {
            forwarded,
            replies,
            answers,
            ..
        } = &*self.out;
        forwarded.lock().is_empty() && replies.lock().is_empty() && answers.lock().is_empty()
    }
}

fn origin(seed: u64) -> BanTarget {
    public_key(seed).into()
}

fn source() -> BanTarget {
    peer(DELIVERER).node_id.into()
}

fn join_of(seed: u64) -> JoinMessage {
    let peer = identity(seed);
    let claim = peer.claim();
    JoinMessage {
        public_key: Bytes::copy_from_slice(peer.public_key().as_bytes()),
        addresses: claim
            .addresses
            .iter()
            .map(|a| Bytes::copy_from_slice(a.as_bytes()))
            .collect(),
        peer_features: claim.features.bits(),
        nonce: 77,
        identity_signature: Some((&claim.signature).into()),
    }
}

fn discovery_of(seed: u64) -> DiscoveryMessage {
    let JoinMessage {
        public_key,
        addresses,
        peer_features,
        nonce,
        identity_signature,
    } = join_of(seed);
    DiscoveryMessage {
        public_key,
        addresses,
        peer_features,
        nonce,
        identity_signature,
    }
}

fn response_of(seed: u64) -> DiscoveryResponseMessage {
    let JoinMessage {
        public_key,
        addresses,
        peer_features,
        nonce,
        identity_signature,
    } = join_of(seed);
    DiscoveryResponseMessage {
        public_key,
        addresses,
        peer_features,
        nonce,
        identity_signature,
    }
}

fn body(message: &impl prost::Message) -> Bytes {
    encode_parts(&[message.encode_to_vec().into()])
}

/// A clear join of a peer, addressed as honest ones are.
fn join(signer: u64, body: Bytes) -> OpenedMessage {
    join_to(signer, signer, body)
}

fn join_to(signer: u64, to: u64, body: Bytes) -> OpenedMessage {
    let destination = Destination::PublicKey(public_key(to));
    let (kind, clear) = (MessageType::Join, Encryption::Clear);
    let from = identity(signer);
    support::message(support::frame(
        &from,
        kind,
        destination,
        clear,
        Signing::Origin,
        body,
    ))
}

fn discovery(signer: u64, body: Bytes) -> OpenedMessage {
    let us = public_key(ME);
    let (destination, encryption) = (Destination::PublicKey(us), Encryption::EncryptFor(us));
    let (kind, from) = (MessageType::Discovery, identity(signer));
    let frame = support::frame(
        &from,
        kind,
        destination,
        encryption,
        Signing::Anonymous,
        body,
    );
    support::message(frame)
}

fn response(signer: u64, source: u64, body: Bytes) -> OpenedMessage {
    let (kind, from) = (MessageType::DiscoveryResponse, identity(signer));
    let (nobody, clear) = (Destination::Unknown, Encryption::Clear);
    let frame = support::frame(&from, kind, nobody, clear, Signing::Origin, body);
    OpenedMessage {
        source: peer(source),
        ..support::message(frame)
    }
}

// --- what is not for the handler ---

#[tokio::test]
async fn unreadable_messages_end_and_others_pass() {
    let setup = setup(Strict);
    let theirs = support::message(encrypted(&identity(PEER), &public_key(4), b"x", 1));
    assert_eq!(
        setup.run(theirs).await,
        Disposition::Dropped(DropReason::NotForUs)
    );
    let domain = || support::message(clear(&identity(PEER), Signing::Origin, b"x", 1));
    assert_eq!(setup.run(domain()).await, Disposition::Delivered);
    // A repeat passes unprocessed.
    let repeat = OpenedMessage {
        occurrences: 2,
        ..join(PEER, body(&join_of(PEER)))
    };
    assert_eq!(setup.run(repeat).await, Disposition::Delivered);
    assert!(!setup.knows(PEER) && setup.nothing_sent());
}

/// An anonymous protocol message gets its deliverer banned low.
#[tokio::test]
async fn b082_anonymous_protocol_message_bans_deliverer_low() {
    for profile in BOTH {
        let setup = setup(profile);
        for kind in [
            MessageType::Join,
            MessageType::Discovery,
            MessageType::DiscoveryResponse,
        ] {
            let (nobody, clear) = (Destination::Unknown, Encryption::Clear);
            let body = body(&join_of(PEER));
            let frame = support::frame(
                &identity(PEER),
                kind,
                nobody,
                clear,
                Signing::Anonymous,
                body,
            );
            let ended = setup.run(support::message(frame)).await;
            assert_eq!(ended, Disposition::Dropped(DropReason::Unauthenticated));
            assert_eq!(setup.bans(), [(source(), Severity::Low, 600)]);
        }
        assert!(!setup.knows(PEER) && setup.nothing_sent());
    }
}

/// A missing or undecodable part gets the signer banned high.
#[tokio::test]
async fn missing_or_undecodable_part_bans_signer() {
    for profile in BOTH {
        let setup = setup(profile);
        let junk = encode_parts(&[Bytes::from_static(b"\xff")]);
        for body in [Bytes::new(), junk] {
            for message in [
                join(PEER, body.clone()),
                response(PEER, PEER, body.clone()),
                discovery(
                    PEER,
                    if body.is_empty() {
                        encode_parts(&[b"\xff"[..].into()])
                    } else {
                        body
                    },
                ),
            ] {
                assert_eq!(setup.run(message).await, BAD);
                assert_eq!(setup.bans(), [(origin(PEER), Severity::High, 7_200)]);
            }
        }
        assert!(!setup.knows(PEER) && setup.nothing_sent());
    }
}

// --- join ---

/// A join is stored and relayed with exactly the received bytes.
#[tokio::test]
async fn b081_join_is_relayed_as_received() {
    for profile in BOTH {
        let setup = setup(profile);
        // The body carries a field no re-encoding would keep.
        let odd = Bytes::from([&body(&join_of(PEER))[..], &[0x10, 0x01]].concat());
        let message = join(PEER, odd);
        let frame = message.opened.frame.clone();
        assert_eq!(setup.run(message).await, Disposition::Answered);
        assert!(setup.knows(PEER));
        let sent = setup.out.forwarded.lock();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].frame, frame);
        assert_eq!(sent[0].priority, Priority::Gossip);
        let destination = Destination::PublicKey(public_key(PEER));
        let exclude = vec![public_key(PEER).node_id(), peer(DELIVERER).node_id];
        assert_eq!(
            sent[0].strategy,
            Strategy::Propagate {
                destination,
                exclude
            }
        );
        assert_eq!(setup.bans(), []);
    }
}

#[tokio::test]
async fn b083_our_own_join_comes_back() {
    for profile in BOTH {
        let setup = setup(profile);
        let ended = setup.run(join(ME, body(&join_of(ME)))).await;
        assert_eq!(ended, Disposition::Dropped(DropReason::OwnMessage));
        assert!(setup.bans().is_empty() && setup.nothing_sent());
    }
}

/// A join for another key gets the signer banned high.
#[tokio::test]
async fn join_for_another_key_bans_signer() {
    for profile in BOTH {
        let setup = setup(profile);
        assert_eq!(setup.run(join(PEER, body(&join_of(4)))).await, BAD);
        assert_eq!(setup.bans(), [(origin(PEER), Severity::High, 7_200)]);
        assert!(!setup.knows(PEER) && !setup.knows(4) && setup.nothing_sent());
    }
}

/// A join addressed to somebody else is dropped before any ban or acted on in legacy.
#[tokio::test]
async fn join_for_another_destination_by_profile() {
    let too_many = || {
        let mut join = join_of(PEER);
        join.addresses = vec![join.addresses[0].clone(); 6];
        body(&join)
    };
    let setup = setup(Strict);
    for message in [
        join_to(PEER, 4, body(&join_of(PEER))),
        join_to(PEER, 4, body(&join_of(4))),
        join_to(PEER, 4, too_many()),
        join_to(PEER, 4, Bytes::new()),
    ] {
        assert_eq!(setup.run(message).await, BAD);
    }
    assert!(setup.bans().is_empty() && !setup.knows(PEER) && setup.nothing_sent());

    let setup = self::setup(Legacy);
    assert_eq!(setup.run(join_to(PEER, 4, too_many())).await, BAD);
    assert_eq!(setup.bans(), [(origin(PEER), Severity::Medium, 600)]);
    let ended = setup.run(join_to(PEER, ME, body(&join_of(PEER)))).await;
    assert_eq!(ended, Disposition::Answered);
    assert!(setup.knows(PEER), "stored");
    assert!(
        setup.nothing_sent(),
        "but this node is where it wanted to go"
    );
}

/// A claim its owner did not sign gets the signer banned medium.
#[tokio::test]
async fn b080_forged_claim_bans_signer_medium() {
    for profile in BOTH {
        let setup = setup(profile);
        let mut forged = join_of(PEER);
        forged.addresses = vec![Bytes::copy_from_slice(
            Address::tcp([198, 51, 100, 7].into(), 18_189).as_bytes(),
        )];
        assert_eq!(setup.run(join(PEER, body(&forged))).await, BAD);
        assert_eq!(setup.bans(), [(origin(PEER), Severity::Medium, 600)]);
        assert!(!setup.knows(PEER) && setup.nothing_sent());
    }
}

/// Claims honest peers of another version or with other limits might make, all validly signed.
fn odd_claims() -> Vec<JoinMessage> {
    let signed = |addresses: Vec<Address>| {
        let peer = identity(PEER);
        let nonce = identity(99);
        let claim = Claim::sign_with_nonce(
            peer.secret_key(),
            addresses,
            Features::NODE,
            NOW,
            nonce.secret_key(),
        );
        JoinMessage {
            addresses: claim
                .addresses
                .iter()
                .map(|a| Bytes::copy_from_slice(a.as_bytes()))
                .collect(),
            identity_signature: Some((&claim.signature).into()),
            ..join_of(PEER)
        }
    };
    let ip = |last| Address::tcp([198, 51, 100, last].into(), 18_189);
    vec![
        signed(vec![]),
        signed((1..=6).map(ip).collect()),
        signed(vec![Address::memory(7)]),
        signed(vec![Address::tcp([0, 0, 0, 0].into(), 18_189)]),
        signed(vec![Address::tcp([198, 51, 100, 1].into(), 0)]),
        // The signature holds and the shape is right, but the directory would have to keep it.
        signed(vec![
            format!("/dns4/{}/tcp/1", "a".repeat(100_000))
                .parse()
                .unwrap(),
        ]),
        signed(vec![Address::default(); 1_000]),
    ]
}

/// Fields that do not convert.
fn unconvertible() -> Vec<JoinMessage> {
    let mut no_signature = join_of(PEER);
    no_signature.identity_signature = None;
    let mut features = join_of(PEER);
    features.peer_features = 4;
    let mut address = join_of(PEER);
    address.addresses.push(Bytes::from_static(b"\xff\xff"));
    let mut scalar = join_of(PEER);
    scalar.identity_signature.as_mut().unwrap().signature = Bytes::from_static(&[0xff; 32]);
    vec![no_signature, features, address, scalar]
}

#[tokio::test]
async fn b079_odd_claims_are_dropped_without_ban() {
    let setup = setup(Strict);
    for odd in odd_claims().into_iter().chain(unconvertible()) {
        let JoinMessage {
            public_key,
            addresses,
            peer_features,
            nonce,
            identity_signature,
        } = odd.clone();
        let found = DiscoveryMessage {
            public_key,
            addresses,
            peer_features,
            nonce,
            identity_signature,
        };
        assert_eq!(setup.run(join(PEER, body(&odd))).await, BAD);
        assert_eq!(setup.run(discovery(PEER, body(&found))).await, BAD);
    }
    assert!(setup.bans().is_empty() && !setup.knows(PEER) && setup.nothing_sent());
}

/// Legacy bans for odd claims as the first implementation does.
#[tokio::test]
async fn legacy_bans_for_odd_claims() {
    let setup = setup(Legacy);
    for odd in odd_claims() {
        assert_eq!(setup.run(join(PEER, body(&odd))).await, BAD);
        assert_eq!(setup.bans(), [(origin(PEER), Severity::Medium, 600)]);
    }
    for odd in unconvertible() {
        assert_eq!(setup.run(join(PEER, body(&odd))).await, BAD);
        assert_eq!(setup.bans(), []);
        let JoinMessage {
            public_key,
            addresses,
            peer_features,
            nonce,
            identity_signature,
        } = odd;
        let found = DiscoveryMessage {
            public_key,
            addresses,
            peer_features,
            nonce,
            identity_signature,
        };
        assert_eq!(setup.run(discovery(PEER, body(&found))).await, BAD);
        assert_eq!(setup.bans(), [(origin(PEER), Severity::High, 7_200)]);
    }
    assert!(!setup.knows(PEER) && setup.nothing_sent());
}

#[tokio::test]
async fn banned_joiner_is_refreshed_not_relayed() {
    let setup = on_localnet(setup(Strict));
    let (key, until) = (public_key(PEER), NOW.saturating_add(600));
    setup
        .directory
        .add_or_update(PeerRecord::new(key, Features::NODE, NOW), NOW);
    setup.directory.ban(key, until, Severity::Low, "test", NOW);
    let ended = setup.run(join(PEER, body(&join_of(PEER)))).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Banned));
    let record = setup.directory.find_by_key(&key).unwrap();
    assert_eq!(record.addresses().len(), 1);
    assert!(record.is_banned(NOW) && setup.nothing_sent());
}

/// A join out of storage is kept but not spread.
#[tokio::test]
async fn stored_join_is_kept_not_relayed() {
    let setup = setup(Strict);
    let message = OpenedMessage {
        is_saf: true,
        ..join(PEER, body(&join_of(PEER)))
    };
    assert_eq!(setup.run(message).await, Disposition::Answered);
    assert!(setup.knows(PEER) && setup.nothing_sent());
}

#[tokio::test]
async fn directory_entry_does_not_hold_frame() {
    let setup = on_localnet(setup(Strict));
    let message = join(PEER, body(&join_of(PEER)));
    let frame = message.opened.frame.as_ptr_range();
    assert_eq!(setup.run(message).await, Disposition::Answered);
    let record = setup.directory.find_by_key(&public_key(PEER)).unwrap();
    assert!(!frame.contains(&record.addresses()[0].address.as_bytes().as_ptr()));
}

// --- discovery ---

#[tokio::test]
async fn b078_a_discovery_gets_exactly_one_reply() {
    for profile in BOTH {
        let setup = setup(profile);
        let ended = setup.run(discovery(PEER, body(&discovery_of(PEER)))).await;
        assert_eq!(ended, Disposition::Answered);
        assert!(setup.knows(PEER) && setup.bans().is_empty());
        let replies = setup.out.replies.lock();
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].to, public_key(PEER));
        let message = &replies[0].message;
        assert_eq!(message.nonce, 77);
        assert_eq!(message.public_key[..], setup.me.public_key().as_bytes()[..]);
        // The claim in it is ours and holds.
        let claim = crate::convert_claim(message).unwrap();
        assert_eq!(claim, *setup.me.claim());
        assert_eq!(claim.verify(setup.me.public_key(), NOW), Ok(()));
        assert!(
            setup.out.forwarded.lock().is_empty(),
            "never propagated here"
        );
    }
}

/// A stranger's claim says whom this node dials: a deliverer causes few dials, and an asker that is connected none.
#[tokio::test]
async fn dials_of_one_deliverer_are_bounded() {
    let mut setup = setup(Strict);
    let one = Rate::per_second(1);
    let limits = RateLimits {
        discovery_dial: one,
        ..RateLimits::default()
    };
    setup.check.limiter = RateLimiter::new(limits, [0; 16]);
    let ask = |seed| discovery(seed, body(&discovery_of(seed)));
    assert_eq!(setup.run(ask(PEER)).await, Disposition::Answered);
    assert_eq!(setup.run(ask(4)).await, DropReason::Overload.into());
    assert_eq!(setup.out.replies.lock().len(), 1);
    let connected = peer(5);
    let connections = setup.directory.connections();
    connections.insert(connected, dht_peers::Direction::Inbound);
    assert_eq!(setup.run(ask(5)).await, Disposition::Answered);
}

/// A clear discovery is answered in legacy only and nobody is blamed.
#[tokio::test]
async fn only_legacy_answers_a_clear_discovery() {
    for (profile, ended) in [(Strict, BAD), (Legacy, Disposition::Answered)] {
        let setup = setup(profile);
        let (nobody, clear) = (Destination::Unknown, Encryption::Clear);
        let frame = support::frame(
            &identity(PEER),
            MessageType::Discovery,
            nobody,
            clear,
            Signing::Origin,
            body(&discovery_of(PEER)),
        );
        assert_eq!(setup.run(support::message(frame)).await, ended);
        assert_eq!(setup.nothing_sent(), profile == Strict);
        assert_eq!(setup.bans(), []);
    }
}

#[tokio::test]
async fn discovery_for_another_key_is_unanswered() {
    for (profile, bans) in [
        (Strict, vec![]),
        (Legacy, vec![(origin(PEER), Severity::High, 7_200)]),
    ] {
        let setup = setup(profile);
        assert_eq!(
            setup.run(discovery(PEER, body(&discovery_of(4)))).await,
            BAD
        );
        assert_eq!(setup.bans(), bans);
        assert!(!setup.knows(4) && setup.nothing_sent());
    }
}

/// A discovery with a forged claim is an offence in strict only.
#[tokio::test]
async fn only_strict_blames_forged_discovery_claim() {
    for (profile, bans) in [
        (Strict, vec![(origin(PEER), Severity::Medium, 600)]),
        (Legacy, vec![]),
    ] {
        let setup = setup(profile);
        let mut forged = discovery_of(PEER);
        forged.peer_features = 0;
        assert_eq!(setup.run(discovery(PEER, body(&forged))).await, BAD);
        assert_eq!(setup.bans(), bans);
        assert!(!setup.knows(PEER) && setup.nothing_sent());
    }
}

#[tokio::test]
async fn a_banned_peer_gets_no_reply() {
    let setup = setup(Strict);
    let until = NOW.saturating_add(600);
    setup
        .directory
        .ban(public_key(PEER), until, Severity::Low, "test", NOW);
    let ended = setup.run(discovery(PEER, body(&discovery_of(PEER)))).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Banned));
    assert!(setup.nothing_sent());
}

#[tokio::test]
async fn claim_from_future_is_no_offence() {
    // The clock of the peer is off by two days; its signature is good.
    let setup = setup(Strict);
    let peer = identity_with(PEER, Features::NODE);
    let ahead = UnixSeconds(NOW.0 + 2 * 86_400);
    let nonce = identity(98);
    let (secret, claim) = (peer.secret_key(), peer.claim());
    let claim = Claim::sign_with_nonce(
        secret,
        claim.addresses.clone(),
        claim.features,
        ahead,
        nonce.secret_key(),
    );
    let late = JoinMessage {
        identity_signature: Some((&claim.signature).into()),
        ..join_of(PEER)
    };
    assert_eq!(setup.run(join(PEER, body(&late))).await, BAD);
    assert!(setup.bans().is_empty());
    assert!(IdentitySignature::try_from(late.identity_signature.as_ref().unwrap()).is_ok());
}

// --- discovery response ---

#[tokio::test]
async fn b077_response_reaches_discovery_service_once() {
    for profile in BOTH {
        let setup = setup(profile);
        let ended = setup
            .run(response(PEER, PEER, body(&response_of(PEER))))
            .await;
        assert_eq!(ended, Disposition::Answered);
        let answers = setup.out.answers.lock();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].responder, public_key(PEER));
        assert_eq!(answers[0].message, response_of(PEER));
        assert!(setup.bans().is_empty() && !setup.knows(PEER));
    }
}

/// A replayed response gets the deliverer banned, not the signer.
#[tokio::test]
async fn b076_replayed_response_bans_its_deliverer() {
    let setup = setup(Strict);
    // Before decoding: even an undecodable one cannot get its signer banned.
    for body in [body(&response_of(PEER)), Bytes::new()] {
        assert_eq!(setup.run(response(PEER, DELIVERER, body)).await, BAD);
        assert_eq!(setup.bans(), [(source(), Severity::Medium, 600)]);
    }
    assert!(setup.nothing_sent());

    let setup = self::setup(Legacy);
    assert_eq!(
        setup
            .run(response(PEER, DELIVERER, body(&response_of(PEER))))
            .await,
        BAD
    );
    assert_eq!(setup.bans(), [(origin(PEER), Severity::High, 7_200)]);
    assert!(setup.nothing_sent());
}

/// A response for another key gets its signer banned high.
#[tokio::test]
async fn response_for_another_key_bans_signer() {
    for profile in BOTH {
        let setup = setup(profile);
        assert_eq!(
            setup.run(response(PEER, PEER, body(&response_of(4)))).await,
            BAD
        );
        assert_eq!(setup.bans(), [(origin(PEER), Severity::High, 7_200)]);
        assert!(setup.nothing_sent());
    }
}

// --- when others do not keep up ---

#[tokio::test]
async fn full_queues_shed_and_closed_drop() {
    let setup = setup(Strict);
    let messages = || {
        [
            join(PEER, body(&join_of(PEER))),
            discovery(PEER, body(&discovery_of(PEER))),
            response(PEER, PEER, body(&response_of(PEER))),
        ]
    };
    *setup.out.refuse.lock() = Some(SendQueueError::Full);
    let overload = Disposition::Dropped(DropReason::Overload);
    for (message, expected) in
        messages()
            .into_iter()
            .zip([Disposition::Answered, overload, overload])
    {
        assert_eq!(setup.run(message).await, expected);
    }
    *setup.out.refuse.lock() = Some(SendQueueError::Closed);
    for message in messages() {
        let internal = Disposition::Dropped(DropReason::Internal);
        assert_eq!(setup.run(message).await, internal);
    }
}
