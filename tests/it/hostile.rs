//! Sockets and peers that do not keep to the protocol, against a running node.

use std::net::SocketAddr;

use dht_core::Network;
use dht_node::Node;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
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
