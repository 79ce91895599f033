use std::{sync::Arc, time::Duration};

use dht_core::{Entropy, SecretKey, SeededEntropy};
use dht_stack::ByteBudget;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::*;
use crate::{
    channels,
    limits::{CONTROL_FRAMES, MAX_ANSWER_BYTES, MAX_CONTROL_PAUSES, MAX_OUTGOING_BYTES},
    medium::Socket,
    noise::{Handshake, NoiseStream},
};

const PING: u8 = 2;
const SYN: u16 = 1;
const ACK: u16 = 2;

/// One end of a multiplexed connection, driven by a task.
struct End {
    requests: mpsc::Sender<OpenRequest>,
    streams: mpsc::Receiver<Substream>,
    /// How the connection ended.
    ended: JoinHandle<Result<(), String>>,
}

impl End {
    fn new(channel: NoiseStream<Socket>, we_dialled: bool) -> Self {
        let (requests, incoming) = channels::OPEN_REQUESTS.open();
        let backlog = Backlog::new(ByteBudget::new(1 << 20));
        let mut task = MuxTask::new(
            channel,
            MuxSettings {
                we_dialled,
                max_inbound: 32,
                measures: true,
            },
            incoming,
            Arc::default(),
            Arc::default(),
            backlog,
        );
        let (accepted, streams) = mpsc::channel(32);
        let ended = tokio::spawn(async move {
            let end = task.run(|stream| accepted.try_send(stream).unwrap()).await;
            end.map_err(|error| error.to_string())
        });
        Self {
            requests,
            streams,
            ended,
        }
    }

    async fn open(&self) -> Substream {
        let (reply, stream) = oneshot::channel();
        self.requests.send(reply).await.unwrap();
        stream.await.unwrap().unwrap()
    }
}

/// Both ends of a channel, with a pipe of this size for each direction.
fn channel(pipe_bytes: usize) -> (NoiseStream<Socket>, NoiseStream<Socket>) {
    let entropy = Arc::new(SeededEntropy::new(1));
    let secret = || SecretKey::random(&mut entropy.rng());
    let mut a = Handshake::initiator(&secret(), entropy.clone()).unwrap();
    let mut b = Handshake::responder(&secret(), entropy.clone()).unwrap();
    b.read(&a.write().unwrap()).unwrap();
    a.read(&b.write().unwrap()).unwrap();
    b.read(&a.write().unwrap()).unwrap();
    let (near, far) = duplex(pipe_bytes);
    let end = |pipe, keys| NoiseStream::new(Socket::duplex(pipe), &keys, Vec::new());
    (
        end(near, a.finish().unwrap()),
        end(far, b.finish().unwrap()),
    )
}

/// A yamux frame.
fn frame(kind: u8, flags: u16, stream: u32, value: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, kind];
    frame.extend(flags.to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend(value.to_be_bytes());
    frame.extend(body);
    frame
}

/// Writes to a stream until it takes no more for a moment; answers how many bytes it took.
async fn fill(stream: &mut Substream) -> usize {
    let mut written = 0;
    let second = Duration::from_secs(1);
    while let Ok(count) = timeout(second, stream.write(&[7; 100_000])).await {
        written += count.unwrap();
    }
    written
}

/// A ping has to be answered while the socket takes nothing: what comes after it is read all the same.
#[tokio::test(start_paused = true)]
async fn reads_on_while_answer_waits() {
    let (near, mut far) = channel(1_000);
    let mut end = End::new(near, true);
    let mut stream = end.open().await;
    fill(&mut stream).await;
    far.write_all(&frame(PING, SYN, 0, 77, b"")).await.unwrap();
    far.write_all(&frame(0, SYN, 2, 5, b"hello")).await.unwrap();
    far.flush().await.unwrap();
    let mut theirs = timeout(Duration::from_secs(1), end.streams.recv())
        .await
        .expect("the stream is seen")
        .unwrap();
    let mut got = [0; 5];
    theirs.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");

    let mut header = [0; 12];
    while header[..] != frame(PING, ACK, 0, 77, b"") {
        far.read_exact(&mut header).await.unwrap();
        let [_, 0, .., a, b, c, d] = header else {
            continue;
        };
        let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        far.read_exact(&mut body).await.unwrap();
    }
}

/// Bytes that streams wrote and the socket has not taken are bounded for the connection, and none of them takes another's turn.
#[tokio::test(start_paused = true)]
async fn streams_share_the_outgoing_bound() {
    let (near, far) = channel(1_000);
    let (near, mut far) = (End::new(near, true), far);
    let mut bulk = near.open().await;
    let first = fill(&mut bulk).await;
    assert!(first > MAX_OUTGOING_BYTES / 2, "{first} bytes");
    let mut other = near.open().await;
    let second = fill(&mut other).await;
    assert!(
        first + second <= MAX_OUTGOING_BYTES + 1_000,
        "{second} more"
    );
    drop(other);
    // Nobody reads `bulk`, whose window is used up: others write all the same.
    let reading = async { while far.read(&mut [0; 4_096]).await.unwrap() > 0 {} };
    let writing = async {
        let left = fill(&mut bulk).await;
        assert_eq!(first + left, 256 * 1024, "the window");
        let mut other = near.open().await;
        assert_eq!(fill(&mut other).await, 256 * 1024);
    };
    tokio::select! {
        () = reading => unreachable!("the connection lasts"),
        () = writing => {}
    }
}

/// A peer that asks for answers and takes none is not read for long.
#[tokio::test(start_paused = true)]
async fn untaken_answers_stop_the_reading() {
    let (near, mut far) = channel(1_000);
    let _end = End::new(near, false);
    let (ping, mut sent) = (frame(PING, SYN, 0, 1, b""), 0);
    let flood = async {
        loop {
            far.write_all(&ping).await.unwrap();
            sent += ping.len();
        }
    };
    assert!(timeout(Duration::from_secs(60), flood).await.is_err());
    let most = MAX_OUTGOING_BYTES + MAX_ANSWER_BYTES;
    assert!(sent > most / 2 && sent < 2 * most, "{sent} bytes");
}

/// Frames that hold no window are held to a rate, and a peer that goes on above it is disconnected.
#[tokio::test(start_paused = true)]
async fn control_flood_is_slowed_then_ended() {
    let (near, mut far) = channel(64 * 1024);
    let end = End::new(near, false);
    let three = [
        frame(1, 0, 1, 0, b""),
        frame(0, 0, 1, 0, b""),
        frame(0, 0, 1, 1, b"x"),
    ];
    let thousands = three.concat().repeat(1_000);
    // Below the rate, nothing is held back.
    let start = Instant::now();
    for second in 1..=10 {
        for _ in 0..3 {
            far.write_all(&thousands).await.unwrap();
        }
        far.flush().await.unwrap();
        sleep_until(start + Duration::from_secs(second)).await;
    }
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(!end.ended.is_finished());
    let (start, mut frames) = (Instant::now(), 0);
    while far.write_all(&thousands).await.is_ok() {
        frames += 3_000;
    }
    let took = start.elapsed().as_secs();
    assert!((29..=32).contains(&took), "{took} s");
    let allowed = CONTROL_FRAMES.burst + MAX_CONTROL_PAUSES * CONTROL_FRAMES.per_second;
    assert!(frames < allowed + 20_000, "{frames} frames");
    let error = end.ended.await.unwrap().unwrap_err();
    assert!(error.contains("control frames"), "{error}");
}

/// Answers to probes that nobody sent are left out one by one, however many lie ready.
#[tokio::test(start_paused = true)]
async fn many_probe_answers_leave_the_stack() {
    let (near, mut far) = channel(8 << 20);
    let answers = frame(PING, ACK, 0, u32::MAX, b"").repeat(15_000);
    far.write_all(&answers).await.unwrap();
    far.write_all(&frame(PING, SYN, 0, 77, b"")).await.unwrap();
    far.flush().await.unwrap();
    let end = End::new(near, false);
    let mut header = [0; 12];
    while header[..] != frame(PING, ACK, 0, 77, b"") {
        far.read_exact(&mut header).await.unwrap();
    }
    assert!(!end.ended.is_finished());
}

/// Each end answers the other's ping and sends window updates while its socket takes nothing but data. Neither stops
/// reading over that.
#[tokio::test(start_paused = true)]
async fn flat_out_both_ways_never_stalls() {
    const BYTES: usize = 2 << 20;
    for pipe_bytes in [16, 1_000, 64 * 1024] {
        let (near, far) = channel(pipe_bytes);
        let (a, b) = (End::new(near, true), End::new(far, false));
        let transfer = |mut end: End| async move {
            let mut ours = end.open().await;
            let write = async {
                ours.write_all(&vec![7; BYTES]).await.unwrap();
                ours.shutdown().await.unwrap();
            };
            let read = async {
                let mut theirs = end.streams.recv().await.unwrap();
                let mut got = Vec::new();
                theirs.read_to_end(&mut got).await.unwrap();
                got.len()
            };
            tokio::join!(write, read).1
        };
        let both = async { tokio::join!(transfer(a), transfer(b)) };
        let got = timeout(Duration::from_secs(1), both).await;
        assert_eq!(got, Ok((BYTES, BYTES)), "pipes of {pipe_bytes} bytes");
    }
}
