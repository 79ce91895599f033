//! A peer that is a transport and nothing else.

use dht_peers::InboundFrame;
use std::{io, net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Address, Clock as _, Entropy as _, Features, Network, NodeId, NodeIdentity, PeerAddress,
    Priority, SecretKey, SeededEntropy, SharedClock,
};
use dht_node::{OsEntropy, SystemClock};
use dht_stack::ByteBudget;
use dht_transport::{
    Config, DialError, EnqueueError, IdentityError, InboundStream, Medium, Queued, Tcp, Transport,
};
use tokio::{sync::mpsc, task::JoinSet};

/// Messages that wait for the node's socket. Few, so that what is sent is what the node takes.
const QUEUE: usize = 64;

/// A peer connected to one node.
#[derive(Debug)]
pub struct Peer {
    identity: Arc<NodeIdentity>,
    transport: Transport,
    node: NodeId,
    _tasks: JoinSet<()>,
}

/// Why a peer is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Its identity is not one to show.
    #[error("no identity to show: {0}")]
    Identity(#[from] IdentityError),
    /// The node is not reached.
    #[error("the node is not reached: {0}")]
    Dial(#[from] DialError),
    /// The messages to send cannot be made.
    #[error("no messages to send: {0}")]
    Seal(#[from] dht_core::SealError),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Peer {
    /// Peer number `seed`, connected to `node`. Messages for it go to `on_message`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn connect(
        seed: u64,
        node: &PeerAddress,
        on_message: impl FnMut(InboundFrame) + Send + 'static,
    ) -> Result<Self, PeerError> {
        let address = Address::tcp(Ipv4Addr::LOCALHOST.into(), 18_189);
        let network = (Network::LocalNet, Tcp);
        Self::connect_on(network, seed, address, node, on_message).await
    }

    /// As [`connect`](Self::connect), over any medium of a network, with a claim of this address.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn connect_on(
        network: (Network, impl Medium),
        seed: u64,
        address: Address,
        node: &PeerAddress,
        on_message: impl FnMut(InboundFrame) + Send + 'static,
    ) -> Result<Self, PeerError> {
        let mut rng = SeededEntropy::new(seed).rng();
        let (secret, now) = (SecretKey::random(&mut rng), SystemClock.now());
        let identity = NodeIdentity::new(secret, Features::NODE, vec![address], now, &mut rng);
        Self::connect_as(network, identity, None, node, on_message).await
    }

    /// As [`connect_on`](Self::connect_on), with this identity; it offers a protocol whose streams go to `service`, if any.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn connect_as(
        (network, medium): (Network, impl Medium),
        identity: NodeIdentity,
        service: Option<(Bytes, mpsc::Sender<InboundStream>)>,
        node: &PeerAddress,
        mut on_message: impl FnMut(InboundFrame) + Send + 'static,
    ) -> Result<Self, PeerError> {
        let clock: SharedClock = Arc::new(SystemClock);
        let identity = Arc::new(identity);
        let mut config = Config::default();
        config.max_queued_messages = QUEUE;
        let mut builder = Transport::builder(
            Arc::clone(&identity),
            network,
            Arc::new(OsEntropy),
            clock,
            ByteBudget::new(16 << 20),
        )
        .config(config)
        .medium(medium);
        if let Some((protocol, streams)) = service {
            builder = builder.serve(protocol, streams);
        }
        let (transport, mut outlets) = builder.start()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut messages, mut events) = (true, true);
            while messages || events {
                tokio::select! {
                    message = outlets.messages.recv(), if messages => match message {
                        Some(message) => on_message(message),
                        None => messages = false,
                    },
                    event = outlets.events.recv(), if events => events = event.is_some(),
                }
            }
        });
        transport.dial(&node.public_key, &node.addresses).await?;
        Ok(Self {
            identity,
            transport,
            node: node.public_key.node_id(),
            _tasks: tasks,
        })
    }

    /// Identity of this peer.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// Transport of this peer.
    #[must_use]
    pub const fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether the node still keeps the connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.transport.connection(&self.node).is_some()
    }

    /// Queues a frame for the node.
    ///
    /// # Errors
    /// [`EnqueueError::QueueFull`] if the node does not take them as fast.
    pub fn send(&self, frame: Bytes) -> Result<Queued, EnqueueError> {
        self.transport.send(&self.node, frame, Priority::Direct)
    }

    /// Queues a frame for the node, once there is room.
    ///
    /// # Errors
    /// [`EnqueueError`], but never that the queue is full.
    pub async fn send_when_possible(
        &self,
        frame: Bytes,
        waiting: &mut std::collections::VecDeque<Queued>,
    ) -> Result<(), EnqueueError> {
        loop {
            match self.send(frame.clone()) {
                Err(EnqueueError::QueueFull) => match waiting.pop_front() {
                    // Its outcome shows in the next attempt.
                    Some(oldest) => drop(oldest.await),
                    None => return Err(EnqueueError::QueueFull),
                },
                Err(error) => return Err(error),
                Ok(delivery) => {
                    waiting.push_back(delivery);
                    return Ok(());
                }
            }
        }
    }

    /// Says goodbye.
    pub async fn disconnect(&self) {
        self.transport
            .shutdown(std::time::Duration::from_secs(2))
            .await;
    }
}
