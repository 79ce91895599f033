//! Schnorr signatures over Ristretto255 (01 section 4).
//!
//! The challenge is always a 64-byte domain hash that contains the signer's key, the public nonce and the
//! message; who builds it decides what is signed.

use bytes::Bytes;
use curve25519_dalek::{
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar,
    traits::IsIdentity,
};
use dht_proto::message_signature::ProtoMessageSignature;
use prost::Message;
use rand_core::CryptoRng;

use crate::{
    error::{ParseError, VerifyError},
    hash::{Hasher512, MESSAGE_SIGNATURE},
    keys::{PublicKey, SecretKey, scalar_from_bytes},
};

/// A decoded message signature: who signed, the public nonce, the scalar.
///
/// # Wire format
/// `ProtoMessageSignature { 1: signer, 2: nonce, 3: scalar }`, 102 bytes when canonical. Not encrypted:
/// for encrypted messages the signer is the masked key. See 01 section 6.5.
///
/// ```
/// use dht_core::{Entropy, MessageSignature, SecretKey, SeededEntropy};
///
/// let mut rng = SeededEntropy::new(1).rng();
/// let signature = MessageSignature::sign(&SecretKey::random(&mut rng), &[7; 32], &mut rng);
/// assert!(signature.verify(&[7; 32]) && !signature.verify(&[8; 32]));
/// assert_eq!(MessageSignature::decode(&signature.encode())?, signature);
/// # Ok::<(), dht_core::VerifyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSignature {
    signer: PublicKey,
    nonce: CompressedRistretto,
    scalar: Scalar,
}

impl MessageSignature {
    /// Bytes of the canonical encoding.
    pub const CANONICAL_LENGTH: usize = 102;

    /// Decodes the header field `message_signature`.
    ///
    /// The nonce is checked to be a point only by [`MessageSignature::verify`], which compares encodings: a
    /// non-canonical nonce never verifies.
    ///
    /// # Errors
    /// [`VerifyError`] naming the part that does not decode.
    pub fn decode(bytes: &[u8]) -> Result<Self, VerifyError> {
        Self::decode_with(bytes, PublicKey::from_bytes)
    }

    /// Decodes the field, the signer's key by `signer`.
    pub(crate) fn decode_with(
        bytes: &[u8],
        signer: impl FnOnce(&[u8]) -> Result<PublicKey, ParseError>,
    ) -> Result<Self, VerifyError> {
        let proto = ProtoMessageSignature::decode(bytes).map_err(|_| VerifyError::Malformed)?;
        let signer = signer(&proto.signer_public_key).map_err(|_| VerifyError::Signer)?;
        let nonce =
            CompressedRistretto::from_slice(&proto.public_nonce).map_err(|_| VerifyError::Nonce)?;
        let scalar = scalar_from_bytes(&proto.signature).map_err(|_| VerifyError::Scalar)?;
        Ok(Self {
            signer,
            nonce,
            scalar,
        })
    }

    /// The canonical 102 bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let proto = ProtoMessageSignature {
            signer_public_key: Bytes::copy_from_slice(self.signer.as_bytes()),
            public_nonce: Bytes::copy_from_slice(self.nonce.as_bytes()),
            signature: Bytes::copy_from_slice(self.scalar.as_bytes()),
        };
        proto.encode_to_vec().into()
    }

    /// Signs the 32-byte binding hash with a fresh random nonce.
    pub fn sign(secret: &SecretKey, message: &[u8; 32], rng: &mut impl CryptoRng) -> Self {
        Self::sign_with_nonce(secret, message, &SecretKey::random(rng))
    }

    /// Signs with a nonce the caller vouches never to use again.
    ///
    /// # Security
    /// Two signatures with one nonce reveal the secret key. For vectors and tests.
    #[must_use]
    pub fn sign_with_nonce(secret: &SecretKey, message: &[u8; 32], nonce: &SecretKey) -> Self {
        let public_nonce = RistrettoPoint::mul_base(nonce.scalar()).compress();
        Self::finish_signing(
            secret.scalar(),
            secret.public_key(),
            nonce.scalar(),
            public_nonce,
            message,
        )
    }

    pub(crate) fn finish_signing(
        secret: &Scalar,
        signer: PublicKey,
        nonce: &Scalar,
        public_nonce: CompressedRistretto,
        message: &[u8; 32],
    ) -> Self {
        let e = challenge(&signer, &public_nonce, message);
        Self {
            signer,
            nonce: public_nonce,
            scalar: nonce + e * secret,
        }
    }

    /// Whether the signature covers `message`. Never true for the identity point as signer.
    ///
    /// Variable time: everything here is public.
    #[must_use]
    pub fn verify(&self, message: &[u8; 32]) -> bool {
        let e = challenge(&self.signer, &self.nonce, message);
        equation_holds(&self.signer, &self.nonce, &self.scalar, &e)
    }

    /// Key under which the signature is checked.
    #[must_use]
    pub const fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// The public nonce R, not necessarily a valid point before verification.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 32] {
        self.nonce.as_bytes()
    }

    /// The scalar s, little-endian.
    #[must_use]
    pub fn scalar(&self) -> &[u8; 32] {
        self.scalar.as_bytes()
    }

    pub(crate) const fn scalar_ref(&self) -> &Scalar {
        &self.scalar
    }

    pub(crate) const fn nonce_ref(&self) -> &CompressedRistretto {
        &self.nonce
    }
}

/// The reduced challenge of a message signature.
pub(crate) fn challenge(
    signer: &PublicKey,
    nonce: &CompressedRistretto,
    message: &[u8; 32],
) -> Scalar {
    Hasher512::new(MESSAGE_SIGNATURE)
        .chain(signer.as_bytes())
        .chain(nonce.as_bytes())
        .chain(message)
        .finish_scalar()
}

/// s·G == R + e·P, and P is not the identity.
///
/// Compares the encoding of s·G − e·P with R: one encoding instead of one decoding, and R is found canonical
/// for free, because only canonical encodings are produced.
pub(crate) fn equation_holds(
    signer: &PublicKey,
    nonce: &CompressedRistretto,
    s: &Scalar,
    e: &Scalar,
) -> bool {
    if signer.point().is_identity() {
        return false;
    }
    let expected = RistrettoPoint::vartime_double_scalar_mul_basepoint(&-e, signer.point(), s);
    expected.compress() == *nonce
}
