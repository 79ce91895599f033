//! Ristretto255 keys (01 section 1).

use std::{cmp::Ordering, fmt, hash::Hash, str::FromStr, sync::LazyLock};

use curve25519_dalek::{
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar,
    traits::{Identity, IsIdentity},
};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::error::ParseError;
use crate::node_id::NodeId;

/// One half, for points that are doubled while they are encoded: the encodings of many doubles take one field
/// inversion instead of a square root each.
static HALF: LazyLock<Scalar> = LazyLock::new(|| Scalar::from(2_u8).invert());

/// A Ristretto255 public key: a checked group element together with its canonical 32-byte encoding.
///
/// Holding both spares every later use the decoding (about 4 µs). Equality, order and hash are those of
/// the encoding, which is equality in the group because the encoding is canonical.
///
/// The identity point (32 zero bytes) decodes, as the protocol demands; see [`PublicKey::is_identity`].
///
/// ```
/// use dht_core::{PublicKey, SecretKey};
///
/// let secret = SecretKey::from_bytes(&[2; 32]).unwrap_or_else(|_| unreachable!());
/// let public = secret.public_key();
/// assert_eq!(public.to_string().parse::<PublicKey>().ok(), Some(public));
/// ```
#[derive(Clone, Copy)]
pub struct PublicKey {
    compressed: CompressedKey,
    point: RistrettoPoint,
}

/// The encoding of a [`PublicKey`] without its group element: a sixth of the size, for tables of many keys.
///
/// Nothing is sealed to it and no signature verified with it before it is [decoded](Self::decode).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompressedKey([u8; PublicKey::LENGTH]);

/// A secret scalar modulo the group order. Wiped on drop, never printed, compared in constant time.
#[derive(Clone)]
pub struct SecretKey(Scalar);

/// The compressed result of a Diffie-Hellman multiplication. Wiped on drop.
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<[u8; 32]>);

// === impl PublicKey ===

impl PublicKey {
    /// Bytes of the encoding.
    pub const LENGTH: usize = 32;

    /// Decodes the canonical encoding.
    ///
    /// # Errors
    /// [`ParseError::KeyLength`] unless there are 32 bytes, [`ParseError::PublicKey`] unless they are canonical.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let encoding: [u8; Self::LENGTH] = bytes
            .try_into()
            .map_err(|_| ParseError::KeyLength(bytes.len()))?;
        CompressedKey(encoding).decode()
    }

    /// The canonical encoding in 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        self.compressed.as_bytes()
    }

    /// The canonical encoding, to be kept without the group element.
    #[must_use]
    pub const fn compressed(&self) -> &CompressedKey {
        &self.compressed
    }

    /// True for the identity point, which no honest peer uses as a key.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.point.is_identity()
    }

    /// The identifier routing uses for the holder of this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.compressed.node_id()
    }

    /// The first 8 bytes in hexadecimal, for logs.
    #[must_use]
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(self.as_bytes().get(..8).unwrap_or_default())
    }

    pub(crate) fn from_point(point: RistrettoPoint) -> Self {
        Self {
            compressed: CompressedKey(point.compress().to_bytes()),
            point,
        }
    }

    /// Pairs a point with an encoding the caller has just computed from it.
    pub(crate) fn from_parts(encoding: CompressedRistretto, point: RistrettoPoint) -> Self {
        debug_assert_eq!(point.compress(), encoding);
        Self {
            compressed: CompressedKey(encoding.to_bytes()),
            point,
        }
    }

    /// The public keys of secrets, encoded together.
    pub(crate) fn of_each<const N: usize>(secrets: [&Scalar; N]) -> [Self; N] {
        let halves = secrets.map(|secret| {
            let half = Zeroizing::new(secret * *HALF);
            RistrettoPoint::mul_base(&half)
        });
        let mut encodings = RistrettoPoint::double_and_compress_batch(&halves).into_iter();
        halves.map(|half| {
            let point = half + half;
            let encoding = encodings.next().unwrap_or_else(|| point.compress());
            Self::from_parts(encoding, point)
        })
    }

    /// Secret factors times keys, encoded together.
    pub(crate) fn products<'a>(factors: impl Iterator<Item = (&'a Scalar, &'a Self)>) -> Vec<Self> {
        let halves: Vec<_> = factors
            .map(|(factor, key)| {
                let half = Zeroizing::new(factor * *HALF);
                key.point * *half
            })
            .collect();
        let encodings = RistrettoPoint::double_and_compress_batch(&halves);
        let doubles = halves.iter().map(|half| half + half);
        encodings
            .into_iter()
            .zip(doubles)
            .map(|(encoding, point)| Self::from_parts(encoding, point))
            .collect()
    }

    pub(crate) fn point(&self) -> &RistrettoPoint {
        &self.point
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.compressed == other.compressed
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compressed.cmp(&other.compressed)
    }
}

impl Hash for PublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.compressed.hash(state);
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.compressed.fmt(f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ParseError;

    /// Accepts upper and lower case, surrounding blanks and a `0x` prefix. Refuses the [identity](Self::is_identity), which only
    /// a mistake or a trap writes.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match Self::from_bytes(&*hex_32(text)?)? {
            key if key.is_identity() => Err(ParseError::NobodysKey),
            key => Ok(key),
        }
    }
}

// === impl CompressedKey ===

impl CompressedKey {
    /// The key with this encoding, which need not be one of a key.
    #[must_use]
    pub const fn from_bytes(encoding: [u8; PublicKey::LENGTH]) -> Self {
        Self(encoding)
    }

    /// The encoding in 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PublicKey::LENGTH] {
        &self.0
    }

    /// The identifier routing uses for the holder of this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::of_key(&self.0)
    }

    /// Computes the group element, which takes about 4 µs.
    ///
    /// # Errors
    /// [`ParseError::PublicKey`] unless the encoding is canonical, as that of a [`PublicKey`] is.
    pub fn decode(self) -> Result<PublicKey, ParseError> {
        let point = CompressedRistretto(self.0).decompress();
        Ok(PublicKey {
            compressed: self,
            point: point.ok_or(ParseError::PublicKey)?,
        })
    }
}

impl From<PublicKey> for CompressedKey {
    fn from(key: PublicKey) -> Self {
        key.compressed
    }
}

impl fmt::Display for CompressedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for CompressedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressedKey({self})")
    }
}

impl FromStr for CompressedKey {
    type Err = ParseError;

    /// Accepts what [`PublicKey`] accepts, and digits that are not the encoding of a key.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        hex_32(text).map(|encoding| Self(*encoding))
    }
}

// === impl SecretKey ===

impl SecretKey {
    /// Bytes of the little-endian scalar.
    pub const LENGTH: usize = 32;

    /// A uniformly random key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut wide = Zeroizing::new([0; 64]);
        rng.fill_bytes(&mut *wide);
        Self(Scalar::from_bytes_mod_order_wide(&wide))
    }

    /// Reads a canonical little-endian scalar; zero is accepted.
    ///
    /// # Errors
    /// [`ParseError::KeyLength`] unless there are 32 bytes, [`ParseError::Scalar`] unless they are below the
    /// group order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        scalar_from_bytes(bytes).map(Self)
    }

    /// Reduces exactly 64 little-endian bytes modulo the group order.
    ///
    /// # Errors
    /// [`ParseError::KeyLength`] for any other length.
    pub fn from_uniform_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let wide: &[u8; 64] = bytes
            .try_into()
            .map_err(|_| ParseError::KeyLength(bytes.len()))?;
        Ok(Self(Scalar::from_bytes_mod_order_wide(wide)))
    }

    /// The scalar, little endian.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::LENGTH]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// This scalar times the base point.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_point(RistrettoPoint::mul_base(&self.0))
    }

    /// Diffie-Hellman: this scalar times `theirs`, compressed. There is no check for the identity; see
    /// [`SharedSecret::is_zero`].
    #[must_use]
    pub fn shared_secret(&self, theirs: &PublicKey) -> SharedSecret {
        let mut point = theirs.point() * self.0;
        let mut encoding = point.compress();
        let secret = SharedSecret(Zeroizing::new(encoding.to_bytes()));
        point.zeroize();
        encoding.zeroize();
        secret
    }

    /// Calls [`shared_secret`](Self::shared_secret) for each of the keys and encodes the results together.
    pub(crate) fn shared_secrets(&self, theirs: &[PublicKey]) -> Vec<SharedSecret> {
        let half = Zeroizing::new(self.0 * *HALF);
        let halves: Zeroizing<Vec<_>> = theirs
            .iter()
            .map(|key| key.point * *half)
            .collect::<Vec<_>>()
            .into();
        // Wiped where they are: what an iterator gives away stays behind in its buffer.
        let encodings = Zeroizing::new(RistrettoPoint::double_and_compress_batch(halves.iter()));
        encodings
            .iter()
            .map(|encoding| SharedSecret(Zeroizing::new(encoding.to_bytes())))
            .collect()
    }

    pub(crate) const fn from_scalar(scalar: Scalar) -> Self {
        Self(scalar)
    }

    pub(crate) const fn scalar(&self) -> &Scalar {
        &self.0
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl FromStr for SecretKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(&*hex_32(text)?)
    }
}

// === impl SharedSecret ===

impl SharedSecret {
    /// The compressed point in 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// True if the result is the identity point: one side used the identity or the zero scalar.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        use subtle::ConstantTimeEq;
        self.0
            .ct_eq(&CompressedRistretto::identity().to_bytes())
            .into()
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

pub(crate) fn scalar_from_bytes(bytes: &[u8]) -> Result<Scalar, ParseError> {
    let bytes: [u8; 32] = bytes
        .try_into()
        .map_err(|_| ParseError::KeyLength(bytes.len()))?;
    Option::from(Scalar::from_canonical_bytes(bytes)).ok_or(ParseError::Scalar)
}

/// Wiped on drop: it may be a secret.
fn hex_32(text: &str) -> Result<Zeroizing<[u8; 32]>, ParseError> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = Zeroizing::new([0; 32]);
    if digits.len() != 64 {
        return Err(ParseError::KeyDigits);
    }
    data_encoding::HEXLOWER_PERMISSIVE
        .decode_mut(digits.as_bytes(), &mut *bytes)
        .map_err(|_| ParseError::KeyDigits)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_takes_case_blanks_and_prefix() {
        let key = SecretKey::from_bytes(&[7; 32]).unwrap().public_key();
        let text = format!(
            "  0x{}\n",
            key.to_string().to_uppercase().replace("0X", "0x")
        );
        assert_eq!(text.parse::<PublicKey>(), Ok(key));
        assert_eq!("zz".parse::<PublicKey>(), Err(ParseError::KeyDigits));
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = SecretKey::from_bytes(&[9; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "SecretKey(..)");
        assert_eq!(
            format!("{:?}", secret.shared_secret(&secret.public_key())),
            "SharedSecret(..)"
        );
    }

    #[test]
    fn compressed_key_decodes_to_itself() {
        let key = SecretKey::from_bytes(&[7; 32]).unwrap().public_key();
        assert_eq!(key.compressed().decode(), Ok(key));
        assert_eq!(key.compressed().node_id(), key.node_id());
        assert_eq!(key.to_string().parse(), Ok(*key.compressed()));
        let no_key = CompressedKey::from_bytes([0xff; 32]);
        assert_eq!(no_key.decode(), Err(ParseError::PublicKey));
    }

    #[test]
    fn identity_decodes_and_is_recognised() {
        let identity = PublicKey::from_bytes(&[0; 32]).unwrap();
        assert!(identity.is_identity());
        let parsed = identity.to_string().parse::<PublicKey>();
        assert_eq!(parsed, Err(ParseError::NobodysKey));
        let secret = SecretKey::from_bytes(&[9; 32]).unwrap();
        assert!(secret.shared_secret(&identity).is_zero());
    }
}
