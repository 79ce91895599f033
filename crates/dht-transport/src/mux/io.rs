//! The channel as the multiplexer sees it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::SendMeter;
use crate::{Socket, noise::NoiseStream};

const HEADER_BYTES: usize = 12;
const TYPE_DATA: u8 = 0;

/// Adapts the channel to the traits of `futures` and follows one stream's bytes; see [`SendMeter`].
pub(crate) struct MuxIo {
    channel: NoiseStream<Socket>,
    meter: Arc<SendMeter>,
    tracker: Tracker,
}

/// Reads along with the frames that the multiplexer writes.
#[derive(Default)]
struct Tracker {
    header: [u8; HEADER_BYTES],
    have: usize,
    body_left: u32,
}

impl MuxIo {
    pub(super) fn new(mut channel: NoiseStream<Socket>, meter: Arc<SendMeter>) -> Self {
        channel.cork();
        Self {
            channel,
            meter,
            tracker: Tracker::default(),
        }
    }

    fn publish(&self) {
        self.meter.publish(self.channel.sent_mark());
    }
}

impl Tracker {
    /// Takes bytes the channel accepted; returns how many of them are payload of the followed stream.
    fn advance(&mut self, mut bytes: &[u8], meter: &SendMeter) -> u64 {
        let mut followed = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let part = bytes.len().min(self.body_left as usize);
                bytes = bytes.get(part..).unwrap_or_default();
                self.body_left = self
                    .body_left
                    .saturating_sub(u32::try_from(part).unwrap_or(u32::MAX));
                if meter.follows(self.stream()) {
                    followed += part as u64;
                }
            } else {
                let Some((first, rest)) = bytes.split_first() else {
                    break;
                };
                if let Some(slot) = self.header.get_mut(self.have) {
                    *slot = *first;
                }
                bytes = rest;
                self.have += 1;
                if self.have == HEADER_BYTES {
                    self.have = 0;
                    let [_, kind, _, _, _, _, _, _, a, b, c, d] = self.header;
                    if kind == TYPE_DATA {
                        self.body_left = u32::from_be_bytes([a, b, c, d]);
                    }
                }
            }
        }
        followed
    }

    fn stream(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = self.header;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl futures::io::AsyncRead for MuxIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut out = ReadBuf::new(out);
        let result = Pin::new(&mut this.channel).poll_read(cx, &mut out);
        // A corked channel sends before it reads the socket.
        this.publish();
        result.map_ok(|()| out.filled().len())
    }
}

impl futures::io::AsyncWrite for MuxIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.channel).poll_write(cx, data);
        if let Poll::Ready(Ok(count)) = &result {
            let taken = data.get(..*count).unwrap_or_default();
            let followed = this.tracker.advance(taken, &this.meter);
            if followed > 0 {
                this.channel.set_mark(this.meter.accept(followed));
            }
        }
        this.publish();
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.channel).poll_flush(cx);
        this.publish();
        result
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.channel).poll_shutdown(cx);
        this.publish();
        result
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

    #[test]
    fn only_payload_of_the_followed_stream_counts_however_the_bytes_are_cut() {
        let mut bytes = frame(TYPE_DATA, 1, b"four");
        bytes.extend(frame(TYPE_DATA, 3, b"other stream"));
        // A ping has a number where data has a length, and no body.
        bytes.extend_from_slice(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9]);
        bytes.extend(frame(TYPE_DATA, 1, b""));
        bytes.extend(frame(TYPE_DATA, 1, b"seven77"));
        for step in 1..bytes.len() {
            let meter = SendMeter::default();
            meter.follow(1);
            let mut tracker = Tracker::default();
            let followed: u64 = bytes
                .chunks(step)
                .map(|part| tracker.advance(part, &meter))
                .sum();
            assert_eq!(followed, 11, "cut every {step} bytes");
        }
    }
}
