//! The identity claim: addresses and features signed by their owner (01 section 5).

use bytes::Bytes;
use curve25519_dalek::{
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar,
};
use dht_proto::identity::PeerIdentityMsg;
use rand_core::CryptoRng;

use crate::{
    address::Address,
    error::ClaimError,
    features::Features,
    hash::{Hasher512, IDENTITY_SIGNATURE},
    keys::{PublicKey, SecretKey, scalar_from_bytes},
    schnorr::equation_holds,
    time::UnixSeconds,
};

/// How far in the future `updated_at` may lie, in seconds: clocks differ, but not by more than a day.
pub const MAX_CLAIM_SKEW_SECONDS: u64 = 24 * 60 * 60;

const FIRST_DATE: i64 = -8_334_632_851_200;
const LAST_DATE: i64 = 8_210_298_412_799;

/// Addresses and features of a peer, signed with its key.
///
/// ```
/// use dht_core::{Claim, ClaimError, Entropy, Features, SecretKey, SeededEntropy, UnixSeconds};
///
/// let mut rng = SeededEntropy::new(1).rng();
/// let (secret, now) = (SecretKey::random(&mut rng), UnixSeconds(1_700_000_000));
/// let addresses = vec!["/ip4/1.2.3.4/tcp/18189".parse()?];
/// let mut claim = Claim::sign(&secret, addresses, Features::NODE, now, &mut rng);
/// claim.verify(&secret.public_key(), now)?;
///
/// claim.features = Features::CLIENT;
/// assert_eq!(claim.verify(&secret.public_key(), now), Err(ClaimError::BadSignature));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Addresses where the peer can be reached, in the signed order.
    pub addresses: Vec<Address>,
    /// Features that the peer offers.
    pub features: Features,
    /// Signature of the peer over addresses and features.
    pub signature: IdentitySignature,
}

/// The signature of a [`Claim`].
///
/// See 01 section 5.2. Challenge: BLAKE2b-512 over key, nonce, version (1 byte), `updated_at` (LE64), features (LE32) and one
/// chunk an address.
// Without padding: a directory holds one for each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct IdentitySignature {
    version: u8,
    nonce: CompressedRistretto,
    scalar: Scalar,
    updated_at: i64,
}

impl Claim {
    /// Signs addresses and features as of `now`.
    pub fn sign(
        secret: &SecretKey,
        addresses: Vec<Address>,
        features: Features,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Self {
        Self::sign_with_nonce(secret, addresses, features, now, &SecretKey::random(rng))
    }

    /// Signs with a nonce the caller vouches never to use again; for vectors and tests.
    #[must_use]
    pub fn sign_with_nonce(
        secret: &SecretKey,
        addresses: Vec<Address>,
        features: Features,
        now: UnixSeconds,
        nonce: &SecretKey,
    ) -> Self {
        let key = secret.public_key();
        let public_nonce = RistrettoPoint::mul_base(nonce.scalar()).compress();
        // A clock beyond the last representable date would only make the claim unusable.
        let updated_at = i64::try_from(now.0).unwrap_or(LAST_DATE).min(LAST_DATE);
        let e = challenge(&key, &public_nonce, 0, updated_at, features, &addresses);
        let scalar = nonce.scalar() + Scalar::from_bytes_mod_order_wide(&e) * secret.scalar();
        let signature = IdentitySignature {
            version: 0,
            nonce: public_nonce,
            scalar,
            updated_at,
        };
        Self {
            addresses,
            features,
            signature,
        }
    }

    /// Checks time and signature. Address policy is the caller's; see [`Address::check_policy`].
    ///
    /// # Errors
    /// [`ClaimError::NegativeTime`], [`ClaimError::FromTheFuture`] or [`ClaimError::BadSignature`], in this
    /// order. There is no lower age limit and the version is not compared with anything.
    pub fn verify(&self, key: &PublicKey, now: UnixSeconds) -> Result<(), ClaimError> {
        let signature = &self.signature;
        let updated_at =
            u64::try_from(signature.updated_at).map_err(|_| ClaimError::NegativeTime)?;
        if updated_at > now.0.saturating_add(MAX_CLAIM_SKEW_SECONDS) {
            return Err(ClaimError::FromTheFuture);
        }
        let e = Scalar::from_bytes_mod_order_wide(&self.challenge(key));
        if equation_holds(key, &signature.nonce, &signature.scalar, &e) {
            Ok(())
        } else {
            Err(ClaimError::BadSignature)
        }
    }

    /// The claim as an identity message without its unsigned fields, in which a node keeps its own.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let addresses = self.addresses.iter();
        dht_proto::encode(&PeerIdentityMsg {
            addresses: addresses
                .map(|address| Bytes::copy_from_slice(address.as_bytes()))
                .collect(),
            features: self.features.bits(),
            identity_signature: Some((&self.signature).into()),
            ..PeerIdentityMsg::default()
        })
    }

    /// Reads what [`encode`](Self::encode) wrote. The signature is not checked; see [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn decode(bytes: Bytes) -> Result<Self, ClaimError> {
        let proto: PeerIdentityMsg = dht_proto::decode(bytes).map_err(|_| ClaimError::Encoding)?;
        let addresses = proto.addresses.into_iter().map(Address::from_bytes);
        let signature = proto.identity_signature.ok_or(ClaimError::NotSigned)?;
        let features = Features::from_bits(proto.features);
        Ok(Self {
            addresses: addresses
                .collect::<Result<_, _>>()
                .map_err(ClaimError::Malformed)?,
            features: features.ok_or(ClaimError::Features(proto.features))?,
            signature: (&signature).try_into()?,
        })
    }

    /// The 64-byte challenge hash, before reduction.
    #[must_use]
    pub fn challenge(&self, key: &PublicKey) -> [u8; 64] {
        let IdentitySignature {
            version,
            nonce,
            updated_at,
            ..
        } = self.signature;
        challenge(
            key,
            &nonce,
            version,
            updated_at,
            self.features,
            &self.addresses,
        )
    }

    /// Whether this claim was signed after `other`: the newer replaces the older.
    #[must_use]
    pub const fn is_newer_than(&self, other: &Self) -> bool {
        self.signature.updated_at > other.signature.updated_at
    }
}

impl IdentitySignature {
    /// Reads the fields of the message.
    ///
    /// # Errors
    /// [`ClaimError::Version`], [`ClaimError::Scalar`], [`ClaimError::Nonce`] or [`ClaimError::Date`].
    pub fn from_parts(
        version: u32,
        scalar: &[u8],
        nonce: &[u8],
        updated_at: i64,
    ) -> Result<Self, ClaimError> {
        let version = u8::try_from(version).map_err(|_| ClaimError::Version)?;
        let nonce = PublicKey::from_bytes(nonce).map_err(|_| ClaimError::Nonce)?;
        Self::from_stored(version, scalar, *nonce.as_bytes(), updated_at)
    }

    /// Reads the fields of a signature that [`from_parts`](Self::from_parts) accepted before they were stored. The nonce is
    /// not decoded again: that is most of the work, and [`Claim::verify`] compares encodings.
    ///
    /// # Errors
    /// [`ClaimError::Scalar`] or [`ClaimError::Date`].
    pub fn from_stored(
        version: u8,
        scalar: &[u8],
        nonce: [u8; 32],
        updated_at: i64,
    ) -> Result<Self, ClaimError> {
        let scalar = scalar_from_bytes(scalar).map_err(|_| ClaimError::Scalar)?;
        if !(FIRST_DATE..=LAST_DATE).contains(&updated_at) {
            return Err(ClaimError::Date);
        }
        Ok(Self {
            version,
            nonce: CompressedRistretto(nonce),
            scalar,
            updated_at,
        })
    }

    /// Version, 0 today; hashed as given.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// The scalar s, 32 bytes little-endian.
    #[must_use]
    pub fn scalar(&self) -> &[u8; 32] {
        self.scalar.as_bytes()
    }

    /// The public nonce R.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 32] {
        self.nonce.as_bytes()
    }

    /// Unix seconds of the signing.
    #[must_use]
    pub const fn updated_at(&self) -> i64 {
        self.updated_at
    }
}

fn challenge(
    key: &PublicKey,
    nonce: &CompressedRistretto,
    version: u8,
    updated_at: i64,
    features: Features,
    addresses: &[Address],
) -> [u8; 64] {
    let head = Hasher512::new(IDENTITY_SIGNATURE)
        .chain(key.as_bytes())
        .chain(nonce.as_bytes())
        .chain(&[version])
        .chain(&updated_at.to_le_bytes())
        .chain(&features.bits().to_le_bytes());
    addresses
        .iter()
        .fold(head, |hasher, address| hasher.chain(address.as_bytes()))
        .finish()
}

macro_rules! proto_signature {
    ($($proto:path),+) => {$(
        impl From<&IdentitySignature> for $proto {
            fn from(signature: &IdentitySignature) -> Self {
                Self {
                    version: u32::from(signature.version),
                    signature: bytes::Bytes::copy_from_slice(signature.scalar()),
                    public_nonce: bytes::Bytes::copy_from_slice(signature.nonce()),
                    updated_at: signature.updated_at,
                }
            }
        }

        impl TryFrom<&$proto> for IdentitySignature {
            type Error = ClaimError;

            fn try_from(proto: &$proto) -> Result<Self, ClaimError> {
                Self::from_parts(proto.version, &proto.signature, &proto.public_nonce, proto.updated_at)
            }
        }
    )+};
}

// Two messages of one layout, in the identity exchange and in the DHT's own messages.
proto_signature!(
    dht_proto::identity::IdentitySignature,
    dht_proto::common::IdentitySignature
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy as _, SeededEntropy};

    #[test]
    fn encoded_claims_read_back() {
        let mut rng = SeededEntropy::new(1).rng();
        let (secret, now) = (SecretKey::random(&mut rng), UnixSeconds(1_700_000_000));
        let addresses = vec!["/ip4/1.2.3.4/tcp/18189".parse().unwrap()];
        let claim = Claim::sign(&secret, addresses, Features::NODE, now, &mut rng);
        let encoded = claim.encode();
        assert_eq!(Claim::decode(encoded.clone()), Ok(claim));
        for cut in [0, 1, encoded.len() - 1] {
            let cut = Claim::decode(encoded.slice(..cut));
            assert!(cut.is_err(), "{cut:?}");
        }
    }
}
