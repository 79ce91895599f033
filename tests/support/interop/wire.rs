//! A peer whose streams are made by hand: it writes any byte above Noise, and shows each that it gets.
//! docs/protocol/02-transport-and-connectivity.md sections 4 and 5.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dht_core::{Network, NodeIdentity, OsEntropy, PeerAddress};
use dht_transport::{
    Medium as _, Socket, Tcp, encode_identity,
    noise::{self, NoiseStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// Time for each answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Kinds of yamux frames.
const DATA: u8 = 0;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;

/// Flags of yamux frames.
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

/// Longest body of a frame.
const MAX_BODY_BYTES: u32 = 1 << 20;

/// A connected peer without streams of its own.
#[derive(Debug)]
pub struct Wire {
    channel: NoiseStream<Socket>,
    /// Id of the next stream that this side opens.
    next: u32,
    streams: BTreeMap<u32, Received>,
}

/// Bytes that came on one stream.
#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Wire {
    /// Dials a node and exchanges identities with it. `protocols` is what this side says it speaks.
    ///
    /// # Errors
    /// That the node does not answer.
    pub async fn connect(
        to: &PeerAddress,
        identity: &NodeIdentity,
        protocols: &[Bytes],
    ) -> anyhow::Result<Self> {
        let frame = encode_identity(0, &identity.claim(), "wire/1", protocols)?;
        Self::introduce(to, identity, &frame).await
    }

    /// As [`connect`](Self::connect), with these bytes for the identity.
    ///
    /// # Errors
    /// That the node does not answer.
    pub async fn introduce(
        to: &PeerAddress,
        identity: &NodeIdentity,
        frame: &[u8],
    ) -> anyhow::Result<Self> {
        let connecting = async {
            let address = to.addresses.first().context("the node has no address")?;
            let socket = Tcp.dial(address).await?;
            let (secret, byte) = (identity.secret_key(), Network::LocalNet.wire_byte());
            let (mut channel, _key) =
                noise::initiate(socket, secret, Arc::new(OsEntropy), byte).await?;
            channel.write_all(frame).await?;
            channel.flush().await?;
            let mut head = [0; 3];
            channel.read_exact(&mut head).await?;
            let [_, low, high] = head;
            let length = u16::from_le_bytes([low, high]);
            channel.read_exact(&mut vec![0; length.into()]).await?;
            anyhow::Ok(channel)
        };
        let channel = timeout(LIMIT, connecting).await.context("no identity")??;
        Ok(Self {
            channel,
            next: 1,
            streams: BTreeMap::new(),
        })
    }

    /// Opens a stream, writes these bytes, waits for an answer of at least so many, closes this side, and returns what the node
    /// writes until it closes its side, or for `patience` does not.
    ///
    /// # Errors
    /// That the node does not answer, or hangs up.
    pub async fn exchange(
        &mut self,
        bytes: &[u8],
        least: usize,
        patience: Duration,
    ) -> anyhow::Result<Vec<u8>> {
        let stream = self.open(bytes).await?;
        self.until(|streams| {
            let got = streams.get(&stream);
            let has = got.map_or(0, |got| got.bytes.len());
            has >= least || got.is_some_and(|got| got.is_closed)
        })
        .await?;
        self.write(DATA, FIN, stream, &[]).await?;
        let closed = self.until(|streams| streams.get(&stream).is_some_and(|got| got.is_closed));
        if let Ok(closed) = timeout(patience, closed).await {
            closed?;
        }
        Ok(self.streams.remove(&stream).unwrap_or_default().bytes)
    }

    /// Opens a stream and writes these bytes.
    ///
    /// # Errors
    /// That the node has hung up.
    pub async fn open(&mut self, bytes: &[u8]) -> anyhow::Result<u32> {
        let stream = self.next;
        self.next += 2;
        self.write(DATA, SYN, stream, bytes).await?;
        Ok(stream)
    }

    /// Waits until the node has opened a stream and written `bytes` bytes on it, or closed it; its id and all that was written.
    ///
    /// # Errors
    /// That it does not, or hangs up.
    pub async fn opened(&mut self, bytes: usize) -> anyhow::Result<(u32, Vec<u8>)> {
        let theirs = |streams: &BTreeMap<u32, Received>| {
            let mut theirs = streams.iter().filter(|(id, _)| **id % 2 == 0);
            let enough = |got: &Received| got.bytes.len() >= bytes || got.is_closed;
            theirs.find(|(_, got)| enough(got)).map(|(id, _)| *id)
        };
        self.until(|streams| theirs(streams).is_some()).await?;
        let id = theirs(&self.streams).context("no stream")?;
        let got = self.streams.get(&id);
        Ok((id, got.map(|got| got.bytes.clone()).unwrap_or_default()))
    }

    /// Answers on a stream of the node, and returns what it writes next, at least this much unless it closes the stream.
    ///
    /// # Errors
    /// That the node hangs up.
    pub async fn answer(
        &mut self,
        stream: u32,
        answer: &[u8],
        bytes: usize,
    ) -> anyhow::Result<Vec<u8>> {
        if let Some(got) = self.streams.get_mut(&stream) {
            got.bytes.clear();
        }
        self.write(DATA, ACK, stream, answer).await?;
        self.until(|streams| {
            let got = streams.get(&stream);
            got.is_none_or(|got| got.bytes.len() >= bytes || got.is_closed)
        })
        .await?;
        Ok(self.streams.remove(&stream).unwrap_or_default().bytes)
    }

    /// Waits until the node hangs up.
    ///
    /// # Errors
    /// That it does not.
    pub async fn hung_up(&mut self) -> anyhow::Result<()> {
        let until_ended = async { while self.read().await.is_ok() {} };
        timeout(LIMIT, until_ended).await.context("still connected")
    }

    /// Reads frames until the streams fulfil a condition.
    async fn until(
        &mut self,
        met: impl Fn(&BTreeMap<u32, Received>) -> bool,
    ) -> anyhow::Result<()> {
        let reading = async {
            while !met(&self.streams) {
                self.read().await?;
            }
            Ok(())
        };
        timeout(LIMIT, reading).await.context("no answer")?
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let mut head = [0; 12];
        self.channel.read_exact(&mut head).await?;
        let [_, kind, f1, f2, s1, s2, s3, s4, l1, l2, l3, l4] = head;
        let flags = u16::from_be_bytes([f1, f2]);
        let stream = u32::from_be_bytes([s1, s2, s3, s4]);
        let value = u32::from_be_bytes([l1, l2, l3, l4]);
        ensure!(kind != GO_AWAY, "the node goes away");
        if kind == PING {
            if flags & SYN != 0 {
                let answer = [0, PING, 0, 2, 0, 0, 0, 0, l1, l2, l3, l4];
                self.channel.write_all(&answer).await?;
                self.channel.flush().await?;
            }
            return Ok(());
        }
        let mut body = Vec::new();
        if kind == DATA {
            ensure!(value <= MAX_BODY_BYTES, "a frame of {value} bytes");
            body.resize(usize::try_from(value)?, 0);
            self.channel.read_exact(&mut body).await?;
        }
        let received = self.streams.entry(stream).or_default();
        received.bytes.append(&mut body);
        received.is_closed |= flags & (FIN | RST) != 0;
        Ok(())
    }

    async fn write(
        &mut self,
        kind: u8,
        flags: u16,
        stream: u32,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let mut frame = vec![0, kind];
        frame.extend(flags.to_be_bytes());
        frame.extend(stream.to_be_bytes());
        frame.extend(u32::try_from(body.len())?.to_be_bytes());
        frame.extend(body);
        self.channel.write_all(&frame).await?;
        self.channel.flush().await?;
        Ok(())
    }
}
