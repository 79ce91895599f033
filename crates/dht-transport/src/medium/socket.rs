//! The byte streams below Noise, counted.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
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

/// Where a socket comes from, as far as limits per source care.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Source {
    /// A single IPv4 address.
    V4(Ipv4Addr),
    /// The upper 64 bits of an IPv6 address: one customer usually has all of the rest.
    V6(u64),
    /// This machine or this process.
    Local,
}

impl Source {
    /// The source of an address; IPv4 inside IPv6 counts as IPv4.
    #[must_use]
    pub fn from_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Local,
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6(
                    [a, b, c, d]
                        .into_iter()
                        .fold(0, |all, part| all << 16 | u64::from(part)),
                )
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 source is its prefix; an IPv4 address mapped into IPv6 counts as IPv4.
    #[test]
    fn ipv6_source_is_its_prefix() {
        let source = |ip: &str| Source::from_ip(ip.parse().unwrap());
        assert_eq!(source("2001:db8:1:2:3::4"), source("2001:db8:1:2:ffff::1"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(
            source("::ffff:192.0.2.1"),
            Source::V4(Ipv4Addr::new(192, 0, 2, 1))
        );
        assert_eq!(source("127.0.0.9"), Source::Local);
        assert_eq!(source("::1"), Source::Local);
    }
}
