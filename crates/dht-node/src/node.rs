//! The handle of a running node.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::{
    Address, Clock as _, Destination, DomainMessage, Encryption, Entropy as _, Features, NodeId,
    NodeIdentity, Payload, PeerAddress, PublicKey, RemotePeer, SendParams, SendRequest,
    SharedClock, SharedEntropy, Strategy,
};
use dht_dedup::SnapshotFile;
use dht_outbound::{
    Candidates, ConnectError, Connector, Deliveries, DeliveryFailure, Outbound, SearchError,
    Searcher, SelectConfig, Selection, select,
};
use dht_peers::{Connections, Directory, PeerRecord};
use dht_stack::ByteBudget;
use dht_transport::{DialError, Transport};
use rand_core::Rng as _;

use crate::{
    EventStream, Inbox, MAX_PAYLOAD_BYTES, Message, Stats, counters::Counters, discovery::Dialler,
    events::Events, inbox::Subscribers, saf::SafHandle, tasks::Tasks,
};

/// Time a node takes to stop, at most: queued messages go out, connections say goodbye.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A running node. Stops when dropped, in order with [`Node::shutdown`].
pub struct Node {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) transport: Transport,
    pub(crate) outbound: Outbound,
    pub(crate) searcher: Searcher,
    pub(crate) connector: Connector<Dialler>,
    pub(crate) select: SelectConfig,
    pub(crate) entropy: SharedEntropy,
    pub(crate) subscribers: Arc<Subscribers>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: Events,
    pub(crate) budget: ByteBudget,
    pub(crate) clock: SharedClock,
    pub(crate) saf: SafHandle,
    /// What is written to which file when the node stops.
    pub(crate) seen: Option<SnapshotFile>,
    pub(crate) tasks: Tasks,
    /// Set for good by [`Node::shutdown`].
    pub(crate) stopping: AtomicBool,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Over [`MAX_PAYLOAD_BYTES`].
    #[error("the message has {0} bytes, over the limit of {MAX_PAYLOAD_BYTES}")]
    TooLong(usize),
    /// The recipient is not known and was not found, or is banned. [`Node::add_peer`] tells where it is.
    #[error("the recipient is not known and was not found, or is banned")]
    UnknownRecipient,
    /// No node is connected that the message could go to.
    #[error("no connected node to send to")]
    NobodyConnected,
    /// Nothing was sent.
    #[error("message was not sent: {0}")]
    NotSent(#[source] dht_outbound::SendError),
    /// It was queued, but did not reach the peer's socket.
    #[error("message did not reach the peer: {0}")]
    NotDelivered(#[from] DeliveryFailure),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl From<dht_outbound::SendError> for SendError {
    fn from(error: dht_outbound::SendError) -> Self {
        match error {
            dht_outbound::SendError::NobodySelected => Self::NobodyConnected,
            dht_outbound::SendError::Closed => Self::Stopping,
            error => Self::NotSent(error),
        }
    }
}

impl Node {
    /// This node's public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.identity.public_key()
    }

    /// The addresses listened on, with real ports.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<Address> {
        self.transport.listen_addresses()
    }

    /// Key and addresses in one string, to give to others.
    #[must_use]
    pub fn peer_address(&self) -> PeerAddress {
        let addresses = self.identity.claim().addresses.clone();
        PeerAddress {
            public_key: *self.public_key(),
            addresses,
        }
    }

    /// Tells the node where a peer is, without connecting.
    pub fn add_peer(&self, peer: &PeerAddress) {
        let now = self.clock.now();
        let addresses = peer.addresses.iter().cloned();
        self.directory.add_or_update(
            PeerRecord::seed(peer.public_key, Features::NODE, addresses, now),
            now,
        );
    }

    /// Connects to a peer, or does nothing if it is connected.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect(&self, peer: &PeerAddress) -> Result<(), DialError> {
        self.add_peer(peer);
        self.transport
            .dial(&peer.public_key, &peer.addresses)
            .await
            .map(drop)
    }

    /// Sends a message that only `to` can read, over a direct connection, and waits until it is on its way.
    /// The recipient learns who sent it, nobody else does.
    ///
    /// A recipient nobody told this node about is searched for through the connected nodes; finding, connecting and
    /// sending have [`Config::discovery_seconds`](crate::Config::discovery_seconds) together.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, to: &PublicKey, message: Message) -> Result<(), SendError> {
        let params = SendParams::builder()
            .direct_public_key(*to)
            .with_destination(Destination::PublicKey(*to))
            .with_encryption(Encryption::EncryptFor(*to))
            .with_discovery(true)
            .finish();
        let states = self
            .request(params, message)
            .await
            .map_err(|error| match error {
                SendError::NobodyConnected
                | SendError::NotSent(dht_outbound::SendError::NotFound) => {
                    SendError::UnknownRecipient
                }
                other => other,
            })?;
        Ok(states.wait_single_result().await?)
    }

    /// Sends a clear, unsigned message to a few connected nodes.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn broadcast(
        &self,
        message: Message,
        exclude: Vec<NodeId>,
    ) -> Result<Deliveries, SendError> {
        self.request(SendParams::builder().broadcast(exclude).finish(), message)
            .await
    }

    /// Passes a clear, unsigned message towards `destination`, or outwards to everybody if it is unknown. The
    /// same message has the same bytes whoever passes it on, so that each node sees it once.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn propagate(
        &self,
        destination: Destination,
        message: Message,
        exclude: Vec<NodeId>,
    ) -> Result<Deliveries, SendError> {
        let params = SendParams::builder()
            .propagate(destination, exclude)
            .with_destination(destination);
        self.request(params.finish(), message).await
    }

    /// Announces this node to its neighbourhood, so that others find it: the nodes closest to it learn where it is,
    /// and so does everybody in between.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodyConnected`] if no node is connected or known.
    pub async fn join(&self) -> Result<Deliveries, SendError> {
        let nonce = self.entropy.rng().next_u64();
        Ok(self.outbound.join(&self.identity, nonce).await?)
    }

    /// Searches for the holder of `key` through the connected nodes, whether or not it is known. Once found, it is in
    /// the [`directory`](Self::directory).
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        self.searcher.discover(key).await
    }

    /// Connects to the holder of `key`: dials it if it is known, and searches for it if it is not or if none of its
    /// addresses answers.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn dial_or_discover(&self, key: &PublicKey) -> Result<(), ConnectError> {
        self.connector.connect(key).await
    }

    /// To whom a message with this strategy would go now, and why. Strategies that draw at random draw anew each time.
    ///
    /// ```
    /// use dht_core::{Entropy, SecretKey, Strategy};
    /// use dht_node::{Node, OsEntropy};
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listen = "/ip4/127.0.0.1/tcp/0".parse()?;
    /// let alice = Node::builder(SecretKey::random(&mut OsEntropy.rng())).start().await?;
    /// let bob = Node::builder(SecretKey::random(&mut OsEntropy.rng())).listen(listen).start().await?;
    /// alice.connect(&bob.peer_address()).await?;
    ///
    /// # // Known to be connected a moment after the dial.
    /// # while alice.peers().is_empty() { tokio::task::yield_now().await }
    /// let selection = alice.explain(&Strategy::Flood { exclude: vec![] });
    /// let expected = format!("flood: 1 chosen\n  {}: connected node", bob.public_key().node_id());
    /// assert_eq!(selection.explain(), expected);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self, strategy: &Strategy) -> Selection {
        let candidates = Candidates {
            me: self.directory.me(),
            connected: &self.connections.snapshot(),
            directory: &self.directory,
            now: self.clock.now(),
        };
        select(strategy, candidates, &self.select, &mut self.entropy.rng())
    }

    /// Sends with any parameters.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodyConnected`] if the strategy found nobody.
    pub async fn request(
        &self,
        params: SendParams,
        message: Message,
    ) -> Result<Deliveries, SendError> {
        if self.is_stopping() {
            return Err(SendError::Stopping);
        }
        let Message {
            message_type,
            payload,
        } = message;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(SendError::TooLong(payload.len()));
        }
        let payload = Payload::Domain(DomainMessage {
            message_type,
            payload,
        });
        // Sealed on the caller's task, so that many callers use many cores.
        Ok(self
            .outbound
            .send(SendRequest::new(params, payload))
            .await?)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sends any request.
    #[must_use]
    pub const fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Messages received from now on. Every subscriber gets every message; a slow one holds back the peers
    /// that send.
    #[must_use]
    pub fn subscribe(&self) -> Inbox {
        let inbox = self.subscribers.subscribe();
        // Whatever is kept for this node elsewhere can be handed over now.
        self.saf.listen();
        inbox
    }

    /// What happens from now on: messages dropped, with the reason, and bans. At most [`EVENT_CAPACITY`] wait for
    /// one subscriber; a slower one is told how many it [missed](crate::Event::Missed).
    ///
    /// [`EVENT_CAPACITY`]: crate::EVENT_CAPACITY
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.events.subscribe()
    }

    /// The peers connected now.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<RemotePeer>> {
        self.connections
            .snapshot()
            .iter()
            .map(|connected| Arc::clone(&connected.peer))
            .collect()
    }

    /// Everybody this node knows, and whom it has banned.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What the node has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let transport = self.transport.stats();
        let mut stats = Stats {
            connections: transport.connections,
            known_peers: self.directory.len(),
            handshakes: transport.inbound + transport.outbound,
            bytes_received: transport.wire_received_bytes,
            bytes_sent: transport.wire_sent_bytes,
            memory_used_bytes: self.budget.total().saturating_sub(self.budget.available()),
            memory_limit_bytes: self.budget.total(),
            queued_bytes: transport.queued_bytes,
            ..Stats::default()
        };
        self.counters.fill(&mut stats);
        stats
    }

    /// Stops in order, within [`SHUTDOWN_LIMIT`]: no new messages, those queued go out, connections close.
    /// Inboxes end once they are empty.
    pub async fn shutdown(&self) {
        self.stopping.store(true, Ordering::Release);
        self.transport
            .shutdown(SHUTDOWN_LIMIT - Duration::from_millis(500))
            .await;
        self.tasks.stop(Duration::from_millis(500)).await;
        self.saf.close().await;
        if let Some(file) = &self.seen {
            file.save().await;
        }
        // Whoever watched the connections has ended with the tasks.
        self.connections.clear();
        self.subscribers.close();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("node_id", self.identity.node_id())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
