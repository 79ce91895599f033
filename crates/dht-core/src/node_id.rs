//! Node ids and the XOR metric (01 section 2).

use std::{fmt, str::FromStr};

use blake2b_simd::Params;

use crate::error::ParseError;

/// Identifies a node in routing: BLAKE2b with output length 13 over its public key.
///
/// Not a truncated longer hash. Ordered bytewise; [`NodeId::distance`] gives the routing metric. See 01
/// section 2.
///
/// ```
/// use dht_core::{Distance, NodeId};
///
/// let id = NodeId::from_bytes(&[1; NodeId::LENGTH])?;
/// assert_eq!(id.to_string(), "01010101010101010101010101");
/// assert_eq!(id.distance(&id), Distance::ZERO);
/// assert!(id.distance(&NodeId::default()) < Distance::MAX);
/// # Ok::<(), dht_core::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId([u8; Self::LENGTH]);

/// XOR distance between two node ids, as a big-endian integer below 2^104.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Distance(u128);

// === impl NodeId ===

impl NodeId {
    /// Bytes of a node id.
    pub const LENGTH: usize = 13;

    /// Derives the id of a key from its encoding.
    pub(crate) fn of_key(encoding: &[u8; 32]) -> Self {
        let hash = Params::new().hash_length(Self::LENGTH).hash(encoding);
        let mut id = [0; Self::LENGTH];
        id.copy_from_slice(hash.as_bytes());
        Self(id)
    }

    /// Reads exactly 13 bytes.
    ///
    /// # Errors
    /// [`ParseError`] for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        bytes.try_into().map(Self).map_err(|_| ParseError::NodeId)
    }

    /// The id as 13 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The first 8 bytes in hexadecimal, for logs.
    #[must_use]
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(self.0.get(..8).unwrap_or_default())
    }

    /// XOR distance to `other`.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        Distance(self.to_u128() ^ other.to_u128())
    }

    fn to_u128(self) -> u128 {
        let mut wide = [0; 16];
        for (to, from) in wide.iter_mut().skip(16 - Self::LENGTH).zip(self.0) {
            *to = from;
        }
        u128::from_be_bytes(wide)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .map_err(|_| ParseError::NodeId)?;
        Self::from_bytes(&bytes)
    }
}

// === impl Distance ===

impl Distance {
    /// No distance at all.
    pub const ZERO: Self = Self(0);
    /// Farther than any real id: "no limit".
    pub const MAX: Self = Self(u128::MAX);

    /// The distance as a big-endian integer.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// floor(log2 d); 0 for distance 0. Real ids give 0 to 103.
    #[must_use]
    pub const fn bucket(self) -> u32 {
        match self.0.checked_ilog2() {
            Some(bucket) => bucket,
            None => 0,
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
