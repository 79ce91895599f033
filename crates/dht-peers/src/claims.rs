//! Claim validation: specification 03, section 3.12.4.

use std::sync::Arc;

use dht_core::{AddressPolicy, AddressRefusal, Claim, ClaimError, PublicKey, UnixSeconds};

use crate::{Channel, PeerRecord};

/// Claims accepted for one peer in one message, unless configured otherwise.
pub const MAX_CLAIMS: usize = 5;

/// Addresses accepted in one claim, unless configured otherwise.
pub const MAX_CLAIM_ADDRESSES: usize = 5;

/// What a set of claims may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// Most claims a peer; defaults to [`MAX_CLAIMS`].
    pub max_claims: usize,
    /// Most addresses a claim; defaults to [`MAX_CLAIM_ADDRESSES`].
    pub max_addresses: usize,
    /// Which addresses; test addresses are refused by default.
    pub addresses: AddressPolicy,
}

/// Claims that passed [`validate_claims`]; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidClaims {
    public_key: PublicKey,
    /// Oldest first.
    claims: Vec<Arc<Claim>>,
    newest: Arc<Claim>,
}

/// Why claims are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// A peer without any claim cannot be checked.
    #[error("peer has no claim")]
    NoClaims,
    /// More than [`ClaimPolicy::max_claims`].
    #[error("peer has {found} claims, at most {max} are accepted")]
    TooManyClaims {
        /// How many there are.
        found: usize,
        /// How many may be.
        max: usize,
    },
    /// The record held under this node id has another key.
    #[error("public key differs from the one already known for this node id")]
    KeyMismatch,
    /// A claim leads nowhere.
    #[error("claim has no address")]
    NoAddresses,
    /// More than [`ClaimPolicy::max_addresses`].
    #[error("claim has {found} addresses, at most {max} are accepted")]
    TooManyAddresses {
        /// How many there are.
        found: usize,
        /// How many may be.
        max: usize,
    },
    /// An address that may not be advertised.
    #[error("claim has an address that may not be advertised")]
    Address(#[source] AddressRefusal),
    /// The owner did not sign this, or not at a possible time.
    #[error("claim is not validly signed")]
    Signature(#[source] ClaimError),
}

impl Default for ClaimPolicy {
    fn default() -> Self {
        Self {
            max_claims: MAX_CLAIMS,
            max_addresses: MAX_CLAIM_ADDRESSES,
            addresses: AddressPolicy::default(),
        }
    }
}

/// Checks the claims of a peer, the cheap rules first and the signatures last. `known` is the record held for the
/// node id of `key`, if there is one.
///
/// # Errors
/// The first rule that is broken. Only [`ClaimsError::is_offence`] proves bad faith.
pub fn validate_claims(
    key: &PublicKey,
    claims: Vec<Claim>,
    known: Option<&PeerRecord>,
    policy: &ClaimPolicy,
    now: UnixSeconds,
) -> Result<ValidClaims, ClaimsError> {
    if claims.len() > policy.max_claims {
        return Err(ClaimsError::TooManyClaims {
            found: claims.len(),
            max: policy.max_claims,
        });
    }
    if known.is_some_and(|known| known.public_key() != key) {
        return Err(ClaimsError::KeyMismatch);
    }
    for claim in &claims {
        if claim.addresses.is_empty() {
            return Err(ClaimsError::NoAddresses);
        }
        if claim.addresses.len() > policy.max_addresses {
            let (found, max) = (claim.addresses.len(), policy.max_addresses);
            return Err(ClaimsError::TooManyAddresses { found, max });
        }
        for address in &claim.addresses {
            address
                .check_policy(&policy.addresses)
                .map_err(ClaimsError::Address)?;
        }
    }
    for claim in &claims {
        claim.verify(key, now).map_err(ClaimsError::Signature)?;
    }
    let mut claims: Vec<_> = claims.into_iter().map(Arc::new).collect();
    claims.sort_by_key(|claim| claim.signature.updated_at());
    let newest = Arc::clone(claims.last().ok_or(ClaimsError::NoClaims)?);
    Ok(ValidClaims {
        public_key: *key,
        claims,
        newest,
    })
}

// === impl ValidClaims ===

impl ValidClaims {
    /// Whose claims they are.
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

    /// The peer they describe, with the addresses of the newest claim.
    #[must_use]
    pub fn to_record(&self, via: Channel, now: UnixSeconds) -> PeerRecord {
        PeerRecord::from_claim(self.public_key, Arc::clone(&self.newest), via, now)
    }
}

// === impl ClaimsError ===

impl ClaimsError {
    /// Whether only bad faith explains it: a signature that does not hold. Everything else can be an honest peer
    /// with other limits, an unusual address or a wrong clock.
    #[must_use]
    pub const fn is_offence(&self) -> bool {
        matches!(self, Self::Signature(ClaimError::BadSignature))
    }
}

#[cfg(test)]
mod tests {
    use dht_core::Features;

    use super::*;
    use crate::test_util::{claim, secret};

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    fn check(claims: Vec<Claim>) -> Result<ValidClaims, ClaimsError> {
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

    #[test]
    fn good_claims_pass_and_the_newest_leads() {
        let valid = check(vec![
            signed(&["/ip4/1.2.3.4/tcp/5"], NOW.0),
            signed(&["/ip4/1.2.3.5/tcp/5"], 7),
        ])
        .unwrap();
        assert_eq!(valid.newest().signature.updated_at(), NOW.0 as i64);
        let record = valid.to_record(Channel::Discovery, NOW);
        assert_eq!(record.addresses().len(), 1);
        assert_eq!(record.claim(), Some(valid.newest()));
    }

    #[test]
    fn counts_have_limits() {
        assert_eq!(check(vec![]), Err(ClaimsError::NoClaims));
        let many = vec![signed(&["/ip4/1.2.3.4/tcp/5"], 7); 6];
        assert_eq!(
            check(many),
            Err(ClaimsError::TooManyClaims { found: 6, max: 5 })
        );
        assert_eq!(check(vec![signed(&[], 7)]), Err(ClaimsError::NoAddresses));
        let many = signed(&["/ip4/1.2.3.4/tcp/5"; 6], 7);
        assert_eq!(
            check(vec![many]),
            Err(ClaimsError::TooManyAddresses { found: 6, max: 5 })
        );
    }

    #[test]
    fn test_addresses_need_permission() {
        let memory = signed(&["/memory/7"], 7);
        let refused = check(vec![memory.clone()]).unwrap_err();
        assert_eq!(refused, ClaimsError::Address(AddressRefusal::TestOnly));
        assert!(!refused.is_offence());
        let policy = ClaimPolicy {
            addresses: AddressPolicy { allow_test: true },
            ..Default::default()
        };
        let key = secret(1).public_key();
        validate_claims(&key, vec![memory], None, &policy, NOW).unwrap();
    }

    #[test]
    fn only_a_false_signature_is_an_offence() {
        let mut forged = signed(&["/ip4/1.2.3.4/tcp/5"], 7);
        forged.features = Features::CLIENT;
        let refused = check(vec![forged]).unwrap_err();
        assert_eq!(refused, ClaimsError::Signature(ClaimError::BadSignature));
        assert!(refused.is_offence());
        let early = check(vec![signed(&["/ip4/1.2.3.4/tcp/5"], NOW.0 + 100_000)]).unwrap_err();
        assert_eq!(early, ClaimsError::Signature(ClaimError::FromTheFuture));
        assert!(!early.is_offence());
    }

    #[test]
    fn a_known_record_must_have_the_same_key() {
        let other = PeerRecord::new(secret(2).public_key(), Features::NODE, NOW);
        let result = validate_claims(
            &secret(1).public_key(),
            vec![signed(&["/ip4/1.2.3.4/tcp/5"], 7)],
            Some(&other),
            &ClaimPolicy::default(),
            NOW,
        );
        assert_eq!(result, Err(ClaimsError::KeyMismatch));
    }
}
