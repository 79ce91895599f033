//! One direction of a channel: ChaCha20-Poly1305 with a counting nonce.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use super::NoiseError;

pub(super) const TAG_BYTES: usize = 16;

/// A key and the number of frames it has served.
pub(super) struct CountingKey {
    key: LessSafeKey,
    counter: u64,
}

impl CountingKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            key: less_safe_key(key),
            counter: 0,
        }
    }

    /// Encrypts in place and returns the tag.
    pub(super) fn seal(&mut self, plaintext: &mut [u8]) -> Result<Tag, NoiseError> {
        let nonce = self.next_nonce()?;
        self.key
            .seal_in_place_separate_tag(nonce, Aad::empty(), plaintext)
            .map_err(|_| NoiseError::Exhausted)
    }

    /// Decrypts in place; the plaintext is the front of `ciphertext`. Returns its length.
    pub(super) fn open(&mut self, ciphertext: &mut [u8]) -> Result<usize, NoiseError> {
        let nonce = self.next_nonce()?;
        self.key
            .open_in_place(nonce, Aad::empty(), ciphertext)
            .map(|plaintext| plaintext.len())
            .map_err(|_| NoiseError::Decrypt)
    }

    fn next_nonce(&mut self) -> Result<Nonce, NoiseError> {
        let counter = self.counter;
        // The highest value is reserved by the Noise specification.
        self.counter = counter.checked_add(1).ok_or(NoiseError::Exhausted)?;
        Ok(nonce(counter))
    }
}

/// 4 zero bytes, then the counter little-endian.
pub(super) fn nonce(counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

#[expect(
    clippy::expect_used,
    reason = "ring refuses only keys of another length, and 32 is the right one"
)]
pub(super) fn less_safe_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32-byte key"))
}
