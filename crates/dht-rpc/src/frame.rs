//! Length-delimited frames (specification 02, section 6): `u32be length`, then the message.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::{ProtocolError, ReadError};

/// Bytes before each frame.
const HEADER_BYTES: usize = 4;
/// Room made for one read.
const READ_BYTES: usize = 4 * 1024;

/// Reads frames. Memory grows with the bytes that arrived, not with the length that a peer announces.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
}

/// Writes frames. What is pushed and not yet written stays in the buffer when a flush is dropped.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    io: W,
    buffer: BytesMut,
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        let buffer = BytesMut::new();
        Self { io, buffer }
    }

    /// The next frame of at most `limit` bytes; `None` if the peer closed its side between two frames. Cancel safe:
    /// bytes of an unfinished frame stay in the buffer.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(frame) = self.take(limit)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_BYTES);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()))
                };
            }
        }
    }

    fn take(&mut self, limit: usize) -> Result<Option<Bytes>, ProtocolError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let bytes = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if bytes > limit {
            return Err(ProtocolError::FrameTooLong { bytes, limit });
        }
        if self.buffer.len() - HEADER_BYTES < bytes {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let frame = self.buffer.split_to(bytes).freeze();
        if self.buffer.is_empty() {
            // The frame alone holds the allocation then, and frees it.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

// === impl FrameWriter ===

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(io: W) -> Self {
        let buffer = BytesMut::new();
        Self { io, buffer }
    }

    /// Queues a message. The caller has checked its length.
    pub(crate) fn push(&mut self, message: &impl Message) {
        let bytes = message.encoded_len();
        self.buffer.reserve(HEADER_BYTES + bytes);
        let header = u32::try_from(bytes).unwrap_or_else(|_| unreachable!("the length is checked"));
        self.buffer.put_u32(header);
        message.encode_raw(&mut self.buffer);
    }

    /// Bytes queued and not yet written.
    pub(crate) fn queued(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what is queued. Cancel safe.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while self.buffer.has_remaining() {
            if self.io.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.buffer = BytesMut::new();
        self.io.flush().await
    }

    /// Writes what is queued, and closes this side of the stream.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.io.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    /// A reader that hands out one piece a read, then the end.
    struct Pieces(Vec<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            if let Some(mut piece) = (!self.0.is_empty()).then(|| self.0.remove(0)) {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.insert(0, rest);
                }
            }
            std::task::Poll::Ready(Ok(()))
        }
    }

    async fn all(pieces: Vec<Vec<u8>>, limit: usize) -> (Vec<Bytes>, Option<ReadError>) {
        let mut reader = FrameReader::new(Pieces(pieces));
        let mut frames = Vec::new();
        loop {
            match reader.next(limit).await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    /// Nothing waits here: the pieces are ready.
    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        let header = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&header, bytes].concat()
    }

    proptest! {
        #[test]
        fn frames_arrive_however_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9_000), 0..5),
            cut in 1_usize..5_000,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|bytes| frame(bytes)).collect();
            let pieces = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
            let (read, error) = now(all(pieces, 9_000));
            prop_assert_eq!(read, frames);
            prop_assert!(error.is_none());
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
        ) {
            let (frames, _) = now(all(pieces, 16));
            prop_assert!(frames.iter().all(|frame| frame.len() <= 16));
        }
    }

    #[test]
    fn announced_lengths_take_no_memory() {
        let pieces = vec![4_000_000_u32.to_be_bytes().to_vec(), vec![1; 100]];
        let (frames, error) = now(all(pieces.clone(), 4_000_000));
        assert!(frames.is_empty());
        assert!(matches!(error, Some(ReadError::Io(_))), "{error:?}");
        let mut reader = FrameReader::new(Pieces(pieces));
        let _ = now(reader.next(4_000_000));
        assert!(reader.buffer.capacity() < 16 * 1024);
    }

    #[test]
    fn long_frames_are_refused_unread() {
        let (_, error) = now(all(vec![17_u32.to_be_bytes().to_vec()], 16));
        let long = ProtocolError::FrameTooLong {
            bytes: 17,
            limit: 16,
        };
        assert!(matches!(error, Some(ReadError::Protocol(found)) if found == long));
    }
}
