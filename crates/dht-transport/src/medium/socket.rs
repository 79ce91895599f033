//! The byte streams below Noise, counted.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
#[cfg(feature = "tcp")]
use tokio::net::TcpStream;

/// A connected socket of any [`Medium`](crate::Medium).
pub struct Socket {
    io: Io,
    counters: Option<Arc<WireCounters>>,
}

enum Io {
    #[cfg(feature = "tcp")]
    Tcp(TcpStream),
    Duplex(DuplexStream),
    Other(Pin<Box<dyn Stream>>),
}

/// Requirements on the socket of a foreign medium.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + 'static> Stream for S {}

/// Bytes that crossed sockets, encryption and framing included.
#[derive(Debug, Default)]
pub(crate) struct WireCounters {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl Socket {
    /// A socket over a TCP connection.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn tcp(stream: TcpStream) -> Self {
        Self {
            io: Io::Tcp(stream),
            counters: None,
        }
    }

    /// One end of an in-process pipe.
    #[must_use]
    pub fn duplex(stream: DuplexStream) -> Self {
        Self {
            io: Io::Duplex(stream),
            counters: None,
        }
    }

    /// Any other stream, for a medium this crate does not know.
    #[must_use]
    pub fn other(stream: impl Stream) -> Self {
        Self {
            io: Io::Other(Box::pin(stream)),
            counters: None,
        }
    }

    pub(crate) fn counted(mut self, counters: Arc<WireCounters>) -> Self {
        self.counters = Some(counters);
        self
    }

    fn io(&mut self) -> Pin<&mut dyn Stream> {
        match &mut self.io {
            #[cfg(feature = "tcp")]
            Io::Tcp(stream) => Pin::<&mut TcpStream>::new(stream),
            Io::Duplex(stream) => Pin::<&mut DuplexStream>::new(stream),
            Io::Other(stream) => stream.as_mut(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        ready!(this.io().poll_read(cx, out))?;
        if let Some(counters) = &this.counters {
            let count = out.filled().len().saturating_sub(before);
            counters.received.fetch_add(count as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(this.io().poll_write(cx, data))?;
        if let Some(counters) = &this.counters {
            counters.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io().poll_shutdown(cx)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.io {
            #[cfg(feature = "tcp")]
            Io::Tcp(_) => "Socket(tcp)",
            Io::Duplex(_) => "Socket(duplex)",
            Io::Other(_) => "Socket(other)",
        })
    }
}
