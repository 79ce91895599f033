mod discoveries;
mod joins;

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

    /// Peers banned since last asked, and for how long.
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
async fn b082_dp11_anonymous_protocol_message_bans_deliverer_low() {
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
