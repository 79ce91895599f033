use std::{io, sync::Arc, time::Duration};

use dht_core::{Entropy, SecretKey, SeededEntropy};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::limits::{
    CLOSE_LINGER, MAX_NOISE_FRAME_BYTES, MAX_NOISE_PLAINTEXT_BYTES, READ_AHEAD_BYTES,
    WRITE_STALL_TIMEOUT,
};

/// Keys of both sides of one channel.
fn keys() -> (HandshakeKeys, HandshakeKeys) {
    let entropy = Arc::new(SeededEntropy::new(1));
    let secret = || SecretKey::random(&mut entropy.rng());
    let mut a = Handshake::initiator(&secret(), entropy.clone()).unwrap();
    let mut b = Handshake::responder(&secret(), entropy.clone()).unwrap();
    b.read(&a.write().unwrap()).unwrap();
    a.read(&b.write().unwrap()).unwrap();
    b.read(&a.write().unwrap()).unwrap();
    (a.finish().unwrap(), b.finish().unwrap())
}

fn channel(pipe_bytes: usize) -> (NoiseStream<DuplexStream>, NoiseStream<DuplexStream>) {
    let (a, b) = keys();
    let (near, far) = duplex(pipe_bytes);
    (
        NoiseStream::new(near, &a, Vec::new()),
        NoiseStream::new(far, &b, Vec::new()),
    )
}

/// A channel and the bare pipe at its other end, with a writer that makes frames for it.
fn bare(pipe_bytes: usize) -> (NoiseStream<DuplexStream>, DuplexStream, FrameWriter) {
    let (a, b) = keys();
    let (near, far) = duplex(pipe_bytes);
    (
        NoiseStream::new(near, &a, Vec::new()),
        far,
        FrameWriter::new(&b, Vec::new()),
    )
}

fn sealed(writer: &mut FrameWriter, data: &[u8]) -> Vec<u8> {
    writer.write(data).unwrap();
    writer.seal().unwrap();
    let bytes = writer.pending().to_vec();
    writer.advance(bytes.len());
    bytes
}

/// Feeds a reader in the given pieces and collects the plaintext.
fn read_all(reader: &mut FrameReader, mut bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    let mut cuts = cuts.iter().copied().cycle();
    loop {
        while let Some(part) = reader.plaintext().unwrap() {
            plaintext.extend_from_slice(part);
            let taken = part.len();
            reader.consume(taken);
        }
        if bytes.is_empty() {
            return plaintext;
        }
        let space = reader.space();
        assert!(!space.is_empty(), "there is always room for more");
        let count = cuts.next().unwrap().min(bytes.len()).min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        reader.filled(count);
        assert!(reader.allocated() <= READ_AHEAD_BYTES);
        bytes = &bytes[count..];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn writes_and_splits_preserve_bytes(
        writes in prop::collection::vec((0_usize..40_000, any::<bool>()), 1..12),
        cuts in prop::collection::vec(1_usize..70_000, 1..10),
    ) {
        let (a, b) = keys();
        let mut writer = FrameWriter::new(&a, Vec::new());
        let (mut sent, mut wire, mut byte) = (Vec::new(), Vec::new(), 0_u8);
        for (length, flush) in writes {
            byte = byte.wrapping_add(1);
            let data = vec![byte; length];
            writer.write(&data).unwrap();
            if flush {
                writer.seal().unwrap();
            }
            // The socket takes a part of what it could.
            let taken = writer.pending().len() * usize::from(byte) / 12;
            wire.extend_from_slice(&writer.pending()[..taken]);
            writer.advance(taken);
            sent.extend(data);
        }
        writer.seal().unwrap();
        wire.extend_from_slice(writer.pending());

        // No frame is empty or over the limit, and empty prefixes in between change nothing.
        let (mut with_empty, mut rest) = (vec![0, 0], &wire[..]);
        while let Some((prefix, tail)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*prefix));
            prop_assert!(length > 16, "a frame of {length} bytes");
            with_empty.extend_from_slice(&rest[..2 + length]);
            with_empty.extend_from_slice(&[0, 0]);
            rest = &tail[length..];
        }
        let mut reader = FrameReader::new(&b);
        prop_assert_eq!(read_all(&mut reader, &with_empty, &cuts), sent);
        prop_assert!(reader.is_between_frames());
    }

    #[test]
    fn random_bytes_never_decrypt(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let (_, b) = keys();
        let mut reader = FrameReader::new(&b);
        let (mut rest, mut failed) = (&bytes[..], false);
        while !rest.is_empty() && !failed {
            let space = reader.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            reader.filled(count);
            rest = &rest[count..];
            failed = match reader.plaintext() {
                Ok(plaintext) => {
                    prop_assert_eq!(plaintext, None);
                    false
                }
                Err(error) => error == NoiseError::Decrypt,
            };
        }
        if failed {
            prop_assert_eq!(reader.plaintext(), Err(NoiseError::Decrypt), "sticky");
        }
    }
}

#[test]
fn a_length_prefix_alone_allocates_little() {
    let (_, b) = keys();
    let mut reader = FrameReader::new(&b);
    assert_eq!(reader.allocated(), 0);
    reader.space()[..2].copy_from_slice(&[0xff, 0xff]);
    reader.filled(2);
    assert_eq!(reader.plaintext(), Ok(None));
    assert!(!reader.space().is_empty());
    assert!(reader.allocated() <= 8 * 1024);
}

#[tokio::test]
async fn full_frames_are_used_when_possible() {
    let (mut near, mut far) = {
        let (a, _) = keys();
        let (near, far) = duplex(1024 * 1024);
        (NoiseStream::new(near, &a, Vec::new()), far)
    };
    near.write_all(&vec![7; 3 * MAX_NOISE_PLAINTEXT_BYTES + 1])
        .await
        .unwrap();
    near.flush().await.unwrap();
    for expected in [
        MAX_NOISE_FRAME_BYTES,
        MAX_NOISE_FRAME_BYTES,
        MAX_NOISE_FRAME_BYTES,
        17,
    ] {
        let length = usize::from(far.read_u16().await.unwrap());
        assert_eq!(length, expected);
        far.read_exact(&mut vec![0; length]).await.unwrap();
    }
}

#[tokio::test]
async fn empty_plaintext_is_not_the_end() {
    let (mut near, mut far, mut writer) = bare(1024);
    let mut key = cipher::CountingKey::new(&keys().1.send);
    let tag = key.seal(&mut []).unwrap();
    far.write_all(&[0, 16]).await.unwrap();
    far.write_all(tag.as_ref()).await.unwrap();
    // The empty frame used up the first nonce.
    sealed(&mut writer, b"unused");
    far.write_all(&sealed(&mut writer, b"next")).await.unwrap();
    let mut got = [0; 4];
    near.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"next");
}

#[tokio::test]
async fn end_is_clean_only_between_frames() {
    let (mut near, mut far, mut writer) = bare(1024);
    let frame = sealed(&mut writer, b"abc");
    far.write_all(&frame).await.unwrap();
    drop(far);
    let mut got = Vec::new();
    near.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"abc");

    for cut in 1..frame.len() {
        let (mut near, mut far, mut writer) = bare(1024);
        far.write_all(&sealed(&mut writer, b"abc")[..cut])
            .await
            .unwrap();
        drop(far);
        let error = near.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
    }
}

#[tokio::test]
async fn changed_frame_fails_the_stream_forever() {
    let (mut near, mut far, mut writer) = bare(1024);
    let mut frame = sealed(&mut writer, b"abc");
    frame[4] ^= 1;
    far.write_all(&frame).await.unwrap();
    far.write_all(&sealed(&mut writer, b"def")).await.unwrap();
    for _ in 0..3 {
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn both_directions_survive_a_tiny_pipe() {
    let (mut a, mut b) = channel(7);
    let data: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let (mut got, expected) = (vec![0; data.len()], data.clone());
    let (wrote, read) = tokio::join!(
        async {
            a.write_all(&data).await?;
            a.flush().await
        },
        b.read_exact(&mut got)
    );
    wrote.unwrap();
    read.unwrap();
    assert_eq!(got, expected);
}

/// A mark is reached when the socket took the bytes before it, not earlier.
#[tokio::test]
async fn mark_waits_for_the_socket() {
    let (a, _) = keys();
    let (near, mut far) = duplex(10);
    let mut near = NoiseStream::new(near, &a, Vec::new());
    near.cork();
    near.write_all(b"0123456789").await.unwrap();
    near.set_mark(10);
    near.flush().await.unwrap();
    assert_eq!(
        near.sent_mark(),
        0,
        "corked, and then more than the pipe holds"
    );
    let mut taken = [0; 28];
    let mut byte = [0];
    let (read, _) = tokio::join!(
        far.read_exact(&mut taken),
        // A corked stream sends when it reads.
        tokio::time::timeout(Duration::from_millis(50), near.read(&mut byte))
    );
    read.unwrap();
    assert_eq!(near.sent_mark(), 10);
}

#[tokio::test(start_paused = true)]
async fn idle_buffers_are_given_back() {
    let (mut a, mut b) = channel(1024 * 1024);
    a.write_all(&vec![1; 500_000]).await.unwrap();
    a.flush().await.unwrap();
    b.read_exact(&mut vec![0; 500_000]).await.unwrap();
    assert!(a.allocated() + b.allocated() > 100_000);
    let mut byte = [0];
    let idle = Duration::from_secs(10);
    let (_, _) = tokio::join!(
        async { tokio::time::timeout(idle, a.read(&mut [0])).await.is_err() },
        async { tokio::time::timeout(idle, b.read(&mut byte)).await.is_err() }
    );
    assert!(
        a.allocated() + b.allocated() <= 2 * 4096,
        "what one small read needs"
    );
}

#[tokio::test(start_paused = true)]
async fn stalled_socket_is_given_up() {
    let (a, _) = keys();
    let (near, _far) = duplex(10);
    let mut near = NoiseStream::new(near, &a, Vec::new());
    let start = tokio::time::Instant::now();
    let error = near.write_all(&vec![0; 1_000_000]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= WRITE_STALL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn closing_flushes_and_lingers() {
    let (mut a, mut b) = channel(1024);
    a.write_all(b"last words").await.unwrap();
    // The peer does not close: we wait for it, but not for long.
    let start = tokio::time::Instant::now();
    a.shutdown().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), CLOSE_LINGER.as_secs());
    let mut got = Vec::new();
    b.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last words");

    let (mut a, mut b) = channel(1024);
    let start = tokio::time::Instant::now();
    let (near, far) = tokio::join!(a.shutdown(), b.shutdown());
    near.unwrap();
    far.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "both close: nobody waits");
}
