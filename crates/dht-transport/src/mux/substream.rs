//! One stream of a connection.

use std::{
    fmt,
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{AsyncWrite as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{SendMeter, backlog::Place, meter::LiveGuard, outgoing::Room};
use crate::limits::YAMUX_FRAME_BYTES;

/// An ordered byte stream in both directions, with its own flow control.
///
/// Dropping it without [shutting it down](tokio::io::AsyncWriteExt::shutdown) resets the stream. A stream that
/// has been opened but not written to is not yet known to the remote.
pub struct Substream {
    inner: yamux::Stream,
    /// Bytes read and not yet handed on.
    rest: Bytes,
    /// Number of payload bytes written.
    written: u64,
    followed: Option<Followed>,
    /// Room for what is written next.
    room: Room,
    ended: Ended,
    _live: LiveGuard,
    /// Correctness: after `inner`, whose frames it stands for.
    place: Place,
}

/// The end of the connection. The multiplexer does not wake its streams when it is closed from our side.
struct Ended {
    token: CancellationToken,
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

struct Followed {
    meter: Arc<SendMeter>,
    start: u64,
}

impl Substream {
    pub(super) fn new(
        inner: yamux::Stream,
        live: LiveGuard,
        room: Room,
        place: Place,
        ended: CancellationToken,
    ) -> Self {
        let ended = Ended {
            token: ended,
            waiting: None,
        };
        Self {
            inner,
            rest: Bytes::new(),
            written: 0,
            followed: None,
            room,
            ended,
            _live: live,
            place,
        }
    }

    /// Follows this stream's bytes to the socket; call before the first write.
    pub(crate) fn follow(&mut self, meter: Arc<SendMeter>) {
        let start = meter.follow(self.inner.id().val());
        self.followed = Some(Followed { meter, start });
    }

    /// Payload bytes written so far.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// Of [`written`](Self::written), the bytes the socket has taken. All of them if the stream is not
    /// followed.
    pub(crate) fn sent(&self, cx: &Context<'_>) -> u64 {
        self.followed.as_ref().map_or(self.written, |followed| {
            followed
                .meter
                .sent(cx.waker())
                .saturating_sub(followed.start)
        })
    }

    /// The next bytes as the remote framed them, without copying. `None` is the end of the stream. The memory of a
    /// chunk is accounted for until the next one is asked for.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        self.place.done();
        match Pin::new(&mut self.inner).poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                let chunk = Bytes::from_owner(chunk);
                self.place.took(chunk.len());
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(end) => Poll::Ready(end.map(|end| end.map(Bytes::from_owner))),
            Poll::Pending => self.ended.poll(cx).map(|error| Some(Err(error))),
        }
    }
}

impl Ended {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let token = &self.token;
        self.waiting
            .get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()))
            .as_mut()
            .poll(cx)
            .map(|()| io::ErrorKind::ConnectionAborted.into())
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() && out.remaining() > 0 {
            match ready!(this.poll_chunk(cx)) {
                Some(chunk) => this.rest = chunk?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.rest.len().min(out.remaining());
        out.put_slice(this.rest.get(..count).unwrap_or_default());
        this.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let data = data.get(..YAMUX_FRAME_BYTES).unwrap_or(data);
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // The room goes back if the stream has no window: others shall not wait for its reader.
        if let Poll::Ready(room) = this.room.poll_reserve(cx, data.len())
            && let Poll::Ready(count) = Pin::new(&mut this.inner).poll_write(cx, data)
        {
            let count = count?;
            room.use_for(count);
            this.written = this.written.saturating_add(count as u64);
            return Poll::Ready(Ok(count));
        }
        this.ended.poll(cx).map(Err)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.room.leave_queue();
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.room.leave_queue();
        Pin::new(&mut this.inner).poll_close(cx)
    }
}

impl fmt::Debug for Substream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substream")
            .field("id", &self.inner.id().val())
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
