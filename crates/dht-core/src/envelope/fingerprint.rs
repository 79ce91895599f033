//! Recognises an exact copy of an envelope without public-key arithmetic (law 4).

use std::fmt;

use highway::{HighwayHash as _, HighwayHasher, Key};
use rand_core::CryptoRng;
use zeroize::Zeroize;

/// A keyed hash of one exact envelope: everything but the unsigned tag.
///
/// HighwayHash, 128 bits: equal fingerprints under one key mean equal envelopes. The key is random, per process and
/// never shown, nor is any fingerprint, so that no peer can search for collisions. Tens of times faster than the
/// protocol's own hash, and short of a duplicate lookup it decides nothing: what is *not* recognised is verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// The key of the fingerprints of one process.
#[derive(Clone)]
pub struct FingerprintKey([u64; 4]);

impl FingerprintKey {
    /// A fresh random key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(std::array::from_fn(|_| rng.next_u64()))
    }

    /// Hashes the header without its tag and the body, with the length of the header, so that no byte can move from
    /// one to the other.
    pub(super) fn fingerprint(&self, header: &[u8], body: &[u8]) -> Fingerprint {
        let mut hasher = HighwayHasher::new(Key(self.0));
        hasher.append(&(header.len() as u64).to_le_bytes());
        hasher.append(header);
        hasher.append(body);
        let [low, high] = hasher.finalize128();
        let mut short = [0; 16];
        let (first, second) = short.split_at_mut(8);
        first.copy_from_slice(&low.to_le_bytes());
        second.copy_from_slice(&high.to_le_bytes());
        Fingerprint(short)
    }
}

impl Drop for FingerprintKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy as _, SeededEntropy};

    #[test]
    fn neither_key_nor_fingerprint_is_printed() {
        let key = FingerprintKey::random(&mut SeededEntropy::new(1).rng());
        let shown = format!("{key:?} {:?}", key.fingerprint(b"header", b"body"));
        assert_eq!(shown, "FingerprintKey(..) Fingerprint(..)");
    }
}
