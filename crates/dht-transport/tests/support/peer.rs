//! A hand-driven peer: every step of a connection can be done wrong.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{Address, Network, NodeIdentity, PublicKey, SeededEntropy};
use dht_transport::{
    Acceptor, Medium, Memory, Socket, encode_identity,
    noise::{self, NoiseStream},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Connects without saying anything.
pub async fn connect(memory: &Memory, address: &Address) -> Socket {
    memory.dial(address).await.unwrap()
}

/// Up to and including Noise.
pub async fn shake(
    memory: &Memory,
    address: &Address,
    identity: &NodeIdentity,
) -> (NoiseStream<Socket>, PublicKey) {
    let socket = connect(memory, address).await;
    let byte = Network::LocalNet.wire_byte();
    let entropy = Arc::new(SeededEntropy::new(77));
    let (mut channel, key) = noise::initiate(socket, identity.secret_key(), entropy, byte)
        .await
        .unwrap();
    // The third message waits for the first data otherwise.
    channel.flush().await.unwrap();
    (channel, key)
}

/// The frame an honest peer sends.
pub fn honest_frame(identity: &NodeIdentity) -> Vec<u8> {
    encode_identity(
        0,
        &identity.claim(),
        "peer/1",
        &[Bytes::from_static(b"t/msg/0.1")],
    )
    .unwrap()
}

/// Up to and including the identity exchange.
pub async fn identify(
    memory: &Memory,
    address: &Address,
    identity: &NodeIdentity,
) -> NoiseStream<Socket> {
    let (channel, _) = shake(memory, address, identity).await;
    exchange(channel, identity).await
}

/// Accepts a connection, up to and including the identity exchange.
pub async fn accept(listener: &mut dyn Acceptor, identity: &NodeIdentity) -> NoiseStream<Socket> {
    let mut socket = listener.accept().await.unwrap().socket;
    let _network = socket.read_u8().await.unwrap();
    let entropy = Arc::new(SeededEntropy::new(78));
    let (channel, _) = noise::respond(socket, identity.secret_key(), entropy)
        .await
        .unwrap();
    exchange(channel, identity).await
}

async fn exchange(
    mut channel: NoiseStream<Socket>,
    identity: &NodeIdentity,
) -> NoiseStream<Socket> {
    channel.write_all(&honest_frame(identity)).await.unwrap();
    channel.flush().await.unwrap();
    let mut head = [0; 3];
    channel.read_exact(&mut head).await.unwrap();
    let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
    channel.read_exact(&mut vec![0; length]).await.unwrap();
    channel
}

/// Pings, as every yamux does at its start: it has accepted the other's identity.
pub async fn ping(channel: &mut NoiseStream<Socket>) {
    channel.write_all(&yamux(2, SYN, 0, 1)).await.unwrap();
    channel.flush().await.unwrap();
}

/// A yamux header.
pub fn yamux(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut header = vec![0, kind];
    header.extend(flags.to_be_bytes());
    header.extend(stream.to_be_bytes());
    header.extend(length.to_be_bytes());
    header
}

/// A yamux data frame.
pub fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = yamux(0, flags, stream, u32::try_from(body.len()).unwrap());
    frame.extend_from_slice(body);
    frame
}

pub const SYN: u16 = 1;
pub const ACK: u16 = 2;
pub const FIN: u16 = 4;

/// The next data frame: its flags, stream and body.
pub async fn next_data(channel: &mut NoiseStream<Socket>) -> (u16, u32, Vec<u8>) {
    loop {
        let mut header = [0; 12];
        channel.read_exact(&mut header).await.unwrap();
        let [_, kind, a, b, c, d, e, f, g, h, i, j] = header;
        if kind == 0 {
            let mut body = vec![0; usize::try_from(u32::from_be_bytes([g, h, i, j])).unwrap()];
            channel.read_exact(&mut body).await.unwrap();
            let flags = u16::from_be_bytes([a, b]);
            return (flags, u32::from_be_bytes([c, d, e, f]), body);
        }
    }
}

/// Opens messaging optimistically and announces or sends what follows.
pub fn messaging(stream: u32, payload: &[u8]) -> Vec<u8> {
    data(SYN, stream, &[b"\x09\x03t/msg/0.1", payload].concat())
}
