//! Checks of an answer to a discovery (06 section 2.3, steps 5 and 6).

use std::fmt;

use dht_core::{ClaimError, Clock as _, PublicKey, SharedClock};
use dht_peers::{
    ClaimPolicy, Directory,
    policy::{BanPolicy, Offence, Parties},
    validate_claims,
};

use super::{claim::convert_claim, hook::DiscoveryAnswer};

/// Checks answers to discoveries and takes the peers into the directory: for a [`DiscoveryHook`](crate::DiscoveryHook)
/// that has matched the nonce.
///
/// Specification 06, section 2.3, steps 5 and 6.
#[derive(Clone)]
pub struct AnswerCheck {
    /// Where peers are kept.
    pub directory: Directory,
    /// Bans peers for the offences found here.
    pub bans: BanPolicy,
    /// Clock of this node.
    pub clock: SharedClock,
    /// Which claims are acceptable.
    pub claims: ClaimPolicy,
}

impl AnswerCheck {
    /// Takes the peer that answered a discovery for `sought` into the directory, or merges what is new about it; a ban
    /// of it stays.
    ///
    /// Costs the verification of one signature, which only the holder of `sought` can cause: nobody else knows the
    /// nonce.
    ///
    /// # Errors
    /// [`ClaimError`]. The responder is reported where the table has it so.
    pub fn accept(&self, answer: &DiscoveryAnswer, sought: &PublicKey) -> Result<(), ClaimError> {
        let blame = |offence| {
            let parties = Parties {
                deliverer: Some(answer.source.node_id.into()),
                origin: Some(answer.responder.into()),
                sought: Some((*sought).into()),
                ..Parties::default()
            };
            self.bans.report(offence, parties);
        };
        if answer.responder != *sought {
            blame(Offence::ResponseWrongKey);
            return Err(ClaimError::OtherKey);
        }
        let claim = convert_claim(&answer.message)?;
        let now = self.clock.now();
        let known = self.directory.find(&sought.node_id());
        let valid = validate_claims(sought, vec![claim], known.as_deref(), &self.claims, now);
        let valid = valid.inspect_err(|cause| match cause {
            // A mistake of this node's own.
            ClaimError::KeyMismatch => {}
            cause if cause.is_offence() => blame(Offence::ResponseForgedClaim),
            _ => blame(Offence::ResponseRefusedClaim),
        })?;
        let record = valid.to_record(now);
        self.directory.hear(record, &answer.source.node_id, now);
        Ok(())
    }
}

impl fmt::Debug for AnswerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCheck")
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use dht_core::{Features, ManualClock, Severity, test_util::identity};
    use dht_peers::{
        policy::AttributionProfile::{self, Legacy, Strict},
        test_util::BanLog,
    };
    use dht_proto::dht::DiscoveryResponseMessage;

    use super::*;
    use crate::test_support::{ME, NOW, bans, peer};

    const SOUGHT: u64 = 3;

    fn check(profile: AttributionProfile) -> (AnswerCheck, BanLog) {
        let (bans, taken) = bans(profile);
        let check = AnswerCheck {
            directory: Directory::new(*identity(ME).node_id()),
            bans,
            clock: Arc::new(ManualClock::new(NOW)),
            claims: ClaimPolicy::default().under(profile),
        };
        (check, taken)
    }

    fn answer_of(seed: u64) -> DiscoveryAnswer {
        let responder = identity(seed);
        let claim = responder.claim();
        let wire = |address: &dht_core::Address| Bytes::copy_from_slice(address.as_bytes());
        DiscoveryAnswer {
            responder: *responder.public_key(),
            source: peer(seed),
            message: DiscoveryResponseMessage {
                public_key: Bytes::copy_from_slice(responder.public_key().as_bytes()),
                addresses: claim.addresses.iter().map(wire).collect(),
                peer_features: claim.features.bits(),
                nonce: 77,
                identity_signature: Some((&claim.signature).into()),
            },
        }
    }

    fn key(seed: u64) -> PublicKey {
        *identity(seed).public_key()
    }

    #[test]
    fn good_answer_makes_peer_known() {
        for profile in [Strict, Legacy] {
            let (check, taken) = check(profile);
            check.accept(&answer_of(SOUGHT), &key(SOUGHT)).unwrap();
            let found = check.directory.find_by_key(&key(SOUGHT)).unwrap();
            assert_eq!(found.claim(), Some(&identity(SOUGHT).claim()));
            assert_eq!(taken.take(), []);
        }
    }

    #[test]
    fn a_ban_outlasts_the_answer() {
        let (check, _) = check(Strict);
        let until = NOW.saturating_add(600);
        check
            .directory
            .ban(key(SOUGHT), until, Severity::Low, "test", NOW);
        check.accept(&answer_of(SOUGHT), &key(SOUGHT)).unwrap();
        let id = key(SOUGHT).node_id();
        assert!(check.directory.is_banned(&id, NOW));
    }

    /// The wrong peer is blamed in strict and the sought one in legacy.
    #[test]
    fn wrong_responder_is_blamed_by_profile() {
        for (profile, blamed) in [(Strict, 4), (Legacy, SOUGHT)] {
            let (check, taken) = check(profile);
            let refused = check.accept(&answer_of(4), &key(SOUGHT));
            assert_eq!(refused, Err(ClaimError::OtherKey));
            let orders = taken.take();
            assert_eq!(orders.len(), 1);
            assert_eq!(
                (orders[0].public_key, orders[0].severity),
                (Some(key(blamed).into()), Severity::Medium)
            );
            assert!(check.directory.find_by_key(&key(4)).is_none());
        }
    }

    #[test]
    fn strict_blames_only_forged_claims() {
        let mut forged = answer_of(SOUGHT);
        forged.message.peer_features = Features::CLIENT.bits();
        let mut odd = answer_of(SOUGHT);
        odd.message.addresses = vec![odd.message.addresses[0].clone(); 6];
        let mut junk = answer_of(SOUGHT);
        junk.message.identity_signature = None;
        let severities = |profile: AttributionProfile| {
            let (check, taken) = check(profile);
            [&forged, &odd, &junk].map(|answer| {
                assert!(check.accept(answer, &key(SOUGHT)).is_err());
                assert!(check.directory.find_by_key(&key(SOUGHT)).is_none());
                taken.take().first().map(|order| order.severity)
            })
        };
        assert_eq!(severities(Strict), [Some(Severity::Medium), None, None]);
        assert_eq!(
            severities(Legacy),
            [Some(Severity::High), Some(Severity::High), None]
        );
    }
}
