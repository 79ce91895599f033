//! Recognises an exact copy of an envelope without public-key arithmetic (law 4).

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroize;

/// A keyed hash of one exact envelope: everything but the unsigned tag.
///
/// Equal fingerprints under one key mean equal envelopes; the key is per process, so nobody can search for
/// collisions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub [u8; 16]);

/// The key of the fingerprints of one process.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// A fresh random key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        Self(key)
    }

    /// Hashes the header without its tag and the body. The body is hashed on its own first, so that it
    /// reaches the hash aligned to its chunks and in one piece.
    pub(super) fn fingerprint(&self, header: &[u8], body: &[u8]) -> Fingerprint {
        let body = blake3::keyed_hash(&self.0, body);
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(body.as_bytes()).update(header);
        let mut short = [0; 16];
        hasher.finalize_xof().fill(&mut short);
        Fingerprint(short)
    }
}

impl Drop for FingerprintKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}
