//! Opens many messages with the inversions and square roots of one.

use super::{KeyAgreement, Opened, Verified, open::Decrypted};
use crate::error::OpenError;
use crate::{identity::NodeIdentity, keys::PublicKey};

/// A message on its way.
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation per message"
)]
enum Stage {
    Done(Result<Opened, OpenError>),
    Masked(Decrypted),
}

/// Opens envelopes together, answering for each what [`Verified::open`] would.
///
/// The two multiplications of a message remain; what follows them is shared: the shared secrets are encoded together,
/// the masks are inverted together, and the senders are encoded together. As with a single message, one that does not
/// decrypt costs no unmasking.
///
/// The answers stand in the order of the envelopes.
#[must_use]
pub fn open_batch(
    envelopes: Vec<Verified>,
    identity: &NodeIdentity,
) -> Vec<Result<Opened, OpenError>> {
    let keys: Vec<_> = envelopes
        .iter()
        .map(|verified| verified.keys_for(identity))
        .collect();
    let ephemeral: Vec<PublicKey> = keys.iter().flatten().map(|(key, _)| *key).collect();
    if ephemeral.len() < 2 {
        return envelopes.into_iter().map(|it| it.open(identity)).collect();
    }
    let agreements = KeyAgreement::with_each(identity.secret_key(), &ephemeral);
    let mut next = agreements.iter();
    let mut masked = Vec::with_capacity(ephemeral.len());
    let stages: Vec<Stage> = envelopes
        .into_iter()
        .zip(keys)
        .map(|(verified, keys)| {
            let Some((agreement, (_, signer))) = keys.and_then(|keys| Some((next.next()?, keys)))
            else {
                return Stage::Done(verified.open(identity));
            };
            match Decrypted::new(verified.into_sealed(), &signer, agreement) {
                Ok(decrypted) => {
                    masked.push((agreement, signer));
                    Stage::Masked(decrypted)
                }
                Err(error) => Stage::Done(Err(error)),
            }
        })
        .collect();
    let mut origins = KeyAgreement::unmask_each(&masked).into_iter();
    stages
        .into_iter()
        .map(|stage| match stage {
            Stage::Done(outcome) => outcome,
            Stage::Masked(decrypted) => decrypted.sent_by(origins.next().flatten()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::{RawEnvelope, Signing, envelope::Sealed, test_util};

    /// Envelopes that may arrive at Bob: clear ones, Carol's, his, and such as are wrong in ways that only Bob can tell.
    fn arrival(kind: u8, seed: u64) -> Verified {
        let (alice, bob) = (test_util::identity(1), test_util::identity(2));
        let frame = match kind {
            0 => test_util::clear(&alice, Signing::Origin, b"hi", seed),
            1 => test_util::encrypted(&alice, &test_util::public_key(3), b"hi", seed),
            _ => test_util::encrypted(&alice, bob.public_key(), b"hi", seed),
        };
        let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
        let mut signer = *sealed.signature().unwrap().unwrap().signer();
        let (mut header, body, frame) = sealed.into_parts();
        let mut damaged = BytesMut::from(&frame[..]);
        match kind {
            3 => damaged[frame.len() - 1] ^= 1,
            4 => header.ephemeral_key = Some(PublicKey::from_bytes(&[0; 32]).unwrap()),
            5 => header.ephemeral_key = Some(test_util::public_key(4)),
            6 => signer = PublicKey::from_bytes(&[0; 32]).unwrap(),
            7 => header.ephemeral_key = None,
            _ => {}
        }
        let frame = damaged.freeze();
        let body: Bytes = frame.slice(frame.len() - body.len()..);
        Sealed::new(header, body, frame).into_verified(Some((signer, [0; 32])))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn batch_and_single_agree(arrivals in proptest::collection::vec((0_u8..8, any::<u64>()), 0..10)) {
            let bob = test_util::identity(2);
            let outcome = |it: Result<Opened, OpenError>| it.map(|it| (it.content, it.frame, it.body));
            let arrive = || arrivals.iter().map(|(kind, seed)| arrival(*kind, *seed));
            let single: Vec<_> = arrive().map(|it| outcome(it.open(&bob))).collect();
            let batch: Vec<_> = open_batch(arrive().collect(), &bob).into_iter().map(outcome).collect();
            for ((kind, _), outcome) in arrivals.iter().zip(&single) {
                prop_assert_eq!(outcome.is_ok(), *kind < 3, "kind {}", kind);
            }
            prop_assert_eq!(batch, single);
        }
    }
}
