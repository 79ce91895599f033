//! Peers that misbehave at every step of a connection.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;
#[path = "hostile/unread.rs"]
mod unread;

use std::time::Duration;

use bytes::Bytes;
use dht_core::{Network, Priority};
use dht_peers::policy::Offence;
use dht_transport::{
    ConnectionEvent, IdentityError, InboundStream, Medium as _, Memory, Socket, Tcp, UpgradeError,
    limits::{LIGHT_BYTES, MAX_UNREAD_BYTES, MESSAGE_OVERHEAD_BYTES, READ_AHEAD_BYTES},
    noise::{NoiseError, NoiseStream},
};
use proptest::prelude::*;
use support::{Node, Setup, body, config, identity, peer, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// The next failed upgrade and the offences of the peer.
async fn failure(node: &mut Node) -> (UpgradeError, Vec<Offence>) {
    match node.event().await {
        ConnectionEvent::InboundFailed { error, .. } => {
            (error, node.offences(identity(9).public_key()))
        }
        other => panic!("{other:?}"),
    }
}

/// Nothing is left of whatever was tried.
async fn clean(node: &Node) {
    node.settles_to(1).await;
    let stats = node.transport.stats();
    assert_eq!((stats.connections, stats.handshakes), (0, 0));
    assert_eq!(node.budget.available(), node.budget.total());
}

#[tokio::test(start_paused = true)]
async fn another_network_gets_no_byte() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let mut socket = peer::connect(&memory, &node.address).await;
    socket
        .write_all(&[Network::MainNet.wire_byte()])
        .await
        .unwrap();
    let mut got = Vec::new();
    socket.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"");
    assert_eq!(
        failure(&mut node).await,
        (UpgradeError::WireByte(0), vec![])
    );
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_cut_off_everywhere() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let start = Instant::now();
    let _silent = peer::connect(&memory, &node.address).await;
    assert_eq!(failure(&mut node).await.0, UpgradeError::WireByteTimeout);
    assert_eq!(start.elapsed().as_secs(), 6);

    let start = Instant::now();
    let mut socket = peer::connect(&memory, &node.address).await;
    socket
        .write_all(&[Network::LocalNet.wire_byte(), 0, 32, 1])
        .await
        .unwrap();
    assert_eq!(
        failure(&mut node).await.0,
        UpgradeError::Noise(NoiseError::Timeout)
    );
    assert_eq!(start.elapsed().as_secs(), 6);

    // Noise, then nothing: the identity's own limit. Nobody is banned, as others may have slowed the line.
    let start = Instant::now();
    let _channel = peer::shake(&memory, &node.address, &identity(9)).await;
    let (error, offences) = failure(&mut node).await;
    assert_eq!(error, UpgradeError::Identity(IdentityError::Timeout));
    assert_eq!(offences, []);
    assert_eq!(start.elapsed().as_secs(), 10);
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn one_deadline_covers_all_steps() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let start = Instant::now();
    let mut socket = peer::connect(&memory, &node.address).await;
    // Each step is answered just in time.
    sleep(Duration::from_millis(5_900)).await;
    socket
        .write_all(&[Network::LocalNet.wire_byte()])
        .await
        .unwrap();
    sleep(Duration::from_millis(5_900)).await;
    socket.write_all(&[0, 32]).await.unwrap();
    socket
        .write_all(identity(9).public_key().as_bytes())
        .await
        .unwrap();
    let (error, offences) = failure(&mut node).await;
    assert_eq!((error, offences), (UpgradeError::Timeout, vec![]));
    assert_eq!(start.elapsed().as_secs(), 15);
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_instead_of_noise() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let byte = Network::LocalNet.wire_byte();
    for (sent, expected) in [
        (
            vec![byte, 0xff, 0xff, 1, 2, 3],
            NoiseError::HandshakeLength(0xffff),
        ),
        (
            [&[byte, 0, 33][..], &[1; 33]].concat(),
            NoiseError::HandshakeLength(33),
        ),
        (
            [&[byte, 0, 32][..], &[0xff; 32]].concat(),
            NoiseError::Handshake,
        ),
        (
            [&[byte, 0, 32][..], &[0; 32]].concat(),
            NoiseError::Handshake,
        ),
    ] {
        let mut socket = peer::connect(&memory, &node.address).await;
        socket.write_all(&sent).await.unwrap();
        assert_eq!(
            failure(&mut node).await,
            (UpgradeError::Noise(expected), vec![])
        );
    }
    // A wrong third message.
    let mut socket = peer::connect(&memory, &node.address).await;
    socket.write_all(&[byte, 0, 32]).await.unwrap();
    socket
        .write_all(identity(9).public_key().as_bytes())
        .await
        .unwrap();
    socket.read_exact(&mut [0; 98]).await.unwrap();
    socket
        .write_all(&[&[0, 64][..], &[5; 64]].concat())
        .await
        .unwrap();
    assert_eq!(
        failure(&mut node).await.0,
        UpgradeError::Noise(NoiseError::Handshake)
    );
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn early_close_is_nobodys_fault() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    drop(peer::connect(&memory, &node.address).await);
    assert!(matches!(failure(&mut node).await, (UpgradeError::Io(_), o) if o.is_empty()));
    drop(peer::shake(&memory, &node.address, &identity(9)).await);
    let (error, offences) = failure(&mut node).await;
    assert!(
        matches!(error, UpgradeError::Identity(IdentityError::Io(_))),
        "{error:?}"
    );
    assert_eq!(offences, []);
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn bad_identities_are_named_and_banned() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let frame = peer::honest_frame(&identity(9));
    let mut forged = frame.clone();
    // Somewhere in the signature, at the end of the message.
    let at = forged.len() - 20;
    forged[at] ^= 1;
    for (sent, expected) in [
        (vec![0, 0x01, 0x04], Some(Offence::MalformedIdentity)),
        (vec![1, 0, 0], Some(Offence::IdentityVersion)),
        (
            vec![0, 3, 0, 0xff, 0xff, 0xff],
            Some(Offence::MalformedIdentity),
        ),
        (forged, Some(Offence::ForgedIdentity)),
        // Signed by somebody else.
        (
            peer::honest_frame(&identity(8)),
            Some(Offence::ForgedIdentity),
        ),
        // Nothing in it: no address, which is not an offence.
        (vec![0, 0, 0], None),
    ] {
        let (mut channel, _) = peer::shake(&memory, &node.address, &identity(9)).await;
        channel.write_all(&sent).await.unwrap();
        channel.flush().await.unwrap();
        let (error, offences) = failure(&mut node).await;
        let UpgradeError::Identity(error) = error else {
            panic!("{error:?}")
        };
        assert_eq!(error.offence(false), expected, "{error:?}");
        assert_eq!(offences, Vec::from_iter(expected));
        // Else the next attempt would be refused before its identity.
        node.directory.unban(*identity(9).public_key());
    }
    clean(&node).await;
}

/// Banned keys and our own key are closed before identities are exchanged.
#[tokio::test(start_paused = true)]
async fn banned_or_own_key_ends_handshake() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let villain = identity(9);
    node.ban(villain.public_key());
    for (who, expected) in [
        (villain, UpgradeError::Banned),
        (node.identity.clone(), UpgradeError::OwnKey),
    ] {
        let (mut channel, _) = peer::shake(&memory, &node.address, &who).await;
        assert_eq!(
            channel.read(&mut [0; 1]).await.unwrap_or(0),
            0,
            "no identity is sent"
        );
        assert_eq!(failure(&mut node).await, (expected, vec![]));
    }
    clean(&node).await;
}

/// Honest peers get through beside two hundred half-open sockets.
#[tokio::test]
async fn honest_peers_pass_half_open_sockets() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let mut half_open = Vec::new();
    for i in 0..200_u64 {
        let mut socket = peer::connect(&memory, &node.address).await;
        if i % 2 == 0 {
            socket
                .write_all(&[Network::LocalNet.wire_byte(), 0, 32])
                .await
                .unwrap();
        }
        half_open.push(socket);
        tokio::task::yield_now().await;
    }
    for seed in 2..7 {
        let honest = Node::memory(seed, &memory).await;
        honest.knows(&node);
        let delivery = honest
            .transport
            .send(&node.id(), body(7, 10), Priority::Direct)
            .unwrap();
        assert_eq!(node.message().await.frame, body(7, 10));
        assert_eq!(soon(delivery).await, Ok(()));
    }
    assert!(node.transport.stats().handshakes <= 100);
    drop(half_open);
}

#[tokio::test(start_paused = true)]
async fn handshakes_of_one_source_are_bounded() {
    let memory = Memory::default();
    let mut setup = Setup::memory(1, &memory);
    setup.config.trusted_sources.clear();
    let node = setup.start().await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(peer::connect(&memory, &node.address).await);
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_millis(1)).await;
    let stats = node.transport.stats();
    assert_eq!((stats.handshakes, stats.refused), (4, 16));
    drop(sockets);
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_capped() {
    let memory = Memory::default();
    let mut setup = Setup::memory(1, &memory);
    setup.config = config();
    setup.config.max_connections = 2;
    let node = setup.start().await;
    let mut channels = Vec::new();
    for seed in 10..12 {
        channels.push(peer::identify(&memory, &node.address, &identity(seed)).await);
    }
    let mut refused = peer::connect(&memory, &node.address).await;
    assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(node.transport.connections().len(), 2);
    drop(channels);
    clean(&node).await;
}

/// Sends raw multiplexer bytes after an honest start; returns the offences until the connection is gone.
async fn after_identity(bytes: &[u8]) -> (Vec<Offence>, Vec<usize>) {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    channel.write_all(bytes).await.unwrap();
    channel.flush().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(channel);
    loop {
        match node.event().await {
            ConnectionEvent::Connected { .. } => {}
            ConnectionEvent::Disconnected { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let offences = node.offences(identity(9).public_key());
    let mut messages = Vec::new();
    while let Ok(message) = node.outlets.messages.try_recv() {
        messages.push(message.frame.len());
    }
    clean(&node).await;
    (offences, messages)
}

#[tokio::test(start_paused = true)]
async fn misuse_of_an_established_connection() {
    // As the reference does: three small frames, then the message.
    let mut scattered = peer::data(peer::SYN, 1, &[9]);
    scattered.extend(peer::data(0, 1, &[3]));
    scattered.extend(peer::data(0, 1, b"t/msg/0.1"));
    scattered.extend(peer::data(0, 1, b"\0\0\0\x08hi there"));
    assert_eq!(after_identity(&scattered).await, (vec![], vec![8]));

    let long = peer::messaging(1, &[0, 0x80, 0, 1]);
    assert_eq!(
        after_identity(&long).await,
        (vec![Offence::FrameTooLong], vec![])
    );

    let flags = peer::data(peer::SYN, 1, &[4, 0x10]);
    let (offences, _) = after_identity(&flags).await;
    assert_eq!(offences, [Offence::Negotiation]);

    // A frame that ends with the connection, and garbage for the multiplexer.
    assert_eq!(
        after_identity(&peer::messaging(1, &[0, 0, 0, 9, 1])).await,
        (vec![], vec![])
    );
    assert_eq!(after_identity(&[0xff; 100]).await, (vec![], vec![]));
    // A window update that overflows, a stream of the wrong parity, and a body over the window.
    assert_eq!(
        after_identity(&peer::yamux(1, peer::SYN, 1, u32::MAX)).await,
        (vec![], vec![])
    );
    assert_eq!(
        after_identity(&peer::data(peer::SYN, 2, b"x")).await,
        (vec![], vec![])
    );
    assert_eq!(
        after_identity(&peer::data(peer::SYN, 1, &[0; 300_000])).await,
        (vec![], vec![])
    );
}

#[tokio::test(start_paused = true)]
async fn stream_flood_is_reset_without_trace() {
    let mut bytes = Vec::new();
    for i in 0..100 {
        bytes.extend(peer::data(peer::SYN, 1 + 2 * i, &[9]));
    }
    // The first is served until it ends; its place is then free for one that means something.
    bytes.extend(peer::data(peer::FIN, 1, &[]));
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    channel.write_all(&bytes).await.unwrap();
    channel.flush().await.unwrap();
    node.connected().await;
    sleep(Duration::from_secs(1)).await;
    let streams = node.transport.connections()[0].streams();
    assert_eq!(streams, 31, "32 at once, less the one that ended");
    channel
        .write_all(&peer::messaging(1001, b"\0\0\0\x02hi"))
        .await
        .unwrap();
    channel.flush().await.unwrap();
    assert_eq!(&node.message().await.frame[..], b"hi");
    drop(channel);
    clean(&node).await;
}

#[tokio::test(start_paused = true)]
async fn newer_messaging_stream_replaces_older() {
    let mut bytes = peer::messaging(1, b"\0\0\0\x01a");
    bytes.extend(peer::messaging(3, b"\0\0\0\x02bb"));
    // Messages that arrived on the older one before it was replaced are not lost.
    let (offences, mut messages) = after_identity(&bytes).await;
    messages.sort_unstable();
    assert_eq!((offences, messages), (vec![], vec![1, 2]));
}

/// An announced frame that does not come gives its share of the byte budget back.
#[tokio::test(start_paused = true)]
async fn missing_frame_returns_its_budget() {
    let memory = Memory::default();
    let mut node = Node::memory(1, &memory).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    channel
        .write_all(&peer::messaging(1, &[0, 0x10, 0, 0]))
        .await
        .unwrap();
    channel.flush().await.unwrap();
    node.connected().await;
    sleep(Duration::from_secs(1)).await;
    assert!(
        node.budget.total() - node.budget.available() >= 1024 * 1024,
        "reserved before it is read"
    );
    sleep(Duration::from_secs(40)).await;
    assert_eq!(node.budget.available(), node.budget.total());
    assert_eq!(
        node.transport.connections().len(),
        1,
        "the connection stays"
    );
}

#[tokio::test(start_paused = true)]
async fn trickling_frame_loses_its_budget() {
    let memory = Memory::default();
    let node = Node::memory(1, &memory).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    let mut next = peer::messaging(1, &[0, 0x80, 0, 0]);
    for _ in 0..3 {
        channel.write_all(&next).await.unwrap();
        channel.flush().await.unwrap();
        sleep(Duration::from_secs(14)).await;
        next = peer::data(0, 1, b"x");
    }
    assert_eq!(node.budget.available(), node.budget.total());
}

/// A connection has one share of the reserve, whatever number of streams it opens.
#[tokio::test(start_paused = true)]
async fn connection_has_one_reserve_share() {
    let memory = Memory::default();
    let mut setup = Setup::memory(1, &memory);
    (setup.budget, setup.reserve) = (4 << 20, 2 << 20);
    setup.config.inbound_channel = 1_000;
    let mut node = setup.start().await;
    let _others = node.budget.acquire(usize::MAX).await;
    let mut channel = peer::identify(&memory, &node.address, &identity(9)).await;
    let frame = [&[0, 0, 4, 0][..], &[7; 1024]].concat();
    for i in 0..10 {
        let stream = peer::messaging(2 * i + 1, &frame.repeat(20));
        channel.write_all(&stream).await.unwrap();
        channel.flush().await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }
    let mut unread = Vec::new();
    while let Ok(message) = node.outlets.messages.try_recv() {
        unread.push(message);
    }
    assert_eq!(unread.len(), LIGHT_BYTES / (1024 + MESSAGE_OVERHEAD_BYTES));
}

#[tokio::test]
async fn foreign_network_sees_end_without_reset() {
    let node = Setup::tcp(1).start().await;
    for _ in 0..10 {
        let mut socket = Tcp.dial(&node.address).await.unwrap();
        // The first handshake message follows at once and is not read.
        let mut opening = [1; 35];
        opening[0] = Network::MainNet.wire_byte();
        socket.write_all(&opening).await.unwrap();
        assert_eq!(soon(socket.read(&mut [0])).await.unwrap(), 0);
    }
}

/// Bytes that look like multiplexer frames, sound or not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (
        0_u8..5,
        0_u16..32,
        0_u32..8,
        prop::collection::vec(any::<u8>(), 0..40),
        any::<u32>(),
    );
    prop::collection::vec(frame, 1..30).prop_map(|frames| {
        frames
            .into_iter()
            .flat_map(|(kind, flags, stream, body, number)| {
                let flags = flags & 0b1111;
                match kind {
                    0 => peer::data(flags, stream, &body),
                    // Negotiation of messaging and the beginning of a frame.
                    4 => peer::messaging(stream, &body),
                    kind => peer::yamux(kind, flags, stream, number >> (number % 32)),
                }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A panic in a connection's task would swallow its disconnect, and leave something behind.
    #[test]
    fn random_frames_disconnect_without_trace(bytes in frames()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let _ = runtime.block_on(after_identity(&bytes));
    }
}
