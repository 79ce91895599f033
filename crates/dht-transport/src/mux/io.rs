//! The channel as the multiplexer sees it.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    Backlog, SendMeter,
    backlog::{Incoming, Waiting},
};
use crate::{
    limits::{FRAME_STALL_TIMEOUT, LARGE_FRAME_BYTES, READ_STALL_TIMEOUT, time_for},
    medium::Socket,
    noise::NoiseStream,
};

const HEADER_BYTES: usize = 12;
const TYPE_DATA: u8 = 0;
const FLAG_SYN: u8 = 1;

/// Longest body the multiplexer takes (02 section 4.4). It ends the connection over a longer one as soon as it has seen the
/// header: no room is made for that.
const MAX_BODY_BYTES: u32 = 1024 * 1024;

/// Adapts the channel to the traits of `futures`, follows one stream's bytes ([`SendMeter`]) and lets frames in as
/// there is room for them ([`Backlog`]).
pub(crate) struct MuxIo {
    channel: NoiseStream<Socket>,
    meter: Arc<SendMeter>,
    tracker: Tracker,
    backlog: Arc<Backlog>,
    gate: Gate,
    /// Whether the multiplexer flushed and has written nothing since.
    flushed: bool,
}

/// Where the multiplexer is in the frames it reads.
#[derive(Default)]
struct Gate {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that arrived, and of these, those handed on.
    have: usize,
    given: usize,
    admitted: bool,
    body_left: u32,
    waiting: Waiting,
    /// Runs while there is no room.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while the rest of a large frame is awaited.
    pace: Option<Pin<Box<Sleep>>>,
}

/// Reads along with the frames that the multiplexer writes.
#[derive(Default)]
struct Tracker {
    header: [u8; HEADER_BYTES],
    have: usize,
    body_left: u32,
}

impl MuxIo {
    pub(super) fn new(
        mut channel: NoiseStream<Socket>,
        meter: Arc<SendMeter>,
        backlog: Arc<Backlog>,
    ) -> Self {
        channel.cork();
        Self {
            channel,
            meter,
            tracker: Tracker::default(),
            backlog,
            gate: Gate::default(),
            flushed: false,
        }
    }

    /// Reads a part of one frame, never beyond its end.
    fn poll_frame(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.gate.body_left > 0 {
            let most = out.len().min(self.gate.body_left as usize);
            let out = out.get_mut(..most).unwrap_or_default();
            let Poll::Ready(count) = poll_channel(&mut self.channel, cx, out)? else {
                return self.gate.poll_pace(cx);
            };
            self.gate.body_left -= u32::try_from(count).unwrap_or(u32::MAX);
            return Poll::Ready(Ok(count));
        }
        if self.gate.have == 0 && self.flushed {
            self.backlog.reads();
        }
        while let Some(missing) = self.gate.header.get_mut(self.gate.have..)
            && !missing.is_empty()
        {
            let count = ready!(poll_channel(&mut self.channel, cx, missing))?;
            if count == 0 {
                // Part of a header is handed on, so that the multiplexer sees where the end came.
                break;
            }
            self.gate.have += count;
        }
        if !self.gate.admitted
            && let Some(frame) = self.gate.data_frame()
        {
            ready!(self.poll_room(cx, frame))?;
            self.gate.admitted = true;
        }
        Poll::Ready(Ok(self.gate.hand_on(out)))
    }

    /// Waits until there is room for a frame; an error if that takes too long.
    fn poll_room(&mut self, cx: &mut Context<'_>, frame: Incoming) -> Poll<io::Result<()>> {
        let gate = &mut self.gate;
        if self
            .backlog
            .poll_admit(cx, frame, &mut gate.waiting)
            .is_ready()
        {
            gate.stall = None;
            return Poll::Ready(Ok(()));
        }
        // Corked bytes go out with the next read, and this is not one.
        self.channel.send_corked(cx)?;
        let stall = gate
            .stall
            .get_or_insert_with(|| Box::pin(sleep(READ_STALL_TIMEOUT)));
        stall
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn publish(&self) {
        self.meter.publish(self.channel.sent_mark());
    }
}

impl Gate {
    /// The data frame whose header is complete.
    fn data_frame(&self) -> Option<Incoming> {
        let [_, kind, _, flags, a, b, c, d, ..] = self.header;
        let taken = kind == TYPE_DATA && self.length() <= MAX_BODY_BYTES;
        (self.have == HEADER_BYTES && taken).then(|| Incoming {
            stream: u32::from_be_bytes([a, b, c, d]),
            opens: flags & FLAG_SYN != 0,
            bytes: self.length() as usize,
        })
    }

    fn length(&self) -> u32 {
        let [_, _, _, _, _, _, _, _, a, b, c, d] = self.header;
        u32::from_be_bytes([a, b, c, d])
    }

    /// An error when a large frame takes too long: it holds its whole length of what all connections share.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let length = self.length() as usize;
        if length <= LARGE_FRAME_BYTES {
            return Poll::Pending;
        }
        let pace = self
            .pace
            .get_or_insert_with(|| Box::pin(sleep(FRAME_STALL_TIMEOUT + time_for(length))));
        pace.as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Hands header bytes on; after the last one, the body is due.
    fn hand_on(&mut self, out: &mut [u8]) -> usize {
        let rest = self.header.get(self.given..self.have).unwrap_or_default();
        let count = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.given += count;
        if self.given == self.have {
            if self.data_frame().is_some() {
                self.body_left = self.length();
                self.pace = None;
            }
            (self.have, self.given, self.admitted) = (0, 0, false);
        }
        count
    }
}

fn poll_channel(
    channel: &mut NoiseStream<Socket>,
    cx: &mut Context<'_>,
    out: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut out = ReadBuf::new(out);
    ready!(Pin::new(channel).poll_read(cx, &mut out))?;
    Poll::Ready(Ok(out.filled().len()))
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
        let result = this.poll_frame(cx, out);
        if matches!(result, Poll::Ready(Ok(1..))) {
            this.meter.hear();
        }
        // A corked channel sends before it reads the socket.
        this.publish();
        result
    }
}

impl futures::io::AsyncWrite for MuxIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed = false;
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
        this.flushed = true;
        this.backlog.flushed();
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

    /// However the bytes are cut into writes, only payload of the followed stream counts.
    #[test]
    fn only_payload_of_followed_stream_counts() {
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
