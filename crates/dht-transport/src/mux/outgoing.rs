//! Bytes on their way from the streams of a connection to its socket.
//!
//! The multiplexer answers pings, and reads nothing while such an answer waits behind a frame that the socket does not
//! take. Two ends that both wait so would wait for ever. So the channel takes everything that the multiplexer writes,
//! and streams are held back before the multiplexer: each write needs [`Room`] first, which comes back when the socket
//! took the bytes. What no stream wrote, the answers, is bounded by not reading (`MuxIo`).

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::{
    SendMeter,
    frame::{HEADER_BYTES, HeaderBytes},
};
use crate::limits::{MAX_OUTGOING_BYTES, YAMUX_FRAME_BYTES};

// A write that needs more room than there is would wait for ever.
const _: () = assert!(YAMUX_FRAME_BYTES + HEADER_BYTES <= MAX_OUTGOING_BYTES);

/// Room for the bytes that streams of one connection write: [`MAX_OUTGOING_BYTES`].
#[derive(Clone, Debug)]
pub(super) struct OutgoingBytes(Arc<Semaphore>);

/// The share of one stream in [`OutgoingBytes`]: streams that wait get room in turn.
#[derive(Debug)]
pub(super) struct Room(PollSemaphore);

/// Room for one write; what is not [used](Reserved::use_for) goes back when it is dropped.
pub(super) struct Reserved(OwnedSemaphorePermit);

/// Follows the frames that the multiplexer writes.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    header: HeaderBytes,
    body_left: usize,
}

/// Content of a part of the multiplexer's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Bytes that hold room: data frames with a body, and their headers.
    pub(super) data: usize,
    /// Payload bytes of the followed stream.
    pub(super) followed: u64,
}

impl OutgoingBytes {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_OUTGOING_BYTES)))
    }

    pub(super) fn room(&self) -> Room {
        Room(PollSemaphore::new(Arc::clone(&self.0)))
    }

    /// The socket took bytes.
    pub(super) fn release(&self, bytes: usize) {
        self.0.add_permits(bytes);
    }
}

impl Room {
    /// Room for a frame with a body of `bytes`, at most [`YAMUX_FRAME_BYTES`].
    pub(super) fn poll_reserve(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Reserved> {
        let bytes = u32::try_from(bytes + HEADER_BYTES).unwrap_or(u32::MAX);
        match self.0.poll_acquire_many(cx, bytes) {
            Poll::Ready(Some(permit)) => Poll::Ready(Reserved(permit)),
            // Never closed.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Gives up the place in the queue: a write that waited for room was given up.
    pub(super) fn leave_queue(&mut self) {
        self.0 = PollSemaphore::new(self.0.clone_inner());
    }
}

impl Reserved {
    /// The frame was written, with this many bytes in its body: its room comes back when the socket took it.
    pub(super) fn use_for(mut self, bytes: usize) {
        if let Some(used) = self.0.split(bytes + HEADER_BYTES) {
            used.forget();
        }
    }
}

impl Tracker {
    /// Whether the next byte begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.body_left == 0 && self.header.have().is_empty()
    }

    /// Takes what the multiplexer wrote.
    pub(super) fn advance(&mut self, mut bytes: &[u8], meter: &SendMeter) -> Passed {
        let mut passed = Passed::default();
        while !bytes.is_empty() {
            if let Some(header) = self.header.get() {
                let part = bytes.len().min(self.body_left);
                bytes = bytes.get(part..).unwrap_or_default();
                self.body_left -= part;
                passed.data += part;
                if meter.follows(header.stream) {
                    passed.followed += part as u64;
                }
            } else {
                bytes = self.header.take(bytes);
                if let Some(header) = self.header.get() {
                    self.body_left = header.body_bytes();
                    if self.body_left > 0 {
                        passed.data += HEADER_BYTES;
                    }
                }
            }
            if self.body_left == 0 && self.header.get().is_some() {
                self.header = HeaderBytes::default();
            }
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One yamux frame.
    fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, kind, 0, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(body);
        frame
    }

    /// However the bytes are cut into writes, only payload of the followed stream counts as that, and only frames with a
    /// payload hold room.
    #[test]
    fn only_payload_of_followed_stream_counts() {
        let mut bytes = frame(0, 1, b"four");
        bytes.extend(frame(0, 3, b"other stream"));
        // A ping has a number where data has a length, and no body.
        bytes.extend_from_slice(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9]);
        bytes.extend(frame(0, 1, b""));
        bytes.extend(frame(0, 1, b"seven77"));
        for step in 1..bytes.len() {
            let meter = SendMeter::default();
            meter.follow(1);
            let mut tracker = Tracker::default();
            let mut all = Passed::default();
            for part in bytes.chunks(step) {
                let passed = tracker.advance(part, &meter);
                all.data += passed.data;
                all.followed += passed.followed;
            }
            let expected = Passed {
                data: 3 * HEADER_BYTES + 4 + 12 + 7,
                followed: 11,
            };
            assert_eq!(all, expected, "cut every {step} bytes");
        }
    }
}
