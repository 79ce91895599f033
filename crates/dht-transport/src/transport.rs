//! The front: the handle of a running transport.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, Deliverer, DeliveryError, NodeId, Priority, PublicKey, SourceGroup};
use dht_proto::limits::MAX_MESSAGING_FRAME_BYTES;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::Config,
    connection::{
        Connection, DialCause, Requester, admission::Bounds, listener, targets::Candidate,
    },
    error::{DialError, EnqueueError, StreamError},
    messaging::{Connect, PeerSession, Pushed, Queued, Reply},
    mux::Substream,
    state::State,
};

/// Totals and present numbers of a transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Bytes read from sockets, encryption and framing included.
    pub wire_received_bytes: u64,
    /// Bytes written to sockets, encryption and framing included.
    pub wire_sent_bytes: u64,
    /// Number of connections now.
    pub connections: usize,
    /// Number of inbound handshakes now.
    pub handshakes: usize,
    /// Number of dials now.
    pub dials: usize,
    /// Inbound connections since the start.
    pub inbound: u64,
    /// Outbound connections since the start.
    pub outbound: u64,
    /// Failed inbound upgrades since the start.
    pub inbound_failed: u64,
    /// Failed dials since the start.
    pub dials_failed: u64,
    /// Sockets closed because of a limit since the start.
    pub refused: u64,
    /// Connections closed for others since the start.
    pub evicted: u64,
    /// Bytes of messages waiting to be sent.
    pub queued_bytes: usize,
    /// Bytes set aside for unread bytes of peers, beyond what is free for each connection.
    pub unread_bytes: usize,
    /// Peers with messages waiting or a messaging stream open.
    pub queues: usize,
    /// Number of tasks alive.
    pub tasks: usize,
    /// Tasks that panicked since the start. Each ended one connection, dial or handshake at most.
    pub panics: u64,
}

/// Connections to other nodes, and the messages on them. Clones share one transport; dropping the last stops
/// it at once.
#[derive(Clone)]
pub struct Transport {
    state: Arc<State>,
    listening: Arc<Mutex<Vec<Address>>>,
    _stop: Arc<StopOnDrop>,
}

/// Tasks hold [`State`], never this.
struct StopOnDrop(Arc<State>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopping.cancel();
        self.0.halted.cancel();
        self.0.tasks.abort();
    }
}

/// Connects peer sessions to peers of the directory.
struct DirectoryConnector(Arc<State>);

impl Connect for DirectoryConnector {
    async fn connect(
        &self,
        peer: &NodeId,
        requester: Requester,
    ) -> Result<Arc<Connection>, DeliveryError> {
        let dialled = self.0.dial_known(peer, requester).await;
        dialled.map_err(|error| DeliveryError::DialFailed(error.failure()))
    }
}

type Session = PeerSession<DirectoryConnector>;

// === impl Transport ===

impl Transport {
    pub(crate) fn new(state: State) -> Self {
        let state = Arc::new(state);
        Self {
            _stop: Arc::new(StopOnDrop(Arc::clone(&state))),
            state,
            listening: Arc::default(),
        }
    }

    /// Listens on an address and returns it with the real port.
    ///
    /// # Errors
    /// Of the medium; [`io::ErrorKind::Unsupported`] if none serves the address.
    pub async fn listen(&self, address: &Address) -> io::Result<Address> {
        self.listen_with(address, None).await
    }

    /// As [`listen`](Self::listen), for a listener that others connect to through one service, as an onion service: whoever
    /// comes counts for this group, wherever the socket comes from. The limits of connections and handshakes still go by the
    /// address of the socket.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub async fn listen_as(&self, address: &Address, group: SourceGroup) -> io::Result<Address> {
        self.listen_with(address, Some(group)).await
    }

    async fn listen_with(
        &self,
        address: &Address,
        group: Option<SourceGroup>,
    ) -> io::Result<Address> {
        let local = listener::listen(&self.state, address, group).await?;
        self.listening.lock().push(local.clone());
        Ok(local)
    }

    /// Addresses that the transport listens on.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<Address> {
        self.listening.lock().clone()
    }

    /// A connection to the holder of `key`, for the [operator](DialCause::Operator): the live one, or a new one over the
    /// first address that works. A dial already under way is joined.
    ///
    /// # Errors
    /// [`DialError`].
    ///
    /// # Cancel safety
    /// The dial goes on when the future is dropped.
    pub async fn dial(
        &self,
        key: &PublicKey,
        addresses: &[Address],
    ) -> Result<Arc<Connection>, DialError> {
        if self.state.stopping.is_cancelled() {
            return Err(DialError::Cancelled);
        }
        let candidates = addresses.iter().map(|address| Candidate {
            address: address.clone(),
            is_untrusted_target: false,
        });
        let candidates = candidates.collect();
        (self.state)
            .dial(key, candidates, DialCause::Operator.into())
            .await
    }

    /// As [`dial`](Self::dial), for the [application](DialCause::Application), with the key and the addresses that the
    /// directory knows, best address first.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_known(&self, peer: &NodeId) -> Result<Arc<Connection>, DialError> {
        self.dial_for(peer, DialCause::Application).await
    }

    /// As [`dial_known`](Self::dial_known), for any cause.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_for(
        &self,
        peer: &NodeId,
        cause: DialCause,
    ) -> Result<Arc<Connection>, DialError> {
        if self.state.stopping.is_cancelled() {
            return Err(DialError::Cancelled);
        }
        self.state.dial_known(peer, cause.into()).await
    }

    /// As [`dial`](Self::dial), for somebody who [announced itself on a local network](DialCause::Lan): with few dials and connections
    /// of their own, none of which another cause may use, and few to one network. A dial that another cause begins meanwhile does
    /// not fail with this one.
    ///
    /// # Security
    /// Private addresses are dialled. The caller has made sure that this one is on a link of this machine.
    ///
    /// # Errors
    /// [`DialError`].
    ///
    /// # Cancel safety
    /// The dial goes on when the future is dropped.
    pub async fn dial_on_link(
        &self,
        key: &PublicKey,
        address: &Address,
    ) -> Result<Arc<Connection>, DialError> {
        if self.state.stopping.is_cancelled() {
            return Err(DialError::Cancelled);
        }
        let candidate = Candidate {
            address: address.clone(),
            is_untrusted_target: true,
        };
        (self.state)
            .dial(key, vec![candidate], DialCause::Lan.into())
            .await
    }

    /// Gives up a dial under way; callers that wait for it get [`DialError::Cancelled`].
    pub fn cancel_dial(&self, peer: &NodeId) {
        self.state.dials.cancel(peer);
    }

    /// Queues a message of the application for a peer; it is dialled as by [`dial_known`](Self::dial_known) if it is not connected.
    ///
    /// Returns at once. The [`Queued`] resolves when the socket took the message.
    ///
    /// # Errors
    /// [`EnqueueError`]: too long, no room, or no transport any more.
    pub fn send(
        &self,
        peer: &NodeId,
        frame: Bytes,
        priority: Priority,
    ) -> Result<Queued, EnqueueError> {
        let (reply, delivery) = Queued::new();
        self.queue(peer, frame, priority, DialCause::Application.into(), reply)?;
        Ok(delivery)
    }

    /// As [`Transport::send`], for any cause, and of [`DialCause::Peer`] for the peer that delivered what is answered or passed on;
    /// but calls `report` with what a [`Queued`] would resolve to, also when this fails
    /// ([`DeliveryError::Dropped`]).
    ///
    /// `report` is called by the task that writes, with the peer's queue locked: it must be short and must not
    /// call the transport.
    ///
    /// # Errors
    /// [`EnqueueError`]: too long, no room, or no transport any more.
    pub fn send_reporting(
        &self,
        peer: &NodeId,
        frame: Bytes,
        priority: Priority,
        cause: DialCause,
        deliverer: Option<Deliverer>,
        report: impl FnOnce(Result<(), DeliveryError>) + Send + 'static,
    ) -> Result<(), EnqueueError> {
        let requester = Requester { cause, deliverer };
        self.queue(peer, frame, priority, requester, Reply::new(report))
    }

    fn queue(
        &self,
        peer: &NodeId,
        frame: Bytes,
        priority: Priority,
        requester: Requester,
        reply: Reply,
    ) -> Result<(), EnqueueError> {
        if frame.len() > MAX_MESSAGING_FRAME_BYTES {
            return Err(EnqueueError::TooLong(frame.len()));
        }
        if peer == self.state.upgrade.identity.node_id() {
            return Err(EnqueueError::OwnNodeId);
        }
        if self.state.stopping.is_cancelled() {
            return Err(EnqueueError::ShutDown);
        }
        if let Pushed::Start(queue) =
            (self.state.queues).push(peer, frame, priority, requester, reply)?
        {
            let session = Session {
                peer: *peer,
                queue,
                queues: Arc::clone(&self.state.queues),
                connect: DirectoryConnector(Arc::clone(&self.state)),
                write_timeout: self.state.config.write_timeout,
            };
            self.state.tasks.spawn(session.run());
        }
        Ok(())
    }

    /// Opens a stream of `protocol` to a connected peer.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open(&self, peer: &NodeId, protocol: &Bytes) -> Result<Substream, StreamError> {
        let connection = self
            .state
            .table
            .find(peer)
            .ok_or(StreamError::NotConnected)?;
        connection.open(protocol).await
    }

    /// The live connection of a peer.
    #[must_use]
    pub fn connection(&self, peer: &NodeId) -> Option<Arc<Connection>> {
        self.state.table.find(peer)
    }

    /// Whether messages wait for a peer because it bans fast senders: it reads, and they are written as fast as it allows.
    #[must_use]
    pub fn is_paced(&self, peer: &NodeId) -> bool {
        self.state.queues.is_paced(peer)
    }

    /// Every live connection, by node id.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.state.table.all()
    }

    /// Says that a peer sent a message which this node could use: its connection is less likely to be closed for another.
    pub fn note_useful(&self, peer: &NodeId) {
        if let Some(connection) = self.state.table.find(peer) {
            connection.note_useful();
        }
    }

    /// Closes the connection of a peer on purpose; false if there is none.
    pub fn disconnect(&self, peer: &NodeId) -> bool {
        self.state.table.close(peer)
    }

    /// Totals and present numbers.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        let state = &self.state;
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransportStats {
            wire_received_bytes: total(&state.wire.received),
            wire_sent_bytes: total(&state.wire.sent),
            connections: state.table.len(),
            handshakes: state.admission.handshakes(),
            dials: state.dials.count(),
            inbound: total(&state.counters.inbound),
            outbound: total(&state.counters.outbound),
            inbound_failed: total(&state.counters.inbound_failed),
            dials_failed: total(&state.counters.dials_failed),
            refused: total(&state.counters.refused),
            evicted: total(&state.counters.evicted),
            queued_bytes: state.queues.bytes(),
            unread_bytes: state.unread.total() - state.unread.available(),
            queues: state.queues.len(),
            tasks: state.tasks.count(),
            panics: state.tasks.panics().count(),
        }
    }

    /// Takes over the limits of handshakes and connections, in all and for one source. They apply to sockets that come
    /// from now on; no connection is closed.
    pub fn set_connection_limits(&self, config: &Config) {
        self.state.admission.set_bounds(Bounds::of(config));
    }

    /// Stops in order: no new sockets, dials and messages; queued messages are sent; connections close
    /// politely. Connections that are left after `limit` are cut off.
    pub async fn shutdown(&self, limit: Duration) {
        let start = Instant::now();
        self.state.stopping.cancel();
        // Half the time for messages, half for goodbyes.
        let _cut_off = timeout_at(start + limit / 2, self.state.queues.until_idle()).await;
        self.state.halted.cancel();
        self.state.queues.fail_all(DeliveryError::Dropped);
        self.state.table.close_all();
        self.state
            .tasks
            .join(limit.saturating_sub(start.elapsed()))
            .await;
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("node_id", self.state.upgrade.identity.node_id())
            .field("listening", &*self.listening.lock())
            .finish_non_exhaustive()
    }
}
