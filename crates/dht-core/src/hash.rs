//! Domain-separated BLAKE2b: specification 01, section 3.

use blake2::{
    Blake2b, Digest,
    digest::consts::{U32, U64},
};
use curve25519_dalek::scalar::Scalar;

const DHT: &str = "com.tari.comms.dht";

/// A domain tag of the protocol: `<domain>.v<version>[.<label>]`.
#[derive(Clone, Copy, Debug)]
pub struct Domain<'a> {
    /// The part before the version.
    pub name: &'a str,
    /// Printed in decimal.
    pub version: u8,
    /// Left out of the tag, dot included, when empty.
    pub label: &'a str,
}

/// The hash that binds header and body together.
pub const CHALLENGE: Domain<'static> = Domain {
    name: DHT,
    version: 1,
    label: "challenge",
};
/// Derives the message's AEAD key.
pub const KEY_MESSAGE: Domain<'static> = Domain {
    name: DHT,
    version: 1,
    label: "key_message",
};
/// Derives the mask of the sender's key.
pub const KEY_MASK: Domain<'static> = Domain {
    name: DHT,
    version: 1,
    label: "key_mask",
};
/// Challenge of a message signature.
pub const MESSAGE_SIGNATURE: Domain<'static> = Domain {
    name: DHT,
    version: 1,
    label: "message_signature",
};
/// Names a message in the duplicate table and the store. The misspelling is part of the constant.
pub const DEDUP: Domain<'static> = Domain {
    name: DHT,
    version: 1,
    label: "dedup.meesage_hash",
};
/// Challenge of an identity signature.
pub const IDENTITY_SIGNATURE: Domain<'static> = Domain {
    name: "com.tari.comms.core.peer_manager",
    version: 1,
    label: "identity_signature",
};
/// Hashes the Diffie-Hellman output inside the Noise handshake.
pub const NOISE_DH: Domain<'static> = Domain {
    name: "com.tari.comms.core",
    version: 0,
    label: "noise.dh",
};

/// Hashes chunks under a domain tag. Every chunk is prefixed with its length as a little-endian `u64`.
///
/// ```
/// use dht_core::hash::{CHALLENGE, Hasher256};
///
/// let joined = Hasher256::new(CHALLENGE).chain(b"ab").finish();
/// let split = Hasher256::new(CHALLENGE).chain(b"a").chain(b"b").finish();
/// assert_ne!(joined, split);
/// ```
#[derive(Clone, Debug)]
pub struct DomainHasher<D>(D);

/// 32-byte hashes.
pub type Hasher256 = DomainHasher<Blake2b<U32>>;
/// 64-byte hashes.
pub type Hasher512 = DomainHasher<Blake2b<U64>>;

impl<D: Digest> DomainHasher<D> {
    /// Starts with the tag of `domain`.
    #[must_use]
    pub fn new(domain: Domain<'_>) -> Self {
        let mut tag = format!("{}.v{}", domain.name, domain.version);
        if !domain.label.is_empty() {
            tag.push('.');
            tag.push_str(domain.label);
        }
        Self(D::new()).chain(tag.as_bytes())
    }

    /// Adds one chunk.
    #[must_use]
    pub fn chain(mut self, chunk: &[u8]) -> Self {
        self.0.update((chunk.len() as u64).to_le_bytes());
        self.0.update(chunk);
        self
    }
}

impl Hasher256 {
    /// The hash of the chunks so far.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Hasher512 {
    /// The hash of the chunks so far.
    #[must_use]
    pub fn finish(self) -> [u8; 64] {
        self.0.finalize().into()
    }

    pub(crate) fn finish_scalar(self) -> Scalar {
        Scalar::from_bytes_mod_order_wide(&self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_duplicate_hash() {
        let hash = Hasher256::new(DEDUP)
            .chain(&[])
            .chain(b"\x0a\x07test123")
            .finish();
        // Body 0a 07 74 65 73 74 31 32 33, empty signature: specification 03, section 3.6.
        assert_eq!(
            data_encoding::HEXLOWER.encode(&hash),
            "64f1db1039353cf2ff7e09889d14ffd9885766c3dc494a59823a499edfe6997c"
        );
    }
}
