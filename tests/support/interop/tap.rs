//! A peer that is only a transport: it sends any frame, and shows those it gets.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use dht_core::{
    Address, Clock as _, Entropy as _, Features, MessageType, Network, NodeId, NodeIdentity,
    OsEntropy, PeerAddress, Priority, SecretKey, SharedClock, SystemClock,
};
use dht_overlay::sync::{AnnouncedPeers, PEER_SYNC_PROTOCOL, PeerSyncClient, SyncError};
use dht_proto::rpc::RpcRequest;
use dht_stack::ByteBudget;
use dht_transport::{InboundStream, Outlets, Substream, Transport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
    sync::mpsc,
    time::timeout,
};

use super::peer::Peer;
use crate::frames;

/// Time for anything that the other side does.
const LIMIT: Duration = Duration::from_secs(20);

/// Time in which the other side gives up a call that is not answered: a deadline of two minutes, and one minute more for what is on
/// its way.
const STALL_LIMIT: Duration = Duration::from_secs(300);

/// Answer to the start of a session: the length of a frame, and the accepted version.
const ACCEPTED: &[u8] = b"\x00\x00\x00\x02\x08\x00";

/// Longest frame of a session that is read.
const MAX_FRAME_BYTES: u32 = 1 << 20;

/// A connected peer without a node.
#[derive(Debug)]
pub(super) struct Tap {
    runtime: Runtime,
    transport: Transport,
    outlets: Outlets,
    /// Streams of the peer-sync protocol that nodes open, if it says that it speaks it.
    streams: mpsc::Receiver<InboundStream>,
    /// The last one that was opened, until it is served.
    opened: Option<InboundStream>,
    identity: Arc<NodeIdentity>,
}

impl Tap {
    /// Starts a peer with this key, which listens nowhere.
    ///
    /// # Errors
    /// That there is no runtime.
    pub(super) fn start(secret: SecretKey) -> anyhow::Result<Self> {
        Self::start_with(secret, None, false)
    }

    /// As [`start`](Self::start), for a peer that listens on this address, and claims it.
    ///
    /// # Errors
    /// That there is no runtime, or it cannot listen.
    pub(super) fn start_listening(secret: SecretKey, address: Address) -> anyhow::Result<Self> {
        Self::start_with(secret, Some(address), false)
    }

    /// As [`start`](Self::start), for a peer whose answers to questions for peers are [made by hand](Self::tell).
    ///
    /// # Errors
    /// That there is no runtime.
    pub(super) fn start_telling(secret: SecretKey) -> anyhow::Result<Self> {
        Self::start_with(secret, None, true)
    }

    fn start_with(secret: SecretKey, listen: Option<Address>, tells: bool) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let clock: SharedClock = Arc::new(SystemClock);
        let nowhere = || Address::tcp(Ipv4Addr::LOCALHOST.into(), 18_189);
        let claimed = vec![listen.clone().unwrap_or_else(nowhere)];
        let now = clock.now();
        let identity =
            NodeIdentity::new(secret, Features::NODE, claimed, now, &mut OsEntropy.rng());
        let identity = Arc::new(identity);
        let (handler, streams) = mpsc::channel(8);
        let starting = async {
            let mut builder = Transport::builder(
                Arc::clone(&identity),
                Network::LocalNet,
                Arc::new(OsEntropy),
                clock,
                ByteBudget::new(64 << 20),
            );
            if tells {
                builder = builder.serve(PEER_SYNC_PROTOCOL, handler);
            }
            builder.start()
        };
        let (transport, outlets) = runtime.block_on(starting)?;
        if let Some(address) = listen {
            runtime.block_on(transport.listen(&address))?;
        }
        Ok(Self {
            runtime,
            transport,
            outlets,
            streams,
            opened: None,
            identity,
        })
    }

    /// Its identity.
    #[must_use]
    pub(super) fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// Its node id.
    pub(super) fn id(&self) -> NodeId {
        *self.identity.node_id()
    }

    /// Connects to a node.
    ///
    /// # Errors
    /// That it does not.
    pub(super) fn dial(&self, peer: &Peer) -> anyhow::Result<()> {
        let address: PeerAddress = peer.address()?;
        let dial = self.transport.dial(&address.public_key, &address.addresses);
        self.runtime.block_on(dial)?;
        let id = self.identity.node_id().to_string();
        peer.wait_connected_to(&id)
    }

    /// Sends a frame and waits until it is written.
    ///
    /// # Errors
    /// That it is not.
    pub(super) fn send(&self, peer: &Peer, frame: Bytes) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let sent = self.transport.send(&peer.id(), frame, Priority::Direct)?;
            timeout(LIMIT, sent).await??;
            Ok(())
        })
    }

    /// The next frame.
    ///
    /// # Errors
    /// That none comes.
    pub(super) fn frame(&mut self) -> anyhow::Result<Bytes> {
        let next = self.outlets.messages.recv();
        let next = self
            .runtime
            .block_on(async { timeout(LIMIT, next).await })?;
        Ok(next.context("the transport has ended")?.frame)
    }

    /// The next frame that is no request for stored messages: nodes ask whoever connects.
    ///
    /// # Errors
    /// That none comes.
    pub(super) fn next_but_saf(&mut self) -> anyhow::Result<Bytes> {
        loop {
            let frame = self.frame()?;
            if frames::message_type(&frame) != Some(MessageType::SafRequestMessages) {
                return Ok(frame);
            }
        }
    }

    /// Waits until a node asks for peers, writes these bytes for an answer to its request, closes the stream, and waits until the
    /// node has closed it.
    ///
    /// # Errors
    /// That the node does not ask, or does not close the stream.
    pub(super) fn tell(
        &mut self,
        answer: impl FnOnce(&RpcRequest) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<()> {
        self.serve(LIMIT, async |stream| {
            write_answer(stream, answer).await?;
            stream.shutdown().await?;
            read_to_end(stream).await;
            Ok(())
        })
    }

    /// As [`tell`](Self::tell), but writes nothing more and leaves the stream open, until the node gives up.
    ///
    /// # Errors
    /// That the node does not ask, or does not give up.
    pub(super) fn stall(
        &mut self,
        answer: impl FnOnce(&RpcRequest) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<()> {
        self.serve(STALL_LIMIT, async |stream| {
            write_answer(stream, answer).await?;
            read_to_end(stream).await;
            Ok(())
        })
    }

    /// Waits until a node wants to ask for peers, writes these bytes for an answer to the start of its session, and closes the stream,
    /// which version 1 never does after a refusal.
    ///
    /// # Errors
    /// That the node does not ask.
    pub(super) fn answer_session(&mut self, answer: &[u8]) -> anyhow::Result<()> {
        self.serve(LIMIT, async |stream| {
            stream.write_all(answer).await?;
            Ok(stream.shutdown().await?)
        })
    }

    /// Waits until a node asks for peers; whether it does.
    pub(super) fn is_asked(&mut self) -> bool {
        let opened = self.streams.recv();
        let opened = self
            .runtime
            .block_on(async { timeout(LIMIT, opened).await });
        self.opened = opened.ok().flatten();
        self.opened.is_some()
    }

    /// Serves the session that a node starts.
    fn serve(
        &mut self,
        limit: Duration,
        session: impl AsyncFnOnce(&mut Substream) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.opened.is_some() || self.is_asked(),
            "it does not ask for peers"
        );
        let opened = self.opened.take().context("no stream")?;
        self.runtime.block_on(async {
            let mut stream = opened.stream;
            let serving = async {
                let _session = read_frame(&mut stream).await?;
                session(&mut stream).await
            };
            let served = timeout(limit, serving).await;
            served.context("it does not end the session")?
        })
    }

    /// Asks a node for peers, in any number of calls.
    ///
    /// # Errors
    /// That it grants no session, or what the calls say.
    pub(super) fn ask<T>(
        &self,
        peer: &Peer,
        calls: impl AsyncFnOnce(&mut PeerSyncClient<Substream>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut session = self.session(peer)?;
        self.ask_in(&mut session, calls)
    }

    /// Starts a session in which a node can be asked for peers.
    ///
    /// # Errors
    /// That it grants none.
    pub(super) fn session(&self, peer: &Peer) -> anyhow::Result<PeerSyncClient<Substream>> {
        let connection = self
            .transport
            .connection(&peer.id())
            .context("not connected")?;
        self.runtime.block_on(async {
            let starting = async {
                let stream = connection.open(&PEER_SYNC_PROTOCOL).await?;
                anyhow::Ok(PeerSyncClient::connect(stream).await?)
            };
            timeout(LIMIT, starting).await?
        })
    }

    /// Asks for peers in a session, in any number of calls.
    ///
    /// # Errors
    /// That a call fails.
    pub(super) fn ask_in<T>(
        &self,
        session: &mut PeerSyncClient<Substream>,
        calls: impl AsyncFnOnce(&mut PeerSyncClient<Substream>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let asking = async { timeout(LIMIT, calls(session)).await? };
        self.runtime.block_on(asking)
    }
}

/// Grants a session, reads a request, and answers it.
async fn write_answer(
    stream: &mut Substream,
    answer: impl FnOnce(&RpcRequest) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<()> {
    stream.write_all(ACCEPTED).await?;
    stream.flush().await?;
    let request = prost::Message::decode(&*read_frame(stream).await?)?;
    stream.write_all(&answer(&request)?).await?;
    Ok(stream.flush().await?)
}

/// Waits until a node closes its side, or resets the stream.
async fn read_to_end(stream: &mut Substream) {
    let _closed = stream.read_to_end(&mut Vec::new()).await;
}

/// Reads a frame of a session: a length, and so many bytes.
async fn read_frame(stream: &mut Substream) -> anyhow::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    anyhow::ensure!(length <= MAX_FRAME_BYTES, "a frame of {length} bytes");
    let mut frame = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// The keys of all peers that an answer tells of.
///
/// # Errors
/// [`SyncError`].
pub(super) async fn keys(
    mut peers: AnnouncedPeers<'_, Substream>,
) -> Result<Vec<String>, SyncError> {
    let mut keys = Vec::new();
    while let Some(peer) = peers.next().await? {
        keys.push(peer.public_key.to_string());
    }
    keys.sort();
    Ok(keys)
}
