//! The keys of one message (01 section 6.2).

use std::fmt;

use curve25519_dalek::scalar::Scalar;
use ring::aead;
use zeroize::Zeroizing;

use crate::{
    hash::{Hasher256, Hasher512, KEY_MASK, KEY_MESSAGE},
    keys::{PublicKey, SecretKey, SharedSecret},
};

/// Values that both ends derive from their Diffie-Hellman secret: the message key and the mask of the sender's key.
/// See 01 section 6.2.
///
/// ```
/// use dht_core::{Entropy, KeyAgreement, SecretKey, SeededEntropy};
///
/// let mut rng = SeededEntropy::new(1).rng();
/// let [sender, once, recipient] = std::array::from_fn(|_| SecretKey::random(&mut rng));
/// let theirs = KeyAgreement::new(&once, &recipient.public_key());
/// let ours = KeyAgreement::new(&recipient, &once.public_key());
/// assert_eq!(theirs.message_key_bytes(), ours.message_key_bytes());
/// let masked = theirs.mask_secret(&sender).public_key();
/// assert_eq!(ours.unmask(&masked), Some(sender.public_key()));
/// ```
pub struct KeyAgreement {
    secret: SharedSecret,
    mask: Zeroizing<Scalar>,
}

impl KeyAgreement {
    /// Agrees on the keys of one message: the sender with its ephemeral secret and the recipient's key, the
    /// recipient with its secret and the ephemeral key.
    #[must_use]
    pub fn new(ours: &SecretKey, theirs: &PublicKey) -> Self {
        Self::from_secret(ours.shared_secret(theirs))
    }

    fn from_secret(secret: SharedSecret) -> Self {
        let wide = Hasher512::hash_secret(KEY_MASK, secret.as_bytes());
        let mask = Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide));
        Self { secret, mask }
    }

    /// The 32-byte AEAD key.
    #[must_use]
    pub fn message_key_bytes(&self) -> Zeroizing<[u8; 32]> {
        Hasher256::hash_secret(KEY_MESSAGE, self.secret.as_bytes())
    }

    /// The mask as 32 little-endian bytes.
    #[must_use]
    pub fn mask_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.mask.to_bytes())
    }

    /// The shared Diffie-Hellman secret.
    #[must_use]
    pub const fn shared_secret(&self) -> &SharedSecret {
        &self.secret
    }

    /// The secret key a sender signs with: mask·k.
    #[must_use]
    pub fn mask_secret(&self, secret: &SecretKey) -> SecretKey {
        SecretKey::from_scalar(*self.mask * secret.scalar())
    }

    /// The sender behind a masked key; `None` for the mask zero, which nothing can be divided by.
    #[must_use]
    pub fn unmask(&self, masked: &PublicKey) -> Option<PublicKey> {
        if *self.mask == Scalar::ZERO {
            return None;
        }
        let inverse = Zeroizing::new(self.mask.invert());
        Some(PublicKey::from_point(masked.point() * *inverse))
    }

    /// Calls [`new`](Self::new) for each of the keys. The secrets are encoded together, which spares each a
    /// square root.
    pub(super) fn with_each(ours: &SecretKey, theirs: &[PublicKey]) -> Vec<Self> {
        let secrets = ours.shared_secrets(theirs);
        secrets.into_iter().map(Self::from_secret).collect()
    }

    /// Calls [`unmask`](Self::unmask) for each of the pairs, with one inversion for all of them.
    pub(super) fn unmask_each(pairs: &[(&Self, PublicKey)]) -> Vec<Option<PublicKey>> {
        let is_zero = |agreement: &Self| *agreement.mask == Scalar::ZERO;
        let mut inverses: Zeroizing<Vec<Scalar>> = pairs
            .iter()
            // A zero would take all the others with it.
            .map(|(it, _)| if is_zero(it) { Scalar::ONE } else { *it.mask })
            .collect::<Vec<_>>()
            .into();
        Zeroizing::new(Scalar::invert_batch_alloc(&mut inverses));
        let factors = inverses.iter().zip(pairs.iter().map(|(_, masked)| masked));
        PublicKey::products(factors)
            .into_iter()
            .zip(pairs)
            .map(|(origin, (agreement, _))| (!is_zero(agreement)).then_some(origin))
            .collect()
    }

    pub(super) fn mask(&self) -> &Scalar {
        &self.mask
    }

    pub(super) fn message_key(&self) -> aead::LessSafeKey {
        let key = self.message_key_bytes();
        // Correctness: ring refuses only keys that are not 32 bytes long.
        aead::LessSafeKey::new(
            aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*key)
                .unwrap_or_else(|_| unreachable!("a message key has 32 bytes")),
        )
    }
}

impl fmt::Debug for KeyAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyAgreement(..)")
    }
}
