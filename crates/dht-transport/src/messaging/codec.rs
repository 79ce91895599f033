//! Length-delimited frames: big-endian u32, then that many bytes. No I/O.

use bytes::{Buf, Bytes};
use dht_proto::limits::MAX_MESSAGING_FRAME_BYTES;

use crate::limits::MESSAGE_OVERHEAD_BYTES;

const HEAD_BYTES: usize = 4;

/// A frame is handed on as a slice of its chunk only if the whole chunk is longer by no more than this; else it is copied,
/// so that a message never keeps more memory than it is charged with.
const MAX_WASTE_BYTES: usize = MESSAGE_OVERHEAD_BYTES / 2;

/// Puts frames together from chunks of any size. A chunk is to be used up before the next one is pushed.
///
/// Memory grows with the bytes that arrive, never by the declared length. After [`Step::Announced`] the caller
/// decides whether, and when, to go on: that is where it takes the frame's bytes out of a budget.
///
/// ```
/// use bytes::Bytes;
/// use dht_transport::messaging::{FrameAssembler, Step};
///
/// let mut assembler = FrameAssembler::new();
/// let mut chunk = Bytes::from_static(b"\0\0\0\x02hi");
/// assert_eq!(assembler.push(&mut chunk), Ok(Step::Announced(2)));
/// assert_eq!(assembler.push(&mut chunk), Ok(Step::Frame(Bytes::from_static(b"hi"))));
/// assert_eq!(assembler.push(&mut chunk), Ok(Step::Starved));
/// ```
#[derive(Debug)]
pub struct FrameAssembler {
    head: [u8; HEAD_BYTES],
    head_len: usize,
    /// Length and bytes of the frame whose head is complete.
    body: Option<(usize, Vec<u8>)>,
    /// Length of the chunk in use when it was whole, and what is left of it.
    chunk: (usize, usize),
}

/// Progress of a [`FrameAssembler`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame of this length begins; its bytes are taken by the next calls.
    Announced(usize),
    /// A frame that is complete.
    Frame(Bytes),
    /// The chunk is used up.
    Starved,
}

/// A length over [`MAX_MESSAGING_FRAME_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {0} bytes is over the limit")]
pub struct FrameTooLong(pub usize);

impl FrameAssembler {
    /// Waits for the first frame.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            head_len: 0,
            body: None,
            chunk: (0, 0),
        }
    }

    /// True if no part of a frame is held: the stream may end here.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.head_len == 0 && self.body.is_none()
    }

    /// Takes bytes from the front of `chunk`, up to the next thing worth telling.
    ///
    /// # Errors
    /// [`FrameTooLong`], before any byte of the frame is taken.
    pub fn push(&mut self, chunk: &mut Bytes) -> Result<Step, FrameTooLong> {
        let (_, left) = self.chunk;
        if left == 0 {
            self.chunk = (chunk.len(), chunk.len());
        }
        let step = self.take(chunk);
        let (_, left) = &mut self.chunk;
        *left = chunk.len();
        step
    }

    fn take(&mut self, chunk: &mut Bytes) -> Result<Step, FrameTooLong> {
        let (whole, _) = self.chunk;
        if let Some((length, held)) = &mut self.body {
            let missing = length.saturating_sub(held.len());
            let body = if held.is_empty() && chunk.len() >= missing {
                share(chunk, missing, whole)
            } else {
                let part = missing.min(chunk.len());
                grow(held, part, *length);
                held.extend_from_slice(chunk.get(..part).unwrap_or_default());
                chunk.advance(part);
                if part < missing {
                    return Ok(Step::Starved);
                }
                std::mem::take(held).into()
            };
            self.body = None;
            return Ok(Step::Frame(body));
        }
        while let Some(slot) = self.head.get_mut(self.head_len) {
            if chunk.is_empty() {
                return Ok(Step::Starved);
            }
            *slot = chunk.get_u8();
            self.head_len += 1;
        }
        let length = u32::from_be_bytes(self.head) as usize;
        if length > MAX_MESSAGING_FRAME_BYTES {
            return Err(FrameTooLong(length));
        }
        self.head_len = 0;
        self.body = Some((length, Vec::new()));
        Ok(Step::Announced(length))
    }
}

impl Default for FrameAssembler {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a whole frame out of a chunk that was `whole` bytes long.
fn share(chunk: &mut Bytes, length: usize, whole: usize) -> Bytes {
    if whole <= length.saturating_add(MAX_WASTE_BYTES) {
        chunk.split_to(length)
    } else {
        let copy = Bytes::copy_from_slice(chunk.get(..length).unwrap_or_default());
        chunk.advance(length);
        copy
    }
}

/// Makes room for `part` more bytes: at least doubling, never beyond the frame.
fn grow(held: &mut Vec<u8>, part: usize, length: usize) {
    let needed = held.len().saturating_add(part);
    if needed > held.capacity() {
        let target = needed.max(held.capacity().saturating_mul(2)).min(length);
        held.reserve_exact(target.saturating_sub(held.len()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frames: &[Vec<u8>]) -> Vec<u8> {
        frames
            .iter()
            .flat_map(|frame| {
                let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
                bytes.extend(frame);
                bytes
            })
            .collect()
    }

    fn run(assembler: &mut FrameAssembler, mut chunk: Bytes) -> Result<Vec<Bytes>, FrameTooLong> {
        let mut frames = Vec::new();
        loop {
            match assembler.push(&mut chunk)? {
                Step::Announced(_) => {}
                Step::Frame(frame) => frames.push(frame),
                Step::Starved => return Ok(frames),
            }
        }
    }

    #[test]
    fn excessive_length_is_refused_before_body() {
        let mut assembler = FrameAssembler::new();
        let mut chunk = Bytes::from_static(&[0, 0x80, 0, 1, 9, 9]);
        assert_eq!(
            assembler.push(&mut chunk),
            Err(FrameTooLong(8 * 1024 * 1024 + 1))
        );
    }

    #[test]
    fn memory_follows_bytes_not_declared_length() {
        let mut assembler = FrameAssembler::new();
        assert_eq!(
            run(&mut assembler, Bytes::from_static(&[0, 0x80, 0, 0])).unwrap(),
            [] as [Bytes; 0]
        );
        run(&mut assembler, vec![7; 1000].into()).unwrap();
        let (length, held) = assembler.body.as_ref().unwrap();
        assert_eq!(*length, 8 * 1024 * 1024);
        assert!(
            held.capacity() <= 2000,
            "{} bytes for 1000",
            held.capacity()
        );
    }

    /// Wherever a small frame lies in a chunk that was read, it does not keep the chunk's memory alive.
    #[test]
    fn small_frame_keeps_no_large_chunk() {
        let frames = vec![vec![1; 10], vec![2; 60_000], vec![3; 10]];
        let mut assembler = FrameAssembler::new();
        for _ in 0..2 {
            let chunk = Bytes::from(encode(&frames));
            let range = chunk.as_ptr() as usize..chunk.as_ptr() as usize + chunk.len();
            let got = run(&mut assembler, chunk).unwrap();
            let shared = |at: usize| range.contains(&(got[at].as_ptr() as usize));
            assert_eq!([0, 1, 2].map(shared), [false, true, false]);
            assert_eq!(got, frames);
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(1_usize..200, 1..40),
        ) {
            let bytes = encode(&frames);
            let mut assembler = FrameAssembler::new();
            let (mut got, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at(cut.min(rest.len()));
                got.extend(run(&mut assembler, Bytes::copy_from_slice(chunk)).unwrap());
                rest = tail;
            }
            prop_assert_eq!(got, frames);
            prop_assert!(assembler.is_between_frames());
        }

        #[test]
        fn random_bytes_give_frames_or_error(
            bytes in prop::collection::vec(any::<u8>(), 0..2000)
        ) {
            let mut assembler = FrameAssembler::new();
            match run(&mut assembler, bytes.clone().into()) {
                Ok(frames) => prop_assert!(frames.iter().map(Bytes::len).sum::<usize>() <= bytes.len()),
                Err(FrameTooLong(length)) => prop_assert!(length > MAX_MESSAGING_FRAME_BYTES),
            }
            if let Some((_, held)) = &assembler.body {
                prop_assert!(held.capacity() <= 2 * bytes.len());
            }
        }
    }
}
