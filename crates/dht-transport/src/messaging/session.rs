//! Sending: one task for each peer that has, or had a moment ago, messages waiting.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dht_core::{DeliveryError, DialFailure, NodeId, Priority};
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    MESSAGING_PROTOCOL,
    delivery::Reply,
    pace::{Pace, PaceBucket},
    pump::Pump,
    queue::{Limits, PeerQueue, SharedBytes},
};
use crate::{
    connection::{Connection, DialCause, Requester},
    error::EnqueueError,
    limits::MAX_OUTBOXES,
    mux::Substream,
};

/// Attempts at dialling and opening a stream before the waiting messages fail (02 section 7).
const ATTEMPTS: u8 = 2;

/// Connections that may close under an attempt without counting as one: more than simultaneous dials can
/// cause, few enough for a peer that closes every connection at once.
const MAX_LOST_CONNECTIONS: u8 = 8;

/// Time for a connection that may have broken to be found broken, and for a peer to see the end of a stream.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(250);

/// The queues of all peers.
#[derive(Debug)]
pub(crate) struct PeerQueues {
    peers: Mutex<Peers>,
    limits: Limits,
    shared: SharedBytes,
}

#[derive(Debug, Default)]
struct Peers {
    queues: BTreeMap<NodeId, Arc<PeerQueue>>,
    /// When the buckets of peers without a queue will be full; at most [`MAX_OUTBOXES`], without those that were full first.
    paced: BTreeMap<NodeId, Instant>,
}

/// Action that [`PeerQueues::push`] asks of its caller.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// A task serves this peer already.
    Running,
    /// Run a [`PeerSession`] with this queue.
    Start(Arc<PeerQueue>),
}

/// How a session gets its connection.
pub(crate) trait Connect: Send + Sync {
    /// The peer's live connection, dialled if there is none.
    fn connect(
        &self,
        peer: &NodeId,
        requester: Requester,
    ) -> impl Future<Output = Result<Arc<Connection>, DeliveryError>> + Send;
}

/// Sends the messages of one peer until there are none left and the stream is gone.
#[derive(Debug)]
pub(crate) struct PeerSession<C> {
    pub(crate) peer: NodeId,
    pub(crate) queue: Arc<PeerQueue>,
    pub(crate) queues: Arc<PeerQueues>,
    pub(crate) connect: C,
    pub(crate) write_timeout: Duration,
}

// === impl Peers ===

impl Peers {
    fn start(&mut self, peer: &NodeId) -> Arc<PeerQueue> {
        let bucket = PaceBucket::new(self.paced.remove(peer));
        let queue = Arc::new(PeerQueue::new(bucket));
        self.queues.insert(*peer, Arc::clone(&queue));
        queue
    }

    fn end(&mut self, peer: &NodeId) {
        let now = Instant::now();
        let queue = self.queues.remove(peer);
        if let Some(full_at) = queue.and_then(|queue| queue.bucket.full_at(now)) {
            if self.paced.len() >= MAX_OUTBOXES {
                self.paced.retain(|_, full_at| *full_at > now);
            }
            if self.paced.len() >= MAX_OUTBOXES
                && let Some((first, _)) = self.paced.iter().min_by_key(|(_, at)| **at)
            {
                let first = *first;
                self.paced.remove(&first);
            }
            self.paced.insert(*peer, full_at);
        }
    }
}

// === impl PeerQueues ===

impl PeerQueues {
    pub(crate) fn new(limits: Limits, shared: SharedBytes) -> Self {
        Self {
            peers: Mutex::default(),
            limits,
            shared,
        }
    }

    pub(crate) fn push(
        &self,
        peer: &NodeId,
        frame: Bytes,
        priority: Priority,
        requester: Requester,
        reply: Reply,
    ) -> Result<Pushed, EnqueueError> {
        let now = Instant::now();
        // Correctness: held until the message is queued, so that `finish` cannot take the queue away from
        // under it.
        let mut peers = self.peers.lock();
        if let Some(queue) = peers.queues.get(peer) {
            queue
                .messages
                .lock()
                .push(frame, priority, reply, now, &self.limits, &self.shared)?;
            queue.add_requester(requester);
            queue.waker.wake();
            return Ok(Pushed::Running);
        }
        if peers.queues.len() >= MAX_OUTBOXES {
            return Err(EnqueueError::QueueFull);
        }
        let queue = peers.start(peer);
        let pushed =
            (queue.messages.lock()).push(frame, priority, reply, now, &self.limits, &self.shared);
        if let Err(error) = pushed {
            peers.end(peer);
            return Err(error);
        }
        queue.add_requester(requester);
        Ok(Pushed::Start(queue))
    }

    /// The most important cause of what is, or was a moment ago, queued for a peer.
    pub(crate) fn cause(&self, peer: &NodeId) -> Option<DialCause> {
        let peers = self.peers.lock();
        peers.queues.get(peer).map(|queue| queue.requester().cause)
    }

    /// Whether messages wait because their peer bans fast senders.
    pub(crate) fn is_paced(&self, peer: &NodeId) -> bool {
        let peers = self.peers.lock();
        peers.queues.get(peer).is_some_and(|queue| {
            let must_wait = queue.bucket.next_at(Instant::now()).is_some();
            must_wait && !queue.messages.lock().is_empty()
        })
    }

    /// Bytes waiting for all peers.
    pub(crate) fn bytes(&self) -> usize {
        self.shared.held()
    }

    /// Peers with a queue.
    pub(crate) fn len(&self) -> usize {
        self.peers.lock().queues.len()
    }

    /// Waits until no message is queued or being written.
    pub(crate) async fn until_idle(&self) {
        loop {
            // Each message holds its bytes until it is resolved, so the last one to go ends this.
            let emptied = self.shared.emptied();
            if self.is_idle() {
                return;
            }
            emptied.await;
        }
    }

    fn is_idle(&self) -> bool {
        let peers = self.peers.lock();
        let mut queues = peers.queues.values();
        queues.all(|queue| queue.messages.lock().is_empty()) && self.shared.held() == 0
    }

    /// Fails everything that waits.
    pub(crate) fn fail_all(&self, error: DeliveryError) {
        for queue in self.peers.lock().queues.values() {
            queue.messages.lock().fail_all(error);
        }
    }

    /// Ends the queue of a peer if it is empty; after that a new message starts a new session.
    fn finish(&self, peer: &NodeId, queue: &PeerQueue) -> bool {
        let mut peers = self.peers.lock();
        let empty = queue.messages.lock().is_empty();
        if empty {
            peers.end(peer);
        }
        empty
    }
}

// === impl PeerSession ===

/// Removes the queue from the table when the task ends, however it ends, and fails the messages left in it.
struct Registration<'a> {
    queues: &'a PeerQueues,
    queue: &'a PeerQueue,
    peer: NodeId,
    finished: bool,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let mut peers = self.queues.peers.lock();
            self.queue.messages.lock().fail_all(DeliveryError::Dropped);
            peers.end(&self.peer);
        }
    }
}

impl<C: Connect> PeerSession<C> {
    /// Runs until the queue is empty and no stream is open.
    pub(crate) async fn run(self) {
        let mut registration = Registration {
            queues: &self.queues,
            queue: &self.queue,
            peer: self.peer,
            finished: false,
        };
        loop {
            match self.open().await {
                Ok((connection, stream)) => {
                    self.send(&connection, stream).await;
                    if connection.is_retired() {
                        // Correctness: the reference throws away a messaging stream, and what it took of it, while it
                        // serves that of the connection before. Let it see the end of that first.
                        let _still_there = timeout(SETTLE_TIMEOUT, connection.closed()).await;
                    }
                }
                Err(error) => self.queue.messages.lock().fail_all(error),
            }
            if self.queues.finish(&self.peer, &self.queue) {
                registration.finished = true;
                return;
            }
        }
    }

    /// Connects and opens the stream, twice if need be. Messages that grow too old meanwhile fail.
    async fn open(&self) -> Result<(Arc<Connection>, Substream), DeliveryError> {
        let lifetime = self.queues.limits.lifetime;
        let mut attempts = pin!(self.attempt());
        loop {
            let oldest = self.queue.messages.lock().oldest();
            let Some(oldest) = oldest else {
                // Everything expired while we dialled; a new message starts over.
                return Err(DeliveryError::DialFailed(DialFailure::Cancelled));
            };
            let expiry = oldest + lifetime + Duration::from_millis(1);
            tokio::select! {
                biased;
                result = &mut attempts => return result,
                () = sleep_until(expiry) => {
                    self.queue.messages.lock().expire(Instant::now(), lifetime);
                }
            }
        }
    }

    async fn attempt(&self) -> Result<(Arc<Connection>, Substream), DeliveryError> {
        let mut error = DeliveryError::DialFailed(DialFailure::Cancelled);
        let mut lost_connections = 0;
        let mut attempts = 0;
        while attempts < self.most_attempts() {
            let requester = self.queue.requester();
            let connection = match self.connect.connect(&self.peer, requester).await {
                Ok(connection) => connection,
                Err(failure) => {
                    error = failure;
                    attempts += 1;
                    continue;
                }
            };
            match connection.open_followed(&MESSAGING_PROTOCOL).await {
                Ok(stream) => return Ok((connection, stream)),
                Err(_) if connection.is_heard() => error = DeliveryError::OpenFailed,
                Err(_) => error = DeliveryError::Refused,
            }
            // A broken connection is known to be one a moment later; the next attempt must not find it again.
            let settled = async {
                tokio::select! {
                    biased;
                    () = connection.closed() => {}
                    () = connection.until_retired() => {}
                }
            };
            let _still_open = timeout(SETTLE_TIMEOUT, settled).await;
            // A connection that lost the tie-break against the peer's own dial says nothing about the peer:
            // the winner takes its place.
            let lost = connection.is_retired() || !connection.is_open();
            if lost && lost_connections < MAX_LOST_CONNECTIONS {
                lost_connections += 1;
            } else {
                attempts += 1;
            }
        }
        Err(error)
    }

    /// A dial that a peer causes is tried once.
    fn most_attempts(&self) -> u8 {
        match self.queue.requester().cause {
            DialCause::Peer => 1,
            _ => ATTEMPTS,
        }
    }

    /// Sends on one stream until it ends; what was not surely sent goes back into the queue.
    async fn send(&self, connection: &Connection, stream: Substream) {
        let lifetime = self.queues.limits.lifetime;
        let pace = Pace::of(&connection.info().user_agent, &self.queue.bucket);
        let mut pump = Pump::new(&self.queue, stream, lifetime, self.write_timeout, pace);
        let mut retired = pin!(connection.until_retired().fuse());
        poll_fn(|cx| {
            if retired.as_mut().poll(cx).is_ready() {
                pump.retire();
            }
            pump.poll(cx)
        })
        .await;
        pump.finish(connection).await;
    }
}
