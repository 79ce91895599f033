//! Liveness sessions: a line echo, by which others check that this node can be reached.
//! docs/protocol/02-transport-and-connectivity.md section 9.3.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::limits::{LIVENESS_IDLE_TIMEOUT, MAX_LIVENESS_LINE_BYTES};

/// Echoes lines until one is too long, none comes for a while, or the socket ends.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S) -> io::Result<()> {
    // Room for a line of the longest kind and its "\r\n".
    let mut line = Vec::with_capacity(MAX_LIVENESS_LINE_BYTES + 2);
    let mut buffer = [0; 64];
    loop {
        let read = timeout(LIVENESS_IDLE_TIMEOUT, socket.read(&mut buffer));
        let count = read.await.map_err(|_| io::ErrorKind::TimedOut)??;
        if count == 0 {
            return Ok(());
        }
        for byte in buffer.iter().take(count) {
            if *byte != b'\n' {
                line.push(*byte);
                if line.len() > MAX_LIVENESS_LINE_BYTES + 1 {
                    return Ok(());
                }
                continue;
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.len() > MAX_LIVENESS_LINE_BYTES {
                return Ok(());
            }
            line.push(b'\n');
            timeout(LIVENESS_IDLE_TIMEOUT, socket.write_all(&line))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??;
            line.clear();
        }
        socket.flush().await?;
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
        let (_, read) = tokio::join!(echo(far), near.read_to_end(&mut got));
        read.unwrap();
        got
    }

    /// Lines are echoed; one over the limit ends the session.
    #[tokio::test]
    async fn long_line_ends_the_echo() {
        assert_eq!(answer(b"pingpong\nagain\r\n").await, b"pingpong\nagain\n");
        let (fits, long) = ([b'x'; 50], [b'x'; 51]);
        let line = |text: &[u8]| [text, b"\n"].concat();
        assert_eq!(answer(&line(&fits)).await, line(&fits));
        assert_eq!(answer(&line(&long)).await, b"");
        assert_eq!(answer(&[b'x'; 500]).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_session_ends() {
        let (_near, far) = duplex(1024);
        assert_eq!(echo(far).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
