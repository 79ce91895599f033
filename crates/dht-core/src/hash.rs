//! Domain-separated BLAKE2b (01 section 3).

use std::sync::LazyLock;

use blake2b_simd::{Hash, Params, State, many};
use curve25519_dalek::scalar::Scalar;
use zeroize::{Zeroizing, optimization_barrier};

const DHT: &str = "com.tari.comms.dht";

/// Overwrites the state of a hash of secrets.
static BLANK: LazyLock<(State, Hash)> = LazyLock::new(|| (State::new(), State::new().finalize()));

/// A domain tag of the protocol: `<domain>.v<version>[.<label>]`.
#[derive(Clone, Copy, Debug)]
pub struct Domain<'a> {
    /// Part of the tag before the version.
    pub name: &'a str,
    /// Version of the domain, written in decimal.
    pub version: u8,
    /// Part of the tag behind the version; an empty label is left out, and its dot with it.
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
pub struct DomainHasher<const LENGTH: usize>(State);

/// Domain-separated hashes of 32 bytes.
pub type Hasher256 = DomainHasher<32>;
/// Domain-separated hashes of 64 bytes.
pub type Hasher512 = DomainHasher<64>;

impl<const LENGTH: usize> DomainHasher<LENGTH> {
    /// Starts with the tag of `domain`.
    #[must_use]
    pub fn new(domain: Domain<'_>) -> Self {
        const { assert!(LENGTH > 0 && LENGTH <= blake2b_simd::OUTBYTES) };
        let mut tag = format!("{}.v{}", domain.name, domain.version);
        if !domain.label.is_empty() {
            tag.push('.');
            tag.push_str(domain.label);
        }
        Self(Params::new().hash_length(LENGTH).to_state()).chain(tag.as_bytes())
    }

    /// Adds one chunk to the input.
    #[must_use]
    pub fn chain(mut self, chunk: &[u8]) -> Self {
        self.0.update(&length_prefix(chunk)).update(chunk);
        self
    }

    /// Adds one chunk to each of many hashers, several at a time in the lanes of a vector register: for long chunks
    /// about a third of the time of one after the other.
    pub(crate) fn chain_each<'a>(chunks: impl IntoIterator<Item = (&'a mut Self, &'a [u8])>) {
        many::update_many(chunks.into_iter().map(|(hasher, chunk)| {
            hasher.0.update(&length_prefix(chunk));
            (&mut hasher.0, chunk)
        }));
    }

    /// The hash of the chunks so far.
    #[must_use]
    pub fn finish(&self) -> [u8; LENGTH] {
        let hash = self.0.finalize();
        let mut out = [0; LENGTH];
        out.copy_from_slice(hash.as_bytes());
        out
    }
}

impl<const LENGTH: usize> DomainHasher<LENGTH> {
    /// The hash of one secret chunk, of which nothing stays behind in the state of the hash function.
    pub(crate) fn hash_secret(domain: Domain<'_>, secret: &[u8]) -> Zeroizing<[u8; LENGTH]> {
        let Self(mut state) = Self::new(domain);
        state.update(&length_prefix(secret)).update(secret);
        let mut hash = state.finalize();
        let mut out = Zeroizing::new([0; LENGTH]);
        out.copy_from_slice(hash.as_bytes());
        // The library wipes nothing: something else is put in the place of both, and must be.
        (state, hash) = BLANK.clone();
        optimization_barrier(&state);
        optimization_barrier(&hash);
        out
    }
}

impl Hasher512 {
    pub(crate) fn finish_scalar(&self) -> Scalar {
        Scalar::from_bytes_mod_order_wide(&self.finish())
    }
}

const fn length_prefix(chunk: &[u8]) -> [u8; 8] {
    (chunk.len() as u64).to_le_bytes()
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
        // Body 0a 07 74 65 73 74 31 32 33, empty signature (03 section 3.6).
        assert_eq!(
            data_encoding::HEXLOWER.encode(&hash),
            "64f1db1039353cf2ff7e09889d14ffd9885766c3dc494a59823a499edfe6997c"
        );
    }

    #[test]
    fn secrets_hash_as_other_chunks() {
        for length in [0, 32, 200] {
            let secret = vec![7; length];
            let short = Hasher256::new(KEY_MESSAGE).chain(&secret).finish();
            assert_eq!(*Hasher256::hash_secret(KEY_MESSAGE, &secret), short);
            let long = Hasher512::new(KEY_MASK).chain(&secret).finish();
            assert_eq!(*Hasher512::hash_secret(KEY_MASK, &secret), long);
        }
    }

    #[test]
    fn many_hash_as_one_by_one() {
        let chunks: Vec<Vec<u8>> = (0..9_u8).map(|n| vec![n; usize::from(n) * 100]).collect();
        let fresh = || Hasher256::new(CHALLENGE).chain(b"before");
        let mut together: Vec<_> = chunks.iter().map(|_| fresh()).collect();
        DomainHasher::chain_each(together.iter_mut().zip(chunks.iter().map(Vec::as_slice)));
        for (hasher, chunk) in together.iter().zip(&chunks) {
            assert_eq!(hasher.finish(), fresh().chain(chunk).finish());
        }
    }
}
