use dht_core::test_util::{NOW, identity};
use dht_peers::policy::{AttributionProfile, BanTerms};
use proptest::prelude::*;
use tokio::io::duplex;

use super::*;

const VECTORS: &str = include_str!("../../../tests/vectors/identity_messages.json");

fn bytes(hex: &serde_json::Value) -> Vec<u8> {
    data_encoding::HEXLOWER
        .decode(hex.as_str().unwrap().as_bytes())
        .unwrap()
}

/// The name the vectors give to our error.
fn class(error: &IdentityError) -> &'static str {
    match error {
        IdentityError::UserAgentTooLong(_) => "PeerIdentityUserAgentTooLong",
        IdentityError::TooManyProtocols(_) => "PeerIdentityTooManyProtocols",
        IdentityError::ProtocolIdTooLong(_) => "PeerIdentityProtocolIdTooLong",
        IdentityError::Claim(ClaimError::NoAddresses) => "PeerIdentityNoAddresses",
        IdentityError::Claim(ClaimError::TooManyAddresses { .. }) => "PeerIdentityTooManyAddresses",
        IdentityError::Claim(ClaimError::Malformed(_)) => "MultiaddrError",
        IdentityError::Claim(ClaimError::Features(_)) => "InvalidPeerFeatures",
        IdentityError::Claim(ClaimError::NotSigned) => "MissingIdentitySignature",
        IdentityError::Claim(error) if error.is_address() => "InvalidMultiaddr",
        IdentityError::Claim(
            ClaimError::NegativeTime | ClaimError::FromTheFuture | ClaimError::BadSignature,
        ) => "InvalidPeerSignature",
        _ => "other",
    }
}

#[test]
fn recorded_identities_are_judged_as_recorded() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 20, "the file holds the recorded cases");
    let rules = IdentityRules::default();
    for case in cases {
        let key = PublicKey::from_bytes(&bytes(&case["authenticated_public_key"])).unwrap();
        let message = bytes(&case["message"]).into();
        let result = check_identity(message, &key, &rules, UnixSeconds(1_800_000_000));
        let found = result.as_ref().map_or_else(class, |_| "ok");
        assert_eq!(found, case["result"].as_str().unwrap(), "{}", case["name"]);
    }
}

fn frame() -> Vec<u8> {
    encode_identity(
        0,
        &identity(1).claim(),
        "agent/1",
        &[Bytes::from_static(b"t/msg/0.1")],
    )
    .unwrap()
}

#[test]
fn own_frame_has_little_endian_length() {
    let frame = frame();
    let head = [frame[0], frame[1], frame[2]];
    assert_eq!(
        decode_head(head, &IdentityRules::default()),
        Ok(frame.len() - 3)
    );
    assert_eq!(
        usize::from(frame[1]) + 256 * usize::from(frame[2]),
        frame.len() - 3
    );
    let info = check_identity(
        frame[3..].to_vec().into(),
        identity(1).public_key(),
        &IdentityRules::default(),
        NOW,
    )
    .unwrap();
    assert_eq!(*info.claim, *identity(1).claim());
    assert_eq!(&*info.user_agent, "agent/1");
}

#[test]
fn bans_follow_the_table() {
    let seconds = |error: IdentityError| {
        let penalty = error.offence(false)?.penalty(AttributionProfile::Strict)?;
        Some(BanTerms::default().seconds(penalty.term))
    };
    assert_eq!(seconds(IdentityError::TooLong(1025)), Some(7200));
    assert_eq!(
        seconds(IdentityError::Claim(ClaimError::BadSignature)),
        Some(7200)
    );
    assert_eq!(seconds(IdentityError::Version(1)), Some(120));
    // Others can slow a line.
    assert_eq!(seconds(IdentityError::Timeout), None);
    let timeout = IdentityError::Timeout.offence(false).unwrap();
    let legacy = timeout.penalty(AttributionProfile::Legacy).unwrap();
    assert_eq!(BanTerms::default().seconds(legacy.term), 120);
    assert_eq!(IdentityError::Timeout.offence(true), None);
    assert_eq!(
        seconds(IdentityError::Claim(ClaimError::AddressPort)),
        Some(7200)
    );
    assert_eq!(
        seconds(IdentityError::Claim(ClaimError::AddressShape)),
        None
    );
    assert_eq!(seconds(IdentityError::Claim(ClaimError::NoAddresses)), None);
    assert_eq!(
        seconds(IdentityError::Claim(ClaimError::FromTheFuture)),
        None
    );
    assert_eq!(
        seconds(IdentityError::Io(io::ErrorKind::UnexpectedEof)),
        None
    );
}

#[test]
fn oversized_identity_is_not_sent() {
    let ids: Vec<_> = (0..30).map(|_| Bytes::from(vec![b'x'; 50])).collect();
    let result = encode_identity(0, &identity(1).claim(), "", &ids);
    assert!(matches!(result, Err(IdentityError::TooLong(_))));
}

/// Runs an exchange against a peer that sends `theirs` and then closes (or not).
async fn against(theirs: &[u8], close: bool) -> Result<PeerInfo, IdentityError> {
    let (mut near, mut far) = duplex(4096);
    far.write_all(theirs).await.unwrap();
    let far = (!close).then_some(far);
    let key = *identity(1).public_key();
    let result = exchange(&mut near, &frame(), &key, &IdentityRules::default(), NOW).await;
    drop(far);
    result
}

#[tokio::test(start_paused = true)]
async fn hostile_peers_get_named_errors() {
    assert!(against(&frame(), false).await.is_ok());
    // Judged by the head alone: no body follows, and none is waited for.
    assert_eq!(
        against(&[0, 0x01, 0x04], false).await,
        Err(IdentityError::TooLong(1025))
    );
    assert_eq!(
        against(&[1, 0, 0], false).await,
        Err(IdentityError::Version(1))
    );
    assert_eq!(
        against(&[0, 10, 0, 1], false).await,
        Err(IdentityError::Timeout)
    );
    let cut = against(&[0, 10, 0, 1], true).await;
    assert!(matches!(cut, Err(IdentityError::Io(_))), "{cut:?}");
}

proptest! {
    #[test]
    fn random_bytes_give_a_named_error(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
        let key = *identity(1).public_key();
        prop_assert!(check_identity(bytes.into(), &key, &IdentityRules::default(), NOW).is_err());
    }

    #[test]
    fn cut_or_changed_message_is_refused(at in 0_usize..10_000, flip in 1_u8..) {
        let message = frame()[3..].to_vec();
        let at = at % message.len();
        let key = *identity(1).public_key();
        let judge = |message: Vec<u8>| check_identity(message.into(), &key, &IdentityRules::default(), NOW);
        prop_assert!(judge(message[..at].to_vec()).is_err());
        let mut changed = message;
        changed[at] ^= flip;
        // User agent and protocol ids are not signed; whatever is accepted still holds the signed claim.
        if let Ok(info) = judge(changed) {
            prop_assert_eq!(&info.claim, &identity(1).claim());
        }
    }
}
