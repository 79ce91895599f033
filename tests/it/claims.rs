//! Claims: what a node accepts of another.

use dht_core::test_util::{NOW, identity};
use dht_core::{Claim, ClaimError, IdentitySignature};
use dht_peers::{ClaimPolicy, validate_claims};

#[test]
fn b097_an_all_zero_signature_is_invalid() {
    let node = identity(1);
    let signature = IdentitySignature::from_parts(0, &[0; 32], &[0; 32], 1_700_000_000).unwrap();
    let claim = Claim {
        signature,
        ..(*node.claim()).clone()
    };
    assert_eq!(
        claim.verify(node.public_key(), NOW),
        Err(ClaimError::BadSignature)
    );
    let refused = validate_claims(
        node.public_key(),
        vec![claim],
        None,
        &ClaimPolicy::default(),
        NOW,
    );
    assert_eq!(refused.unwrap_err(), ClaimError::BadSignature);
}

/// A peer without claims, or with claims without addresses, is refused.
#[test]
fn b098_peer_without_claims_is_refused() {
    let node = identity(1);
    let check = |claims| {
        validate_claims(
            node.public_key(),
            claims,
            None,
            &ClaimPolicy::default(),
            NOW,
        )
        .unwrap_err()
    };
    assert_eq!(check(Vec::new()), ClaimError::NoClaims);
    let nowhere = Claim {
        addresses: Vec::new(),
        ..(*node.claim()).clone()
    };
    assert_eq!(check(vec![nowhere]), ClaimError::NoAddresses);
}
