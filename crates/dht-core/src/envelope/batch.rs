//! Checks many signatures with one multiplication.

use std::collections::BTreeMap;

use bytes::Bytes;
use curve25519_dalek::{
    constants::RISTRETTO_BASEPOINT_POINT,
    ristretto::RistrettoPoint,
    scalar::Scalar,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use rand_core::CryptoRng;

use super::{
    Sealed, Verified, binding,
    dedup_key::{begin_unsigned, canonical_body},
};
use crate::{
    error::VerifyError,
    hash::{DomainHasher, Hasher256},
    keys::PublicKey,
    schnorr::{MessageSignature, challenge},
};

/// Envelopes worth checking together: beyond this the gain is small and a forgery costs more to find.
pub const MAX_BATCH: usize = 64;

/// Bytes of one envelope that a batch hashes, and the use of the hash.
struct Part {
    index: usize,
    body: Bytes,
    hasher: Hasher256,
    /// Signature and decoded nonce; `None` for an unsigned message, whose hash is its dedup key.
    signed: Option<(MessageSignature, RistrettoPoint)>,
}

/// One signature in the sum.
struct Term {
    signature: MessageSignature,
    nonce: RistrettoPoint,
    challenge: Scalar,
}

/// Verifies envelopes together, answering for each what [`Sealed::verify`] would.
///
/// Every equation R + e·P − s·G = 0 is weighted with a random 128-bit number and all are summed in one variable-time
/// multiplication, in which each signer has one term. If the sum is not zero, each envelope is checked by itself, so
/// that only forgeries are refused. The group has prime order, so that batch and single check agree on every input,
/// except with a probability of 2⁻¹²⁸ that the sender of a forgery cannot influence.
///
/// The answers stand in the order of the envelopes.
pub fn verify_batch(
    envelopes: Vec<Sealed>,
    rng: &mut impl CryptoRng,
) -> Vec<Result<Verified, VerifyError>> {
    if envelopes.len() < 2 {
        return envelopes.into_iter().map(Sealed::verify).collect();
    }
    let mut parts = parts(&envelopes);
    // The long chunks of all envelopes together, several at a time in the lanes of a vector register.
    DomainHasher::chain_each(
        parts
            .iter_mut()
            .map(|part| (&mut part.hasher, &part.body[..])),
    );
    let mut terms = Vec::with_capacity(parts.len());
    let hashed: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let hash = part.hasher.finish();
            let signer = part.signed.map(|(signature, nonce)| {
                let challenge = challenge(signature.signer(), signature.nonce_ref(), &hash);
                let signer = *signature.signer();
                terms.push(Term {
                    signature,
                    nonce,
                    challenge,
                });
                signer
            });
            (part.index, hash, signer)
        })
        .collect();
    let holds = sum_is_zero(&terms, rng);
    let mut hashed = hashed.into_iter().peekable();
    let answers = envelopes.into_iter().enumerate().map(|(index, sealed)| {
        match hashed.next_if(|(of, ..)| *of == index) {
            Some((_, binding, Some(signer))) if holds => {
                Ok(sealed.into_verified(Some((signer, binding))))
            }
            Some((_, key, None)) => Ok(sealed.into_unsigned(key)),
            // Malformed, or one of a batch that did not add up.
            _ => sealed.verify(),
        }
    });
    answers.collect()
}

/// The part of each envelope in the batch. An envelope that cannot verify has none, nor has an unsigned one without a
/// dedup key.
fn parts(envelopes: &[Sealed]) -> Vec<Part> {
    // Messages of one sender often come together: its key is decoded once.
    let mut signers = BTreeMap::<[u8; 32], PublicKey>::new();
    let mut decode = |bytes: &[u8]| match signers.get(bytes) {
        Some(key) => Ok(*key),
        None => PublicKey::from_bytes(bytes).inspect(|key| {
            signers.insert(*key.as_bytes(), *key);
        }),
    };
    let mut part = |(index, sealed): (usize, &Sealed)| {
        sealed.check_semantics().ok()?;
        let field = &sealed.header().signature;
        if field.is_empty() {
            return Some(Part {
                index,
                body: canonical_body(sealed.body()).ok()?,
                hasher: begin_unsigned(sealed.header()),
                signed: None,
            });
        }
        let signature = MessageSignature::decode_with(field, &mut decode).ok()?;
        let nonce = signature.nonce_ref().decompress()?;
        (!signature.signer().is_identity()).then(|| Part {
            index,
            body: sealed.body().clone(),
            hasher: binding::begin(sealed.header()),
            signed: Some((signature, nonce)),
        })
    };
    envelopes.iter().enumerate().filter_map(&mut part).collect()
}

/// The weighted sum of the equations. Weights are not negated, so that the scalars of the nonces stay short.
fn sum_is_zero(terms: &[Term], rng: &mut impl CryptoRng) -> bool {
    let mut base = Scalar::ZERO;
    let mut signers = BTreeMap::<&PublicKey, Scalar>::new();
    let mut weights = Vec::with_capacity(terms.len());
    for term in terms {
        let weight = weight(rng);
        base -= weight * term.signature.scalar_ref();
        *signers.entry(term.signature.signer()).or_default() += weight * term.challenge;
        weights.push(weight);
    }
    let scalars = std::iter::once(&base)
        .chain(signers.values())
        .chain(&weights);
    let points = std::iter::once(&RISTRETTO_BASEPOINT_POINT)
        .chain(signers.keys().map(|signer| signer.point()))
        .chain(terms.iter().map(|term| &term.nonce));
    RistrettoPoint::vartime_multiscalar_mul(scalars, points).is_identity()
}

fn weight(rng: &mut impl CryptoRng) -> Scalar {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    Scalar::from(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Entropy, RawEnvelope, SeededEntropy, Signing, dedup_key, test_util};

    fn frame(kind: u8, seed: u64) -> Bytes {
        let (alice, bob) = (test_util::identity(1), test_util::identity(2));
        match kind {
            0 => test_util::clear(&alice, Signing::Anonymous, b"x", seed),
            1 => test_util::clear(&alice, Signing::Origin, b"y", seed),
            2 => test_util::clear(&bob, Signing::Origin, b"y", seed),
            _ => test_util::encrypted(&alice, bob.public_key(), b"z", seed),
        }
    }

    fn sealed(frame: Bytes) -> Sealed {
        RawEnvelope::parse(frame).unwrap().into_sealed().unwrap()
    }

    /// The envelope with another signature: its key, its nonce, its scalar.
    fn with_signature(sealed: &Sealed, signer: &[u8; 32], nonce: &[u8; 32], s: &Scalar) -> Sealed {
        let field = |tag: u8, bytes: &[u8; 32]| [&[tag, 32], &bytes[..]].concat();
        let fields = [
            field(0x0a, signer),
            field(0x12, nonce),
            field(0x1a, s.as_bytes()),
        ];
        let mut header = sealed.header().clone();
        header.signature = fields.concat().into();
        self::sealed(crate::encode_envelope(&header, sealed.body()))
    }

    fn verdicts(envelopes: Vec<Sealed>) -> Vec<bool> {
        let single: Vec<_> = envelopes
            .iter()
            .map(|sealed| sealed.clone().verify().is_ok())
            .collect();
        let batch = verify_batch(envelopes, &mut SeededEntropy::new(3).rng());
        let batch: Vec<_> = batch.into_iter().map(|result| result.is_ok()).collect();
        assert_eq!(batch, single);
        batch
    }

    /// Unweighted, two wrongs would make a right.
    #[test]
    fn cancelling_forgeries_are_refused() {
        let good = [1, 2, 3].map(|n| sealed(frame(1, n)));
        let shifted = |sealed: &Sealed, by: Scalar| {
            let signature = sealed.signature().unwrap().unwrap();
            let s = signature.scalar_ref() + by;
            with_signature(sealed, signature.signer().as_bytes(), signature.nonce(), &s)
        };
        let one = Scalar::ONE;
        let forged = [shifted(&good[0], one), shifted(&good[1], -one)];
        let [a, b] = forged;
        assert_eq!(verdicts(vec![a, b]), [false, false]);
        let mixed = vec![
            shifted(&good[0], one),
            good[2].clone(),
            shifted(&good[1], -one),
        ];
        assert_eq!(verdicts(mixed), [false, true, false]);
        assert_eq!(verdicts(good.to_vec()), [true, true, true]);
    }

    /// Keys and nonces at the edge: what one check refuses, so does the other, whatever else is in the batch.
    #[test]
    fn edge_points_verify_alike() {
        let good = sealed(frame(1, 1));
        let (signer, identity) = (good.signature().unwrap().unwrap(), [0; 32]);
        let (r, key) = (Scalar::from(7_u8), signer.signer().as_bytes());
        let nonce = RistrettoPoint::mul_base(&r).compress().to_bytes();
        let mut no_point = nonce;
        no_point[31] |= 0x80;
        let odd = [
            // s·G = R + e·0 holds for anybody who knows r.
            with_signature(&good, &identity, &nonce, &r),
            with_signature(&good, &identity, &identity, &Scalar::ZERO),
            with_signature(&good, key, &identity, &Scalar::ZERO),
            with_signature(&good, key, &no_point, signer.scalar_ref()),
            with_signature(&good, key, &[0xff; 32], signer.scalar_ref()),
        ];
        for odd in odd {
            assert_eq!(
                verdicts(vec![good.clone(), odd, good.clone()]),
                [true, false, true]
            );
        }
        // A signature with the nonce zero is valid, and its nonce the identity.
        let secret = test_util::identity(1);
        let binding = good.binding_hash();
        let zero = crate::SecretKey::from_bytes(&[0; 32]).unwrap();
        let nonceless = MessageSignature::sign_with_nonce(secret.secret_key(), &binding, &zero);
        let valid = with_signature(&good, key, &identity, nonceless.scalar_ref());
        assert_eq!(verdicts(vec![good, valid]), [true, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn batch_and_single_agree(
            kinds in proptest::collection::vec((0_u8..4, any::<Option<(u16, u8)>>()), 0..12),
            seed: u64,
        ) {
            let envelopes: Vec<Sealed> = kinds
                .into_iter()
                .zip(0..)
                .filter_map(|((kind, damage), n)| {
                    let mut bytes = frame(kind, n).to_vec();
                    if let Some((at, flip)) = damage {
                        let at = usize::from(at) % bytes.len().min(400);
                        bytes[at] ^= flip;
                    }
                    RawEnvelope::parse(bytes.into()).ok()?.into_sealed().ok()
                })
                .collect();
            let outcome = |result: Result<Verified, VerifyError>| {
                result.map(|v| (v.signer().copied(), v.binding_hash().copied(), dedup_key(&v)))
            };
            let single: Vec<_> = envelopes.clone().into_iter().map(Sealed::verify).map(outcome).collect();
            let batch: Vec<_> = verify_batch(envelopes, &mut SeededEntropy::new(seed).rng())
                .into_iter()
                .map(outcome)
                .collect();
            prop_assert_eq!(batch, single);
        }
    }
}
