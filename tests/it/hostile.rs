//! Sockets and peers that do not keep to the protocol, against a running node.

use std::{collections::VecDeque, net::SocketAddr};

use bytes::Bytes;
use dht_core::{
    Address, Clock as _, Entropy as _, Features, MessageTag, Network, NodeIdentity, Payload,
    ProtocolVersion, SealRequest, SealSecrets, SecretKey, SeededEntropy, SendRequest, Signing,
    encode_envelope, encode_parts, seal,
};
use dht_node::Node;
use dht_tests::load::Peer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::net::{connect, message, node, receive, send, socket_address, until, within};

/// Opens a socket and writes; the other side may hang up at any time.
async fn open(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = within(TcpStream::connect(to)).await.unwrap();
    let _may_be_closed = within(socket.write_all(bytes)).await;
    socket
}

/// Bytes that arrive until the node hangs up.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let _reset = within(socket.read_to_end(&mut got)).await;
    got
}

/// An honest peer gets in and is heard, and nothing else is left.
async fn assert_serves(target: &Node, seed: u8) {
    let mut inbox = target.subscribe();
    let honest = node(seed).await;
    connect(&honest, target).await;
    within(send(&honest, target.public_key(), message("honest")))
        .await
        .unwrap();
    let received = receive(&mut inbox).await;
    assert_eq!(received.sender, Some(*honest.public_key()));
    drop(received);
    within(honest.shutdown()).await;
    until(|| target.peers().is_empty()).await;
    until(|| target.stats().connections == 0 && target.stats().memory_used_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_wire_byte_gets_no_answer() {
    let target = node(1).await;
    let ours = Network::LocalNet.wire_byte();
    for byte in (0..=u8::MAX).filter(|byte| *byte != ours) {
        let mut socket = open(socket_address(&target), &[byte, 0, 32]).await;
        assert_eq!(rest(&mut socket).await, b"", "{byte:#04x}");
    }
    assert_eq!(target.stats().handshakes, 0);
    assert_serves(&target, 2).await;
    assert_eq!(target.stats().handshakes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_handshake_gets_no_answer() {
    let target = node(1).await;
    let ours = Network::LocalNet.wire_byte();
    let mut noise = vec![0x5a; 4096];
    noise[0] = ours;
    let cases: [&[u8]; 4] = [
        // Not the length of a first handshake message.
        &[ours, 0xff, 0xff, 1, 2, 3],
        &[ours, 0, 0],
        &noise,
        // The right length, but no point of the group.
        &[&[ours, 0, 32][..], &[0xff; 32]].concat(),
    ];
    for case in cases {
        let mut socket = open(socket_address(&target), case).await;
        assert_eq!(rest(&mut socket).await, b"", "{:?}", &case[..3]);
    }
    assert_eq!(target.stats().handshakes, 0);
    assert_serves(&target, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_exclude_nobody() {
    const HALF_OPEN: usize = 200;
    let target = node(1).await;
    let address = socket_address(&target);
    let ours = Network::LocalNet.wire_byte();
    let mut sockets = Vec::new();
    for at in 0..HALF_OPEN {
        // Silence at each step: before the byte, after it, inside the length, inside the message.
        let started: &[u8] = match at % 4 {
            0 => &[],
            1 => &[ours],
            2 => &[ours, 0],
            _ => &[ours, 0, 32, 1, 2, 3],
        };
        sockets.push(open(address, started).await);
    }
    // All of them are open from this side; two honest peers come through.
    assert_serves(&target, 2).await;
    assert_serves(&target, 3).await;
    assert_eq!(target.stats().handshakes, 2);

    // None of them stays: the node hangs up on whoever does not hang up.
    for socket in &mut sockets {
        assert_eq!(rest(socket).await, b"");
    }
    assert_serves(&target, 4).await;
    assert_eq!(target.stats().handshakes, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_sockets_leave_nothing_behind() {
    let target = node(1).await;
    let address = socket_address(&target);
    let ours = Network::LocalNet.wire_byte();
    for at in 0..300 {
        let started: &[u8] = if at % 2 == 0 { &[] } else { &[ours, 0, 32] };
        drop(open(address, started).await);
    }
    assert_serves(&target, 2).await;
    assert_eq!(target.stats().handshakes, 1);
    assert_eq!(target.stats().messages_received, 1);
}

/// A discovery of the node `to`, signed by the peer number `seed`, who claims this address.
fn discovery(seed: u64, claimed: SocketAddr, to: &Node) -> Bytes {
    let clock = dht_node::SystemClock;
    let mut rng = SeededEntropy::new(seed).rng();
    let secret = SecretKey::random(&mut rng);
    let address = Address::tcp(claimed.ip(), claimed.port());
    let now = clock.now();
    let asker = NodeIdentity::new(secret, Features::NODE, vec![address], now, &mut rng);
    let request = SendRequest::discovery(&asker, to.public_key(), seed);
    let SendRequest::Message { params, payload } = request else {
        unreachable!()
    };
    let Payload::Part(part) = payload else {
        unreachable!()
    };
    let request = SealRequest {
        body: encode_parts(&[part]),
        message_type: params.message_type,
        destination: params.destination,
        encryption: params.encryption,
        sender: asker.secret_key(),
        signing: Signing::Anonymous,
        expires: Some(now.saturating_add(600)),
        tag: MessageTag(seed),
        version: ProtocolVersion::default(),
    };
    let sealed = seal(request, SealSecrets::random(&mut rng)).unwrap();
    encode_envelope(&sealed.header, &sealed.body)
}

/// One connection had a node dial every slot away with signed discoveries of keys that cost nothing, in 0.65 s. What it
/// can cause is bounded, and all others are served: inbound peers, and dials of the operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discoveries_of_one_peer_fill_nothing() {
    const DISCOVERIES: u64 = 700;
    let target = node(1).await;
    // Takes sockets and says nothing, so that each dial lasts.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let claimed = silent.local_addr().unwrap();
    let attacker = Peer::connect(99, &target.peer_address(), drop)
        .await
        .unwrap();
    let mut waiting = VecDeque::new();
    for seed in 1_000..1_000 + DISCOVERIES {
        let frame = discovery(seed, claimed, &target);
        attacker
            .send_when_possible(frame, &mut waiting)
            .await
            .unwrap();
    }
    until(|| target.stats().messages_received >= DISCOVERIES).await;
    until(|| target.stats().answered + target.stats().dropped >= DISCOVERIES).await;
    assert!(
        target.stats().answered <= 32 + 2 * 60,
        "{:?}",
        target.stats()
    );
    assert!(attacker.is_connected(), "nobody is banned for volume");

    let mut inbox = target.subscribe();
    let honest = node(2).await;
    connect(&honest, &target).await;
    within(send(&honest, target.public_key(), message("served")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("served"));
    let configured = node(3).await;
    connect(&target, &configured).await;
    drop(silent);
}
