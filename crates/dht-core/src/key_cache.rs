//! A cache of decoded public keys.

use std::fmt;

use parking_lot::Mutex;

use crate::error::ParseError;
use crate::keys::PublicKey;

/// Slots of the cache, a power of two; a key takes about 200 bytes.
const SLOTS: usize = 512;

/// Caches decoded keys, so that a destination that many messages share is decoded once.
///
/// Each key has one slot and a new key replaces the one in it: the cache is bounded and a lookup is one comparison. An
/// attacker who chooses keys that share a slot causes further decodings and nothing else.
///
/// ```
/// use dht_core::{Entropy, KeyCache, SecretKey, SeededEntropy};
///
/// let cache = KeyCache::new();
/// let key = SecretKey::random(&mut SeededEntropy::new(1).rng()).public_key();
/// assert_eq!(cache.decode(key.as_bytes()), Ok(key)); // decodes
/// assert_eq!(cache.decode(key.as_bytes()), Ok(key)); // remembers
/// ```
pub struct KeyCache(Box<[Mutex<Option<PublicKey>>]>);

impl KeyCache {
    /// A cache without keys.
    #[must_use]
    pub fn new() -> Self {
        Self((0..SLOTS).map(|_| Mutex::new(None)).collect())
    }

    /// As [`PublicKey::from_bytes`].
    ///
    /// # Errors
    /// [`ParseError::KeyLength`] unless there are 32 bytes, [`ParseError::PublicKey`] unless they are canonical.
    pub fn decode(&self, bytes: &[u8]) -> Result<PublicKey, ParseError> {
        // The lowest bit of a canonical encoding is always clear: the second byte on is as good as random.
        let at = match bytes {
            [_, low, high, ..] => usize::from(u16::from_le_bytes([*low, *high])) % SLOTS,
            _ => return PublicKey::from_bytes(bytes),
        };
        let Some(slot) = self.0.get(at) else {
            return PublicKey::from_bytes(bytes);
        };
        if let Some(known) = *slot.lock()
            && known.as_bytes() == bytes
        {
            return Ok(known);
        }
        let key = PublicKey::from_bytes(bytes)?;
        *slot.lock() = Some(key);
        Ok(key)
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util;

    #[test]
    fn keys_sharing_a_slot_stay_apart() {
        let cache = KeyCache::new();
        // Twice as many keys as slots: some share one.
        let keys: Vec<_> = (0..2 * SLOTS as u64).map(test_util::public_key).collect();
        for _ in 0..2 {
            for key in &keys {
                assert_eq!(cache.decode(key.as_bytes()), Ok(*key));
            }
        }
    }

    #[test]
    fn invalid_keys_are_refused_every_time() {
        let cache = KeyCache::new();
        for _ in 0..2 {
            assert_eq!(cache.decode(&[0xff; 32]), Err(ParseError::PublicKey));
            assert_eq!(cache.decode(&[0; 31]), Err(ParseError::KeyLength(31)));
            assert_eq!(cache.decode(&[]), Err(ParseError::KeyLength(0)));
        }
    }
}
