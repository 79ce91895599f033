//! Bytes that no stream reads.

use super::*;

const SERVED: Bytes = Bytes::from_static(b"t/test/1");

/// A node whose owner takes no stream of the protocol it serves, and those streams.
async fn inattentive(
    memory: &Memory,
    shared: usize,
) -> (Node, tokio::sync::mpsc::Receiver<InboundStream>) {
    let (handler, streams) = tokio::sync::mpsc::channel(64);
    let mut setup = Setup::memory(1, memory);
    setup.serve = Some((SERVED, handler));
    setup.config.max_unread_bytes_total = shared;
    (setup.start().await, streams)
}

/// Streams of [`SERVED`] with windows full of small frames.
fn small_frames(streams: std::ops::Range<u32>) -> Vec<u8> {
    const BODY: [u8; 64] = [7; 64];
    let mut bytes = Vec::new();
    for stream in streams.map(|i| 2 * i + 1) {
        bytes.extend(peer::data(peer::SYN, stream, b"\x08\x03t/test/1"));
        let window = 256 * 1024 - 10;
        for _ in 0..window / BODY.len() {
            bytes.extend(peer::data(0, stream, &BODY));
        }
    }
    bytes
}

/// Writes until nothing is taken any more; returns how much was.
async fn push(channel: &mut NoiseStream<Socket>, mut bytes: &[u8]) -> usize {
    let all = bytes.len();
    while !bytes.is_empty() {
        let written = timeout(Duration::from_secs(1), channel.write(bytes)).await;
        let Ok(count) = written else { break };
        bytes = bytes.split_at(count.unwrap()).1;
    }
    let _full = timeout(Duration::from_secs(1), channel.flush()).await;
    all - bytes.len()
}

/// Bytes that are not in the node: the pipe, and buffers of the channel at either end.
const ON_THE_WAY: usize = 256 * 1024 + READ_AHEAD_BYTES + 3 * 64 * 1024;

#[tokio::test(start_paused = true)]
async fn unread_streams_share_connection_bound() {
    let memory = Memory::default();
    let (node, mut streams) = inattentive(&memory, 64 * 1024 * 1024).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    let flood = small_frames(0..20);
    let taken = push(&mut channel, &flood).await;
    // A frame of 64 bytes is 76 on the wire and costs three times as much.
    assert!(
        taken <= MAX_UNREAD_BYTES / 2 + ON_THE_WAY,
        "{taken} bytes taken"
    );
    assert!(taken >= MAX_UNREAD_BYTES / 4, "{taken} bytes taken");
    let held = node.transport.stats().unread_bytes;
    assert!((1..=MAX_UNREAD_BYTES).contains(&held), "{held} bytes held");

    // Somebody reads: it goes on where it stopped.
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(mut inbound) = streams.recv().await {
            tasks.spawn(async move {
                while inbound
                    .stream
                    .read(&mut [0; 4096])
                    .await
                    .is_ok_and(|n| n > 0)
                {}
            });
        }
    });
    assert_eq!(
        push(&mut channel, &flood[taken..]).await,
        flood.len() - taken
    );
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.transport.connections().len(), 1);
    drop(channel);
    clean(&node).await;
    assert_eq!(node.transport.stats().unread_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn refused_streams_data_is_forgotten() {
    let memory = Memory::default();
    let (node, streams) = inattentive(&memory, 64 * 1024 * 1024).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    let mut flood = Vec::new();
    for i in 0..32 {
        flood.extend(peer::data(peer::SYN, 2 * i + 1, b"\x08\x03t/test/1"));
    }
    let refused = 3_000;
    for i in 32..32 + refused {
        flood.extend(peer::data(peer::SYN, 2 * i + 1, &[7; 2_000]));
    }
    const { assert!(3_000 * 2_000 > MAX_UNREAD_BYTES) };
    assert_eq!(push(&mut channel, &flood).await, flood.len());
    assert_eq!(node.transport.connections()[0].streams(), 32);
    assert_eq!(node.transport.stats().unread_bytes, 0);
    drop((channel, streams));
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn untaken_frame_gets_no_room() {
    let memory = Memory::default();
    let (node, streams) = inattentive(&memory, 0).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    let mut bytes = peer::data(peer::SYN, 1, b"\x08\x03t/test/1unread");
    bytes.extend(peer::yamux(0, 0, 1, u32::MAX));
    push(&mut channel, &bytes).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.transport.connections().len(), 0);
    drop((channel, streams));
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn trickling_multiplexer_frame_ends_connection() {
    let memory = Memory::default();
    let (node, streams) = inattentive(&memory, 0).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    let mut next = peer::yamux(0, peer::SYN, 1, 1024 * 1024);
    for _ in 0..4 {
        push(&mut channel, &next).await;
        next = vec![1];
        sleep(Duration::from_secs(14)).await;
    }
    assert_eq!(node.transport.connections().len(), 0);
    drop((channel, streams));
    clean(&node).await;
    assert_eq!(node.transport.stats().unread_bytes, 0);
}

/// Connections share the bound on unread bytes, and honest ones are still heard.
#[tokio::test(start_paused = true)]
async fn honest_connection_keeps_unread_share() {
    let memory = Memory::default();
    // The least there is: one connection can hold all of it.
    let (mut node, streams) = inattentive(&memory, 0).await;
    let mut floods = Vec::new();
    for seed in 10..14 {
        let mut channel = peer::identify(&memory, &node.address, &identity(seed)).await;
        push(&mut channel, &small_frames(0..15)).await;
        floods.push(channel);
    }
    let held = node.transport.stats().unread_bytes;
    assert!(held <= MAX_UNREAD_BYTES, "{held} bytes held");
    assert!(held >= MAX_UNREAD_BYTES * 3 / 4, "{held} bytes held");

    let honest = Node::memory(2, &memory).await;
    honest.knows(&node);
    for byte in 0..20 {
        let delivery = honest
            .transport
            .send(&node.id(), body(byte, 300_000), Priority::Direct)
            .unwrap();
        assert_eq!(node.message().await.frame, body(byte, 300_000));
        assert_eq!(soon(delivery).await, Ok(()));
    }
    // Whoever is not read for long is let go.
    sleep(Duration::from_secs(130)).await;
    assert_eq!(node.transport.connections().len(), 1);
    drop((floods, honest, streams));
    clean(&node).await;
    assert_eq!(node.transport.stats().unread_bytes, 0);
}
