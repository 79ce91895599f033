//! Plaintext to frames: no I/O.

use std::ops::Range;

use super::{
    NoiseError,
    cipher::{CountingKey, TAG_BYTES},
    keys::HandshakeKeys,
};
use crate::limits::MAX_NOISE_PLAINTEXT_BYTES;

const PREFIX_BYTES: usize = 2;

/// Collects plaintext into frames of at most [`MAX_NOISE_PLAINTEXT_BYTES`] and encrypts them where they lie.
///
/// A frame never has an empty plaintext: the reference takes one for the end of the stream.
pub struct FrameWriter {
    key: CountingKey,
    /// Sealed frames, then the plaintext of the open one behind two bytes for its length.
    buffer: Vec<u8>,
    /// Where the unsent part begins.
    sent: usize,
    /// Where the open frame begins; the end of the buffer if there is none.
    open: usize,
    /// The caller's position after the last byte taken.
    mark: u64,
    /// Ends of sealed frames in `buffer` with the mark that holds once they are sent.
    marks: Vec<(usize, u64)>,
    sent_mark: u64,
}

impl FrameWriter {
    /// A writer to the other side of `keys`; `head` is sent before everything else, as it is.
    #[must_use]
    pub fn new(keys: &HandshakeKeys, head: Vec<u8>) -> Self {
        Self {
            key: CountingKey::new(&keys.send),
            open: head.len(),
            buffer: head,
            sent: 0,
            mark: 0,
            marks: Vec::new(),
            sent_mark: 0,
        }
    }

    /// Takes `data`. The caller bounds what [waits](Self::unsent) for the socket.
    ///
    /// # Errors
    /// [`NoiseError::Exhausted`] when no nonce is left.
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), NoiseError> {
        while !data.is_empty() {
            if self.open == self.buffer.len() {
                self.compact();
                self.buffer.extend_from_slice(&[0; PREFIX_BYTES]);
            }
            let room = MAX_NOISE_PLAINTEXT_BYTES.saturating_sub(self.open_plaintext().len());
            let (part, rest) = data.split_at(room.min(data.len()));
            self.buffer.extend_from_slice(part);
            data = rest;
            if part.len() == room {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// Sets the caller's position after the last byte taken; see [`sent_mark`](Self::sent_mark).
    pub fn set_mark(&mut self, mark: u64) {
        self.mark = mark;
        // A frame that is already sealed ends with the byte this mark is about only if nothing is open.
        if self.open == self.buffer.len() {
            match self.marks.last_mut() {
                Some((_, last)) => *last = mark,
                None => self.sent_mark = mark,
            }
        }
    }

    /// The highest mark whose bytes the socket has taken completely.
    #[must_use]
    pub fn sent_mark(&self) -> u64 {
        self.sent_mark
    }

    /// Encrypts the open frame, if it holds anything.
    ///
    /// # Errors
    /// [`NoiseError::Exhausted`] when no nonce is left.
    pub fn seal(&mut self) -> Result<(), NoiseError> {
        let range = self.open_plaintext();
        if range.is_empty() {
            return Ok(());
        }
        let sealed_bytes = range.len() + TAG_BYTES;
        let plaintext = self.buffer.get_mut(range).unwrap_or_default();
        let tag = self.key.seal(plaintext)?;
        self.buffer.extend_from_slice(tag.as_ref());
        // `write` keeps the plaintext within what a u16 can say.
        let length = u16::try_from(sealed_bytes)
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        if let Some(prefix) = self.buffer.get_mut(self.open..self.open + PREFIX_BYTES) {
            prefix.copy_from_slice(&length);
        }
        self.open = self.buffer.len();
        self.marks.push((self.open, self.mark));
        Ok(())
    }

    /// Sealed bytes for the socket.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.buffer.get(self.sent..self.open).unwrap_or_default()
    }

    /// The socket took `count` bytes of [`pending`](Self::pending).
    pub fn advance(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.open);
        let sent = self.sent;
        let done = self
            .marks
            .iter()
            .take_while(|(end, _)| *end <= sent)
            .count();
        if let Some((_, mark)) = self.marks.drain(..done).next_back() {
            self.sent_mark = mark;
        }
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            (self.sent, self.open) = (0, 0);
        }
    }

    /// Bytes that wait for the socket, sealed or not.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.buffer.len() - self.sent
    }

    /// Gives the buffer back if nothing is in it.
    pub fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Bytes allocated.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.buffer.capacity()
    }

    fn open_plaintext(&self) -> Range<usize> {
        (self.open + PREFIX_BYTES).min(self.buffer.len())..self.buffer.len()
    }

    /// Moves what is unsent to the front once that is no more than half of the buffer: each byte moves once at most.
    fn compact(&mut self) {
        let gone = self.sent;
        if gone > 0 && gone >= self.unsent() {
            self.buffer.drain(..gone);
            (self.sent, self.open) = (0, self.open - gone);
            for (end, _) in &mut self.marks {
                *end -= gone;
            }
        }
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter")
            .field("pending", &self.pending().len())
            .field("open", &self.open_plaintext().len())
            .finish_non_exhaustive()
    }
}
