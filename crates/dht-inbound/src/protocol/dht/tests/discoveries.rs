//! Discoveries and their responses.

use super::*;

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
