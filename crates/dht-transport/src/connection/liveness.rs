//! Liveness sessions: a line echo, by which others check that this node can be reached.
//! docs/protocol/02-transport-and-connectivity.md section 9.3.

use std::io;

use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    time::timeout,
};

use crate::limits::LIVENESS_IDLE_TIMEOUT;

/// Echoes lines until one is longer than `longest` bytes without its `\n` or is no text, none comes for a while, or the socket ends.
/// The text before its end is a line, too.
pub(crate) async fn echo<S>(socket: S, longest: usize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = BufReader::with_capacity(longest + 1, socket);
    let mut line = Vec::with_capacity(longest + 1);
    loop {
        line.clear();
        let mut rest = (&mut socket).take(longest as u64 + 1);
        let read = timeout(LIVENESS_IDLE_TIMEOUT, rest.read_until(b'\n', &mut line));
        read.await.map_err(|_| io::ErrorKind::TimedOut)??;
        let ended = line.pop_if(|byte| *byte == b'\n').is_some();
        if line.len() > longest || (line.is_empty() && !ended) {
            return Ok(());
        }
        line.pop_if(|byte| *byte == b'\r');
        std::str::from_utf8(&line).map_err(|_| io::ErrorKind::InvalidData)?;
        line.push(b'\n');
        let echo = async {
            socket.write_all(&line).await?;
            socket.flush().await
        };
        timeout(LIVENESS_IDLE_TIMEOUT, echo)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answer(sent: &[u8]) -> Vec<u8> {
        let (mut near, far) = duplex(1024);
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        // It hangs up on what is no text.
        let (_ended, read) = tokio::join!(echo(far, 50), near.read_to_end(&mut got));
        read.unwrap();
        got
    }

    /// As stock nodes do. `\r` counts.
    #[tokio::test]
    async fn long_line_ends_the_echo() {
        assert_eq!(answer(b"pingpong\nagain\r\n").await, b"pingpong\nagain\n");
        let line = |length, end: &str| ["x".repeat(length).as_bytes(), end.as_bytes()].concat();
        for (end, fits) in [("\n", 50), ("\r\n", 49), ("", 50)] {
            assert_eq!(answer(&line(fits, end)).await, line(fits, "\n"));
            assert_eq!(answer(&line(fits + 1, end)).await, b"");
            let first = [b"first\n", &*line(fits + 1, end)].concat();
            assert_eq!(answer(&first).await, b"first\n");
        }
        assert_eq!(answer(&line(500, "")).await, b"");
    }

    #[tokio::test]
    async fn unfinished_line_is_echoed_too() {
        assert_eq!(answer(b"ping\npong").await, b"ping\npong\n");
        assert_eq!(answer(b"\n\n").await, b"\n\n");
    }

    #[tokio::test]
    async fn no_text_is_not_echoed() {
        assert_eq!(answer(b"one\n\xff\ntwo\n").await, b"one\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_session_ends() {
        let (_near, far) = duplex(1024);
        assert_eq!(
            echo(far, 50).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
