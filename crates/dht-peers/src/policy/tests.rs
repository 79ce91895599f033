use dht_core::{CompressedKey, ManualClock, NodeId, UnixSeconds};

use super::*;
use crate::test_util::{BanLog, public_key};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const BOTH: [AttributionProfile; 2] = [AttributionProfile::Strict, AttributionProfile::Legacy];

fn policy(profile: AttributionProfile) -> (BanPolicy, Directory) {
    let directory = Directory::new(public_key(1).node_id());
    let clock = Arc::new(ManualClock::new(NOW));
    let policy = BanPolicy::new(profile, BanTerms::default(), directory.clone(), clock);
    (policy, directory)
}

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

#[test]
fn offences_are_punished_by_the_table() {
    let parties = Parties {
        deliverer: Some(id(2).into()),
        origin: Some(public_key(3).into()),
        sought: Some(public_key(4).into()),
        peer: Some(public_key(5).into()),
    };
    for profile in BOTH {
        for rule in rules() {
            let (policy, directory) = policy(profile);
            let log = BanLog::of(&directory);
            let ban = policy.report(rule.offence, parties);
            assert_eq!(log.take(), ban.as_slice());
            let Some(penalty) = rule.offence.penalty(profile) else {
                assert_eq!(ban, None);
                continue;
            };
            let ban = ban.unwrap();
            let (seed, key) = match penalty.party {
                Party::Deliverer => (2, None),
                Party::Origin => (3, Some(public_key(3))),
                Party::Sought => (4, Some(public_key(4))),
                Party::Peer => (5, Some(public_key(5))),
            };
            assert_eq!(
                (ban.node_id, ban.public_key),
                (id(seed), key.map(CompressedKey::from))
            );
            assert_eq!(
                (ban.severity, &*ban.reason, ban.offence),
                (penalty.severity, rule.text, Some(rule.offence))
            );
            let seconds = BanTerms::default().seconds(penalty.term);
            assert_eq!(ban.until, NOW.saturating_add(seconds));
        }
    }
}

#[test]
fn unknown_parties_are_not_banned() {
    let (policy, directory) = policy(AttributionProfile::Strict);
    let deliverer = Parties::deliverer(id(2));
    assert_eq!(policy.report(Offence::JoinForOther, deliverer), None);
    assert_eq!(policy.report(Offence::OwnMessage, Parties::default()), None);
    assert_eq!(directory.banned(NOW), []);
}

#[test]
fn bans_last_their_term() {
    let (policy, directory) = policy(AttributionProfile::Strict);
    policy.report(Offence::JoinForOther, Parties::origin(public_key(3)));
    // Shorter: does not shorten the ban in force.
    let standing = policy.report(Offence::JoinForgedClaim, Parties::origin(public_key(3)));
    assert_eq!(standing.unwrap().offence, Some(Offence::JoinForOther));
    assert!(directory.is_banned(&id(3), NOW.saturating_add(7_199)));
    assert!(!directory.is_banned(&id(3), NOW.saturating_add(7_200)));
    let ban = &directory.banned(NOW)[0];
    assert_eq!(&*ban.reason, Offence::JoinForOther.rule().text);
}

#[test]
fn allowed_peers_are_not_banned() {
    let (policy, directory) = policy(AttributionProfile::Legacy);
    directory.allow(id(2)).unwrap();
    for id in [id(2), id(1)] {
        assert_eq!(
            policy.report(Offence::OwnMessage, Parties::deliverer(id)),
            None
        );
        assert!(!directory.is_banned(&id, NOW));
    }
}
