//! Cuts off clients that do not read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::limits::MIN_READ_BYTES_PER_SECOND;

/// A socket whose writes fail once its reader is behind for too long.
///
/// The time counts from the first write that waits until a flush finds everything written, whatever the reader takes in
/// between: each byte it takes adds only the time that byte may take.
pub(super) struct WriteGuard<T, F> {
    inner: T,
    /// Time that a reader may be behind, apart from the time that the bytes it takes may take.
    grace: Duration,
    deadline: Pin<Box<Sleep>>,
    behind: Option<Behind>,
    /// Called when everything is written.
    flushed: F,
}

/// A reader that is behind.
#[derive(Clone, Copy, Debug)]
struct Behind {
    since: Instant,
    /// Bytes written since then.
    written: u64,
}

impl Behind {
    /// When the reader is cut off if it takes nothing more.
    fn deadline(&self, grace: Duration) -> Instant {
        let taking = self.written.saturating_mul(1000) / MIN_READ_BYTES_PER_SECOND;
        self.since + grace + Duration::from_millis(taking)
    }
}

impl<T, F> WriteGuard<T, F> {
    pub(super) fn new(inner: T, grace: Duration, flushed: F) -> Self {
        Self {
            inner,
            grace,
            deadline: Box::pin(sleep(grace)),
            behind: None,
            flushed,
        }
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let (Some(behind), Poll::Ready(Ok(bytes))) = (&mut self.behind, &written) {
            behind.written = behind.written.saturating_add(*bytes as u64);
        }
        self.guard(cx, written)
    }

    fn guard<R>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            return done;
        }
        let behind = self.behind.get_or_insert_with(|| Behind {
            since: Instant::now(),
            written: 0,
        });
        let deadline = behind.deadline(self.grace);
        if self.deadline.deadline() != deadline {
            self.deadline.as_mut().reset(deadline);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin, F: Unpin> AsyncRead for WriteGuard<T, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin, F: FnMut() + Unpin> AsyncWrite for WriteGuard<T, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        // Its caller writes what it has before it flushes.
        if let Poll::Ready(Ok(())) = flushed {
            self.behind = None;
            (self.flushed)();
        }
        self.guard(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.guard(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    /// Writes all; the error and the seconds that took.
    async fn cut_off(near: impl AsyncWrite, bytes: usize) -> (Option<io::ErrorKind>, u64) {
        let (start, mut near) = (Instant::now(), std::pin::pin!(near));
        let written = async {
            near.write_all(&vec![0; bytes]).await?;
            near.flush().await
        };
        let error = written.await.err().map(|error| error.kind());
        (error, start.elapsed().as_secs())
    }

    /// A reader of one byte every 29 s is behind as one that reads nothing is.
    #[tokio::test(start_paused = true)]
    async fn trickling_reader_is_cut_off() {
        for pause in [29, 60 * 60] {
            let (near, mut far) = duplex(16);
            let reading = async {
                loop {
                    sleep(Duration::from_secs(pause)).await;
                    if far.read(&mut [0]).await.unwrap() == 0 {
                        return;
                    }
                }
            };
            let near = WriteGuard::new(near, GRACE, || {});
            let cut = async { cut_off(near, 1 << 20).await };
            tokio::select! {
                cut = cut => assert_eq!(cut, (Some(io::ErrorKind::TimedOut), 30)),
                () = reading => unreachable!("the writer is there"),
            }
        }
    }

    /// Half as fast: behind by more than the grace once it has had twice that time.
    #[tokio::test(start_paused = true)]
    async fn readers_keep_the_least_rate() {
        let rate = usize::try_from(MIN_READ_BYTES_PER_SECOND).unwrap();
        for (each_second, expected) in [
            (rate, (None, 99)),
            (rate / 2, (Some(io::ErrorKind::TimedOut), 59)),
        ] {
            let (near, mut far) = duplex(rate);
            let reading = async {
                let mut read = vec![0; each_second];
                loop {
                    sleep(Duration::from_secs(1)).await;
                    if far.read_exact(&mut read).await.is_err() {
                        return;
                    }
                }
            };
            let near = WriteGuard::new(near, GRACE, || {});
            tokio::select! {
                cut = cut_off(near, 100 * rate) => assert_eq!(cut, expected),
                () = reading => unreachable!("the writer is there"),
            }
        }
    }

    /// The time of one response does not count for the next.
    #[tokio::test(start_paused = true)]
    async fn flushed_output_starts_time_anew() {
        let (near, mut far) = duplex(16);
        let mut flushes = 0;
        let mut near = WriteGuard::new(near, GRACE, || flushes += 1);
        for _ in 0..4 {
            let reading = async {
                sleep(Duration::from_secs(20)).await;
                far.read_exact(&mut [0; 32]).await.unwrap();
            };
            let (cut, ()) = tokio::join!(cut_off(&mut near, 32), reading);
            assert_eq!(cut, (None, 20));
        }
        drop(near);
        assert_eq!(flushes, 4);
    }
}
