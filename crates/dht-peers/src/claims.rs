//! Claim validation: specification 03, section 3.12.4.

use std::sync::Arc;

use dht_core::{Address, AddressPolicy, Claim, ClaimError, PublicKey, UnixSeconds};

use crate::{policy::AttributionProfile, record::PeerRecord};

/// Claims accepted for one peer in one message, unless configured otherwise.
pub const MAX_CLAIMS: usize = 5;

/// Addresses accepted in one claim, unless configured otherwise.
pub const MAX_CLAIM_ADDRESSES: usize = 5;

/// Addresses a claim may state, those this node has no use for included: a claim is kept whole, for its signature
/// covers them all, so without a bound one peer could fill the directory.
pub const MAX_STATED_ADDRESSES: usize = 32;

/// Bytes of all addresses a claim states. An honest peer states the same ones in its identity message, which has
/// 1 024 bytes for everything.
pub const MAX_CLAIM_BYTES: usize = 1_024;

/// Bounds on the claims of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// Most claims a peer; defaults to [`MAX_CLAIMS`].
    pub max_claims: usize,
    /// Most addresses a claim; defaults to [`MAX_CLAIM_ADDRESSES`].
    pub max_addresses: usize,
    /// Which addresses; test addresses are refused by default.
    pub addresses: AddressPolicy,
    /// Treatment of addresses this node has no use for; defaults to [`Unusable::LeaveOut`].
    pub unusable: Unusable,
}

/// Treatment of a claim with addresses this node has no use for: those that may not be advertised, and, beside
/// public ones and unless test addresses are allowed, those of a local network. Where test addresses are not allowed, a
/// claim without any public address is valid, but has no address to dial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unusable {
    /// The peer is kept with the others; only a claim without any other is refused. Counts and limits apply to what
    /// is kept. The strict profile: a peer is not lost because of a name its own network gives it.
    #[default]
    LeaveOut,
    /// The claim is refused if an address may not be advertised; addresses of local networks are kept like others.
    /// The legacy profile.
    Refuse,
}

/// Claims that passed [`validate_claims`]; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidClaims {
    public_key: PublicKey,
    /// Checked claims, the oldest first.
    claims: Vec<Arc<Claim>>,
    newest: Arc<Claim>,
    /// The addresses of the newest claim to be used.
    addresses: Vec<Address>,
}

impl ClaimPolicy {
    /// A peer from a claim it made over its own connection, which the handshake has checked. Of its addresses only
    /// those are kept that this policy has a use for, possibly none: it is connected all the same.
    #[must_use]
    pub fn record(&self, key: PublicKey, claim: Arc<Claim>, now: UnixSeconds) -> PeerRecord {
        let usable = self.usable(&claim).unwrap_or_default();
        let usable: Vec<_> = usable.into_iter().cloned().collect();
        PeerRecord::from_claim_at(key, claim, &usable, now)
    }

    /// This policy under a profile: strict makes the best of a claim with addresses of no use, legacy refuses it.
    #[must_use]
    pub const fn under(mut self, profile: AttributionProfile) -> Self {
        self.unusable = match profile {
            AttributionProfile::Strict => Unusable::LeaveOut,
            AttributionProfile::Legacy => Unusable::Refuse,
        };
        self
    }
}

impl Default for ClaimPolicy {
    fn default() -> Self {
        Self {
            max_claims: MAX_CLAIMS,
            max_addresses: MAX_CLAIM_ADDRESSES,
            addresses: AddressPolicy::default(),
            unusable: Unusable::default(),
        }
    }
}

impl ClaimPolicy {
    /// The addresses of a claim this node uses, in their order.
    fn usable<'a>(&self, claim: &'a Claim) -> Result<Vec<&'a Address>, ClaimError> {
        check_size(&claim.addresses)?;
        let mut usable = Vec::with_capacity(claim.addresses.len().min(self.max_addresses));
        let mut refusal = None;
        for address in &claim.addresses {
            match address.check_policy(&self.addresses) {
                Ok(()) => usable.push(address),
                Err(cause) if self.unusable == Unusable::Refuse => {
                    return Err(cause);
                }
                Err(cause) => refusal = Some(cause),
            }
        }
        if self.unusable == Unusable::LeaveOut
            && !self.addresses.allow_test
            && usable.iter().any(|address| address.is_public())
        {
            usable.retain(|address| address.is_public());
        }
        match (usable.len(), refusal) {
            (0, Some(cause)) => Err(cause),
            (0, None) => Err(ClaimError::NoAddresses),
            (found, _) if found > self.max_addresses => Err(ClaimError::TooManyAddresses {
                found,
                max: self.max_addresses,
            }),
            _ if !self.addresses.allow_test
                && !usable.iter().any(|address| address.is_public()) =>
            {
                Ok(Vec::new())
            }
            _ => {
                usable.retain(|address| !address.is_nowhere());
                Ok(usable)
            }
        }
    }
}

/// Bound on the addresses kept of a claim, under any policy.
fn check_size(addresses: &[Address]) -> Result<(), ClaimError> {
    let found = addresses.len();
    if found > MAX_STATED_ADDRESSES {
        let max = MAX_STATED_ADDRESSES;
        return Err(ClaimError::TooManyAddresses { found, max });
    }
    let bytes = addresses.iter().map(|address| address.as_bytes().len());
    match bytes.sum() {
        found if found > MAX_CLAIM_BYTES => Err(ClaimError::TooLong {
            found,
            max: MAX_CLAIM_BYTES,
        }),
        _ => Ok(()),
    }
}

/// Checks the claims of a peer, the cheap rules first and the signatures last. `known` is the record held for the
/// node id of `key`, if there is one.
///
/// # Errors
/// The first rule that is broken. Only [`ClaimError::is_offence`] proves bad faith.
pub fn validate_claims(
    key: &PublicKey,
    claims: Vec<Claim>,
    known: Option<&PeerRecord>,
    policy: &ClaimPolicy,
    now: UnixSeconds,
) -> Result<ValidClaims, ClaimError> {
    if claims.len() > policy.max_claims {
        return Err(ClaimError::TooManyClaims {
            found: claims.len(),
            max: policy.max_claims,
        });
    }
    if known.is_some_and(|known| known.public_key() != key.compressed()) {
        return Err(ClaimError::KeyMismatch);
    }
    for claim in &claims {
        policy.usable(claim)?;
    }
    for claim in &claims {
        // Over all addresses, also those left out: that is what was signed.
        claim.verify(key, now)?;
    }
    let mut claims: Vec<_> = claims.into_iter().map(Arc::new).collect();
    claims.sort_by_key(|claim| claim.signature.updated_at());
    let newest = Arc::clone(claims.last().ok_or(ClaimError::NoClaims)?);
    let addresses = policy.usable(&newest)?.into_iter().cloned().collect();
    Ok(ValidClaims {
        public_key: *key,
        claims,
        newest,
        addresses,
    })
}

// === impl ValidClaims ===

impl ValidClaims {
    /// Key of the peer that signed the claims.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The claim signed last; features of a new peer come from it.
    #[must_use]
    pub const fn newest(&self) -> &Arc<Claim> {
        &self.newest
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn claims(&self) -> &[Arc<Claim>] {
        &self.claims
    }

    /// The addresses of the newest claim that are used; none if only local networks know them and this is no test network.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The peer they describe, with the [addresses](Self::addresses) of the newest claim.
    #[must_use]
    pub fn to_record(&self, now: UnixSeconds) -> PeerRecord {
        let claim = Arc::clone(&self.newest);
        PeerRecord::from_claim_at(self.public_key, claim, &self.addresses, now)
    }
}

#[cfg(test)]
mod tests {
    use dht_core::Features;

    use super::*;
    use crate::test_util::{claim, secret};

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    fn check(claims: Vec<Claim>) -> Result<ValidClaims, ClaimError> {
        validate_claims(
            &secret(1).public_key(),
            claims,
            None,
            &ClaimPolicy::default(),
            NOW,
        )
    }

    fn signed(addresses: &[&str], at: u64) -> Claim {
        claim(1, addresses, Features::NODE, UnixSeconds(at))
    }

    /// A node that listens nowhere is known, on a test network as well, and nobody dials it.
    #[test]
    fn nowhere_is_not_used() {
        let nowhere = Address::nowhere().to_string();
        let test_network = AddressPolicy { allow_test: true };
        for addresses in [AddressPolicy::default(), test_network] {
            for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
                let policy = ClaimPolicy {
                    addresses,
                    ..ClaimPolicy::default()
                };
                let (key, claims) = (secret(1).public_key(), vec![signed(&[&nowhere], NOW.0)]);
                let valid = validate_claims(&key, claims, None, &policy.under(profile), NOW);
                assert_eq!(valid.unwrap().addresses(), []);
            }
        }
    }

    #[test]
    fn good_claims_pass_newest_first() {
        let valid = check(vec![
            signed(&["/ip4/1.2.3.4/tcp/5"], NOW.0),
            signed(&["/ip4/1.2.3.5/tcp/5"], 7),
        ])
        .unwrap();
        assert_eq!(valid.newest().signature.updated_at(), NOW.0 as i64);
        let record = valid.to_record(NOW);
        assert_eq!(record.addresses().len(), 1);
        assert_eq!(record.claim(), Some(valid.newest()));
    }

    #[test]
    fn dp18_counts_have_limits() {
        assert_eq!(check(vec![]), Err(ClaimError::NoClaims));
        let many = vec![signed(&["/ip4/1.2.3.4/tcp/5"], 7); 6];
        assert_eq!(
            check(many),
            Err(ClaimError::TooManyClaims { found: 6, max: 5 })
        );
        assert_eq!(check(vec![signed(&[], 7)]), Err(ClaimError::NoAddresses));
        let many = signed(&["/ip4/1.2.3.4/tcp/5"; 6], 7);
        assert_eq!(
            check(vec![many]),
            Err(ClaimError::TooManyAddresses { found: 6, max: 5 })
        );
    }

    #[test]
    fn dp17_signature_of_zeros_is_invalid() {
        let mut claim = signed(&["/ip4/1.2.3.4/tcp/5"], 7);
        let zeros = dht_core::IdentitySignature::from_parts(0, &[0; 32], &[0; 32], 7);
        claim.signature = zeros.unwrap();
        let error = check(vec![claim]).unwrap_err();
        assert!(error.is_offence(), "{error}");
    }

    /// A claim is kept whole, in memory and for as long as its peer is known.
    #[test]
    fn kept_claim_addresses_are_bounded() {
        let good = "/ip4/1.2.3.4/tcp/5".to_owned();
        let check_all = |addresses: &[String]| {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            check(vec![signed(&addresses, 7)]).map(|valid| valid.addresses().len())
        };
        let name = |length| format!("/dns4/{}.example/tcp/5", "a".repeat(length));
        assert_eq!(check_all(&[good.clone(), name(245)]), Ok(2));
        // A usable name, and one that is of no use beside a good address.
        let unix = format!("/unix/{}", "a".repeat(8_000_000));
        for long in [name(1_024), name(8_000_000), unix] {
            let refused = check_all(&[good.clone(), long]).unwrap_err();
            assert!(matches!(refused, ClaimError::TooLong { .. }), "{refused}");
            assert!(!refused.is_offence());
        }
        let mut many = vec![String::new(); MAX_STATED_ADDRESSES - 1];
        many.push(good);
        assert_eq!(check_all(&many), Ok(1));
        many.push(String::new());
        let (found, max) = (many.len(), MAX_STATED_ADDRESSES);
        let refused = ClaimError::TooManyAddresses { found, max };
        assert_eq!(check_all(&many), Err(refused));
    }

    #[test]
    fn test_addresses_need_permission() {
        let memory = signed(&["/memory/7"], 7);
        let refused = check(vec![memory.clone()]).unwrap_err();
        assert_eq!(refused, ClaimError::AddressTestOnly);
        assert!(!refused.is_offence());
        let policy = ClaimPolicy {
            addresses: AddressPolicy { allow_test: true },
            ..Default::default()
        };
        let key = secret(1).public_key();
        validate_claims(&key, vec![memory], None, &policy, NOW).unwrap();
    }

    /// A claim names public, local and internal addresses: only the public one is kept.
    #[test]
    fn b099_only_public_address_is_kept() {
        let addresses = [
            "/ip4/127.0.0.1/tcp/5",
            "/ip4/10.0.0.1/tcp/5",
            "/ip4/192.168.0.1/tcp/5",
            "/ip4/1.2.3.4/tcp/5",
            "/ip4/0.0.0.0/tcp/5",
            "/ip6/fd00::1/tcp/5",
            "/memory/7",
        ];
        let claims = || vec![signed(&addresses, 7)];
        let valid = check(claims()).unwrap();
        let public: Address = addresses[3].parse().unwrap();
        assert_eq!(valid.addresses(), std::slice::from_ref(&public));
        let record = valid.to_record(NOW);
        let kept: Vec<_> = record
            .addresses()
            .iter()
            .map(|kept| &kept.address)
            .collect();
        assert_eq!(kept, [&public]);
        // The claim is passed on whole: its signature covers every address.
        assert_eq!(record.claim().unwrap().addresses.len(), 7);

        let key = secret(1).public_key();
        let legacy = ClaimPolicy {
            unusable: Unusable::Refuse,
            ..ClaimPolicy::default()
        };
        assert!(matches!(
            validate_claims(&key, claims(), None, &legacy, NOW),
            Err(ClaimError::AddressUnspecified)
        ));
        // With test addresses allowed there are seven that may be used, two more than the limit.
        let testing = ClaimPolicy {
            addresses: AddressPolicy { allow_test: true },
            ..ClaimPolicy::default()
        };
        assert_eq!(
            validate_claims(&key, claims(), None, &testing, NOW),
            Err(ClaimError::TooManyAddresses { found: 7, max: 5 })
        );
    }

    /// Valid by the address rules, but only of use in the network it comes from: there all addresses count.
    #[test]
    fn private_addresses_count_on_localnet_only() {
        let local = ["/ip4/10.0.0.1/tcp/5", "/ip4/127.0.0.1/tcp/5"];
        let claims = || vec![signed(&local, 7)];
        let valid = check(claims()).unwrap();
        assert_eq!(valid.addresses(), []);
        assert_eq!(valid.newest().addresses.len(), 2);
        let key = secret(1).public_key();
        let localnet = ClaimPolicy {
            addresses: AddressPolicy { allow_test: true },
            ..ClaimPolicy::default()
        };
        let valid = validate_claims(&key, claims(), None, &localnet, NOW).unwrap();
        let kept: Vec<_> = valid.addresses().iter().map(Address::to_string).collect();
        assert_eq!(kept, local);
    }

    /// A connected peer whose claim has no usable address is kept without one.
    #[test]
    fn connected_peer_may_lack_addresses() {
        let key = secret(1).public_key();
        let kept = |addresses: &[&str]| {
            let claim = Arc::new(signed(addresses, 7));
            let policy = ClaimPolicy::default();
            let record = policy.record(key, claim, NOW);
            assert!(record.claim().is_some());
            record.addresses().len()
        };
        assert_eq!(kept(&["/ip4/1.2.3.4/tcp/5", "/ip4/10.0.0.1/tcp/5"]), 1);
        assert_eq!(kept(&["/ip4/10.0.0.1/tcp/5"]), 0);
        assert_eq!(kept(&["/memory/7"]), 0);
    }

    /// Addresses that are not kept are still covered by the signature that is checked.
    #[test]
    fn dropped_addresses_stay_signed() {
        let mut forged = signed(&["/ip4/1.2.3.4/tcp/5", "/ip4/10.0.0.1/tcp/5"], 7);
        forged.addresses.pop();
        let refused = check(vec![forged]).unwrap_err();
        assert_eq!(refused, ClaimError::BadSignature);
    }

    #[test]
    fn only_false_signature_is_offence() {
        let mut forged = signed(&["/ip4/1.2.3.4/tcp/5"], 7);
        forged.features = Features::CLIENT;
        let refused = check(vec![forged]).unwrap_err();
        assert_eq!(refused, ClaimError::BadSignature);
        assert!(refused.is_offence());
        let early = check(vec![signed(&["/ip4/1.2.3.4/tcp/5"], NOW.0 + 100_000)]).unwrap_err();
        assert_eq!(early, ClaimError::FromTheFuture);
        assert!(!early.is_offence());
    }

    #[test]
    fn known_record_must_have_same_key() {
        let other = PeerRecord::new(secret(2).public_key(), Features::NODE, NOW);
        let result = validate_claims(
            &secret(1).public_key(),
            vec![signed(&["/ip4/1.2.3.4/tcp/5"], 7)],
            Some(&other),
            &ClaimPolicy::default(),
            NOW,
        );
        assert_eq!(result, Err(ClaimError::KeyMismatch));
    }
}
