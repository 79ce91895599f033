//! Joins.

use super::*;

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
async fn b083_dp12_our_own_join_comes_back() {
    for profile in BOTH {
        let setup = setup(profile);
        let ended = setup.run(join(ME, body(&join_of(ME)))).await;
        assert_eq!(ended, Disposition::Dropped(DropReason::OwnMessage));
        assert!(setup.bans().is_empty() && setup.nothing_sent());
    }
}

/// A join for another key gets the signer banned high.
#[tokio::test]
async fn dp13_join_for_another_key_bans_signer() {
    for profile in BOTH {
        let setup = setup(profile);
        assert_eq!(setup.run(join(PEER, body(&join_of(4)))).await, BAD);
        assert_eq!(setup.bans(), [(origin(PEER), Severity::High, 7_200)]);
        assert!(!setup.knows(PEER) && !setup.knows(4) && setup.nothing_sent());
    }
}

/// A join addressed to somebody else is dropped before any ban or acted on in legacy.
#[tokio::test]
async fn dp15_join_for_another_destination_by_profile() {
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
async fn dp14_stored_join_is_kept_not_relayed() {
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
