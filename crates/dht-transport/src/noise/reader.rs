//! Bytes of a socket to plaintext: no I/O, so that it can be driven with any split of the input.

use std::ops::Range;

use super::{NoiseError, cipher::CountingKey, keys::HandshakeKeys};
use crate::limits::READ_AHEAD_BYTES;

const PREFIX_BYTES: usize = 2;
/// First allocation of the read-ahead buffer: an idle connection needs no more.
const FIRST_BYTES: usize = 4 * 1024;
const _: () = assert!(READ_AHEAD_BYTES >= PREFIX_BYTES + crate::limits::MAX_NOISE_FRAME_BYTES);

/// Splits a byte stream into frames and decrypts them in place.
///
/// # Wire format
///
/// | Bytes | Meaning |
/// |---|---|
/// | 2 | big-endian length n of what follows; 0 is skipped |
/// | n - 16 | ciphertext |
/// | 16 | tag |
///
/// The buffer is allocated with the first byte, doubles only when bytes filled it, and never exceeds
/// [`READ_AHEAD_BYTES`]: a length prefix alone allocates nothing.
pub struct FrameReader {
    key: CountingKey,
    buffer: Vec<u8>,
    /// Received and not yet decrypted.
    sealed: Range<usize>,
    /// Decrypted and not yet taken; always before `sealed`.
    plain: Range<usize>,
    /// A decryption failure is final.
    failed: Option<NoiseError>,
}

impl FrameReader {
    /// A reader of what the other side of `keys` sends.
    #[must_use]
    pub fn new(keys: &HandshakeKeys) -> Self {
        Self {
            key: CountingKey::new(&keys.receive),
            buffer: Vec::new(),
            sealed: 0..0,
            plain: 0..0,
            failed: None,
        }
    }

    /// Plaintext that is ready, decrypting the next complete frame if there is none.
    ///
    /// `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// [`NoiseError::Decrypt`] for a frame that does not authenticate, and from then on always.
    pub fn plaintext(&mut self) -> Result<Option<&[u8]>, NoiseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while self.plain.is_empty() {
            if !self
                .open_next()
                .inspect_err(|error| self.failed = Some(*error))?
            {
                return Ok(None);
            }
        }
        Ok(self.buffer.get(self.plain.clone()))
    }

    /// Takes `count` bytes of the plaintext away.
    pub fn consume(&mut self, count: usize) {
        self.plain.start = self.plain.start.saturating_add(count).min(self.plain.end);
    }

    /// Room for bytes of the socket; never empty. Call only after [`plaintext`](Self::plaintext) asked for
    /// more.
    pub fn space(&mut self) -> &mut [u8] {
        if self.sealed.is_empty() {
            self.sealed = 0..0;
        } else if self.sealed.end == self.buffer.len() && self.sealed.start > 0 {
            self.buffer.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        self.plain = 0..0;
        if self.sealed.end == self.buffer.len() {
            // The bytes held are fewer than one frame, which fits the largest size.
            let size = (self.buffer.len() * 2).clamp(FIRST_BYTES, READ_AHEAD_BYTES);
            self.buffer.resize(size, 0);
        }
        self.buffer.get_mut(self.sealed.end..).unwrap_or_default()
    }

    /// `count` bytes were written to [`space`](Self::space).
    pub fn filled(&mut self, count: usize) {
        self.sealed.end = self.sealed.end.saturating_add(count).min(self.buffer.len());
        if self.sealed.end == self.buffer.len() && self.buffer.len() < READ_AHEAD_BYTES {
            // The peer sends faster than the buffer is long: make the next read longer.
            let size = (self.buffer.len() * 2).min(READ_AHEAD_BYTES);
            self.buffer.resize(size, 0);
        }
    }

    /// True if no part of a frame is held: the stream may end here.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Gives the buffer back if nothing is in it.
    pub fn release(&mut self) {
        if self.sealed.is_empty() && self.plain.is_empty() {
            self.buffer = Vec::new();
            (self.sealed, self.plain) = (0..0, 0..0);
        }
    }

    /// Bytes allocated.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.buffer.capacity()
    }

    /// Decrypts the next frame into `plain`; false if it is not complete.
    fn open_next(&mut self) -> Result<bool, NoiseError> {
        let held = self.buffer.get_mut(self.sealed.clone()).unwrap_or_default();
        let Some((prefix, rest)) = held.split_first_chunk_mut::<PREFIX_BYTES>() else {
            return Ok(false);
        };
        let length = usize::from(u16::from_be_bytes(*prefix));
        let Some(frame) = rest.get_mut(..length) else {
            return Ok(false);
        };
        let start = self.sealed.start + PREFIX_BYTES;
        self.sealed.start = start + length;
        if length > 0 {
            let opened = self.key.open(frame)?;
            self.plain = start..start + opened;
        }
        Ok(true)
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader")
            .field("sealed", &self.sealed)
            .field("plain", &self.plain)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
