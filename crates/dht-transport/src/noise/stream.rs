//! The channel as a byte stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{FrameReader, FrameWriter, keys::HandshakeKeys};
use crate::limits::{
    BUFFER_IDLE_TIMEOUT, CLOSE_LINGER, MAX_NOISE_FRAME_BYTES, MAX_NOISE_PLAINTEXT_BYTES,
    WRITE_STALL_TIMEOUT,
};

/// Buffers up to this size are kept while a connection is idle.
const KEPT_BYTES: usize = 16 * 1024;

/// Bytes that may wait for the socket before no more is taken, unless the stream is corked: while one frame is being
/// sent the next is filled.
const MAX_WAITING_BYTES: usize = 2 * MAX_NOISE_FRAME_BYTES;

/// An encrypted, authenticated byte stream. Frame boundaries carry no meaning.
///
/// End of the socket between two frames is a clean end of stream; inside a frame it is
/// [`io::ErrorKind::UnexpectedEof`]; a frame that does not decrypt is [`io::ErrorKind::InvalidData`], then and
/// on every later read.
pub struct NoiseStream<S> {
    socket: S,
    reader: FrameReader,
    writer: FrameWriter,
    eof: bool,
    /// See [`cork`](NoiseStream::cork).
    corked: bool,
    /// Runs while a large buffer lies idle.
    idle: Option<Pin<Box<Sleep>>>,
    moved_since_idle: bool,
    /// Runs while the socket takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    progress_since_stall: bool,
    closing: Closing,
}

enum Closing {
    Open,
    /// Our end of stream is out; theirs is awaited until the timer ends.
    Lingering(Pin<Box<Sleep>>),
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> NoiseStream<S> {
    /// A channel over `socket`. `head` is sent, unencrypted, before the first frame.
    #[must_use]
    pub fn new(socket: S, keys: &HandshakeKeys, head: Vec<u8>) -> Self {
        Self {
            socket,
            reader: FrameReader::new(keys),
            writer: FrameWriter::new(keys, head),
            eof: false,
            corked: false,
            idle: None,
            moved_since_idle: false,
            stall: None,
            progress_since_stall: false,
            closing: Closing::Open,
        }
    }

    /// Lets a flush wait until the stream is about to read its socket, and takes everything that is written.
    ///
    /// A multiplexer flushes after each of its frames and always ends its turn by reading. Corked, the frames
    /// of one turn share Noise frames and socket writes. A write never waits for the socket: the caller bounds what is
    /// [unsent](Self::unsent).
    pub fn cork(&mut self) {
        self.corked = true;
    }

    /// Sends what a corked stream holds back, for a caller that does not read it now.
    ///
    /// # Errors
    /// Of the socket.
    pub fn send_corked(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.unsent() > 0
            && let Poll::Ready(sent) = self.poll_send_all(cx)
        {
            return sent;
        }
        Ok(())
    }

    /// Bytes that wait for the socket, encryption and framing included.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.writer.unsent()
    }

    /// Position of the writer, for [`sent_mark`](Self::sent_mark).
    pub fn set_mark(&mut self, mark: u64) {
        self.writer.set_mark(mark);
    }

    /// The highest position set whose bytes have all been handed to the socket.
    #[must_use]
    pub fn sent_mark(&self) -> u64 {
        self.writer.sent_mark()
    }

    /// Bytes held in buffers.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.reader.allocated() + self.writer.allocated()
    }

    /// Hands sealed frames to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writer.pending().is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, self.writer.pending())? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.writer.advance(count);
                    self.progress_since_stall = true;
                    self.moved_since_idle = true;
                }
                Poll::Pending => {
                    ready!(self.poll_stall(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        self.stall = None;
        Poll::Ready(Ok(()))
    }

    /// Ready when the socket has taken nothing for [`WRITE_STALL_TIMEOUT`].
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let timer = self.stall.get_or_insert_with(|| {
                self.progress_since_stall = false;
                Box::pin(sleep(WRITE_STALL_TIMEOUT))
            });
            ready!(timer.as_mut().poll(cx));
            if !self.progress_since_stall {
                return Poll::Ready(());
            }
            self.progress_since_stall = false;
            timer.as_mut().reset(Instant::now() + WRITE_STALL_TIMEOUT);
        }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        // Sealed only now: while the socket takes nothing, the frame is filled up.
        self.writer.seal()?;
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Releases buffers that lay unused for a while. Registers its timer; never makes the caller wait.
    fn poll_idle(&mut self, cx: &mut Context<'_>) {
        loop {
            if self.allocated() <= KEPT_BYTES {
                self.idle = None;
                return;
            }
            let timer = self.idle.get_or_insert_with(|| {
                self.moved_since_idle = false;
                Box::pin(sleep(BUFFER_IDLE_TIMEOUT))
            });
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            if self.moved_since_idle {
                self.moved_since_idle = false;
                timer.as_mut().reset(Instant::now() + BUFFER_IDLE_TIMEOUT);
                continue;
            }
            self.idle = None;
            self.reader.release();
            self.writer.release();
            if self.allocated() > KEPT_BYTES {
                // Part of a frame is held: look again later.
                self.idle = Some(Box::pin(sleep(BUFFER_IDLE_TIMEOUT)));
            }
        }
    }

    /// Reads from the socket into the frame reader. `Ready(Ok(false))` is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = ReadBuf::new(self.reader.space());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        self.reader.filled(count);
        self.moved_since_idle = true;
        Poll::Ready(Ok(count > 0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(plaintext) = this.reader.plaintext()? {
                let count = plaintext.len().min(out.remaining());
                out.put_slice(plaintext.get(..count).unwrap_or_default());
                this.reader.consume(count);
                return Poll::Ready(Ok(()));
            }
            if this.eof {
                return Poll::Ready(if this.reader.is_between_frames() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                });
            }
            if this.corked {
                this.send_corked(cx)?;
            }
            match this.poll_fill(cx)? {
                Poll::Ready(more) => this.eof = !more,
                Poll::Pending => {
                    this.poll_idle(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.corked && this.unsent() >= MAX_WAITING_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        let part = data.get(..MAX_NOISE_PLAINTEXT_BYTES).unwrap_or(data);
        this.writer.write(part)?;
        // Start sending what is complete; whether the socket takes it now does not matter.
        if !this.writer.pending().is_empty() {
            let _later = this.poll_drain(cx)?;
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.corked {
            Poll::Ready(Ok(()))
        } else {
            this.poll_send_all(cx)
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.closing {
                Closing::Open => {
                    ready!(this.poll_send_all(cx))?;
                    ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
                    this.closing = Closing::Lingering(Box::pin(sleep(CLOSE_LINGER)));
                }
                Closing::Lingering(timer) => {
                    // Bytes that still come are not needed, but unread bytes would turn our close into a reset.
                    if this.eof || timer.as_mut().poll(cx).is_ready() {
                        this.closing = Closing::Closed;
                        continue;
                    }
                    let mut waste = [0; 4096];
                    let mut waste = ReadBuf::new(&mut waste);
                    match Pin::new(&mut this.socket).poll_read(cx, &mut waste) {
                        Poll::Ready(Ok(())) if !waste.filled().is_empty() => {}
                        Poll::Ready(_) => this.closing = Closing::Closed,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S> std::fmt::Debug for NoiseStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NoiseStream")
            .field("reader", &self.reader)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}
