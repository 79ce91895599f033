//! A hash for tables whose keys strangers choose.

use std::fmt;

/// Hashes short keys under 128 secret bits, so that nobody can aim many keys at one shard or bucket.
///
/// Folded multiplication, as in wyhash: a few nanoseconds for 32 bytes. Not a cryptographic hash; what it
/// protects is the time a lookup takes, never the answer.
#[derive(Clone, Copy)]
pub(crate) struct Keyed([u64; 2]);

impl Keyed {
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        let seed = u128::from_le_bytes(seed);
        // Odd constants from the digits of pi keep a seed of zeros usable in tests.
        Self([
            low(seed) ^ 0x2436_8a85_a308_d313,
            high(seed) ^ 0x1319_8a2e_0370_7345,
        ])
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let [first, second] = self.0;
        let mut state = first;
        for chunk in key.chunks(16) {
            let mut padded = [0; 16];
            for (to, from) in padded.iter_mut().zip(chunk) {
                *to = *from;
            }
            let word = u128::from_le_bytes(padded);
            state = fold(low(word) ^ second, high(word) ^ state);
        }
        fold(state, second)
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed(..)")
    }
}

/// Which of `shards` (a power of two) a hash belongs to. Takes bits the tables inside do not look at first.
pub(crate) fn shard_index(hash: u64, shards: usize) -> usize {
    let bits = (hash >> 32) as usize;
    bits & shards.wrapping_sub(1)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    low(product) ^ high(product)
}

#[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
const fn low(wide: u128) -> u64 {
    wide as u64
}

const fn high(wide: u128) -> u64 {
    (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_shards_whatever_their_pattern() {
        let keyed = Keyed::new([7; 16]);
        let mut counts = [0_u32; 16];
        for n in 0..16_000_u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            counts[shard_index(keyed.hash(&key), 16)] += 1;
        }
        assert!(
            counts.iter().all(|n| (800..1_200).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_seed_decides() {
        let key = [9; 32];
        assert_ne!(
            Keyed::new([1; 16]).hash(&key),
            Keyed::new([2; 16]).hash(&key)
        );
        assert_eq!(
            Keyed::new([1; 16]).hash(&key),
            Keyed::new([1; 16]).hash(&key)
        );
    }
}
