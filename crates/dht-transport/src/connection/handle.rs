//! A live connection to one peer.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, NodeId, RemotePeer};
use dht_peers::Direction;
use dht_stack::Watch;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{cause::DialCause, eviction::Candidate, identity::PeerInfo};
use crate::{
    error::StreamError,
    limits::{DRAIN_TIMEOUT, PROBE_TIMEOUT},
    mux::{LiveStreams, OpenRequest, SendMeter, Substream},
    negotiate,
};

/// Protocol that no node speaks: proposing it makes every peer answer, and starts nothing.
const PROBE: Bytes = Bytes::from_static(b"ping");

/// A connection with an authenticated, identified peer. Holding one does not keep it open.
pub struct Connection {
    id: u64,
    peer: Arc<RemotePeer>,
    info: PeerInfo,
    origin: Origin,
    address: Address,
    since: Instant,
    round_trip: Duration,
    /// Rank of its source group; see [`Candidate`].
    rank: u64,
    /// Milliseconds from `since` to the last useful message, and one more; 0 before the first.
    useful: AtomicU64,
    evicted: AtomicBool,
    /// Whether it is for one answer to the peer, and closed after it.
    passing: AtomicBool,
    requests: mpsc::Sender<OpenRequest>,
    live: Arc<LiveStreams>,
    meter: Arc<SendMeter>,
    closing: CancellationToken,
    minimized: AtomicBool,
    retired: Watch<bool>,
    ended: CancellationToken,
}

/// Parts of a new [`Connection`].
pub(crate) struct Parts {
    pub(crate) id: u64,
    pub(crate) peer: Arc<RemotePeer>,
    pub(crate) info: PeerInfo,
    pub(crate) origin: Origin,
    pub(crate) address: Address,
    pub(crate) round_trip: Duration,
    pub(crate) rank: u64,
    pub(crate) requests: mpsc::Sender<OpenRequest>,
    pub(crate) live: Arc<LiveStreams>,
    pub(crate) meter: Arc<SendMeter>,
}

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer dialled.
    Accepted,
    /// This node dialled.
    Dialled(DialCause),
}

impl Origin {
    pub(crate) const fn direction(self) -> Direction {
        match self {
            Self::Accepted => Direction::Inbound,
            Self::Dialled(_) => Direction::Outbound,
        }
    }
}

impl Connection {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            id,
            peer,
            info,
            origin,
            address,
            round_trip,
            rank,
            requests,
            live,
            meter,
        } = parts;
        Self {
            id,
            peer,
            info,
            origin,
            address,
            since: Instant::now(),
            round_trip,
            rank,
            useful: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            passing: AtomicBool::new(origin == Origin::Dialled(DialCause::Peer)),
            requests,
            live,
            meter,
            closing: CancellationToken::new(),
            minimized: AtomicBool::new(false),
            retired: Watch::new(false),
            ended: CancellationToken::new(),
        }
    }

    /// Counts up over all connections of this process' transport.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Peer at the other end, authenticated.
    #[must_use]
    pub const fn peer(&self) -> &Arc<RemotePeer> {
        &self.peer
    }

    /// The node id at the other end.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.peer.node_id
    }

    /// Identity that the peer presented.
    #[must_use]
    pub const fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Side that dialled.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.origin.direction()
    }

    /// Whether the peer dialled, or had this node dial it, by a message or by an announcement on a local network.
    pub(crate) const fn is_of_stranger(&self) -> bool {
        matches!(
            self.origin,
            Origin::Accepted | Origin::Dialled(DialCause::Peer | DialCause::Lan)
        )
    }

    /// The peer has sent a message that this node could use.
    pub(crate) fn note_useful(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.useful.store(at.saturating_add(1), Ordering::Relaxed);
    }

    /// As one of those that may be closed for another connection.
    pub(crate) fn candidate(self: Arc<Self>) -> Candidate<Arc<Self>> {
        let useful = self.useful.load(Ordering::Relaxed).checked_sub(1);
        Candidate {
            peer: self.peer.node_id,
            group: self.peer.source,
            rank: self.rank,
            since: self.since,
            round_trip: self.round_trip,
            useful: useful.map(|at| self.since + Duration::from_millis(at)),
            connection: self,
        }
    }

    /// Closes for another connection, at once.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.close(true);
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The connection is of use for more than one answer.
    pub(crate) fn keep(&self) {
        self.passing.store(false, Ordering::Relaxed);
    }

    /// Whether the connection is for one answer to the peer, as far as is known by now.
    pub(crate) fn is_passing(&self) -> bool {
        self.passing.load(Ordering::Relaxed)
    }

    /// The address dialled, or where an inbound connection came from.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Time since the upgrade.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Streams open in both directions.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.live.count()
    }

    /// False once the connection is closing or gone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.closing.is_cancelled() && !self.ended.is_cancelled()
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) {
        self.ended.cancelled().await;
    }

    /// Opens a stream and agrees on its protocol: without waiting if the peer's identity named it.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open(&self, protocol: &Bytes) -> Result<Substream, StreamError> {
        let opened = async {
            let mut stream = self.open_raw().await?;
            self.agree(&mut stream, protocol).await?;
            Ok(stream)
        };
        opened.await.map_err(|error| self.explain(error))
    }

    /// As [`open`](Self::open), with the stream's bytes followed to the socket. One stream a connection.
    pub(crate) async fn open_followed(&self, protocol: &Bytes) -> Result<Substream, StreamError> {
        let mut stream = self.open_raw().await?;
        stream.follow(Arc::clone(&self.meter));
        self.agree(&mut stream, protocol).await?;
        Ok(stream)
    }

    /// Measures how long the peer takes to answer on a new stream, its own delay included.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn round_trip(&self) -> Result<Duration, StreamError> {
        let mut stream = self.open_raw().await.map_err(|error| self.explain(error))?;
        let start = Instant::now();
        match negotiate::propose(&mut stream, &PROBE, false).await {
            // The answer of a peer that does not speak it, or of one that does.
            Err(StreamError::NotSupported) | Ok(()) => Ok(start.elapsed()),
            Err(error) => Err(self.explain(error)),
        }
    }

    fn explain(&self, error: StreamError) -> StreamError {
        match error {
            StreamError::Closed | StreamError::Io(_) if self.was_refused() => StreamError::Refused,
            error => error,
        }
    }

    /// Of a connection that has ended: whether neither this node closed it nor the peer ever used it.
    pub(crate) fn was_refused(&self) -> bool {
        !self.closing.is_cancelled() && !self.is_retired() && !self.is_heard()
    }

    async fn open_raw(&self) -> Result<Substream, StreamError> {
        if !self.is_open() {
            return Err(StreamError::Closed);
        }
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(reply)
            .await
            .map_err(|_| StreamError::Closed)?;
        answer.await.map_err(|_| StreamError::Closed)?
    }

    async fn agree(&self, stream: &mut Substream, protocol: &Bytes) -> Result<(), StreamError> {
        let optimistic = self.info.protocols.contains(protocol);
        negotiate::propose(stream, protocol, optimistic).await
    }

    /// Whether the peer has accepted the identity of this node, as what it sends shows.
    pub(crate) fn is_heard(&self) -> bool {
        self.meter.is_heard()
    }

    /// Closes politely. `minimized`: we have no use for the connection, as against something being wrong.
    pub(crate) fn close(&self, minimized: bool) {
        self.minimized.fetch_or(minimized, Ordering::Relaxed);
        self.closing.cancel();
    }

    pub(crate) fn is_minimized(&self) -> bool {
        self.minimized.load(Ordering::Relaxed)
    }

    /// Pings the peer. Answers whether anything comes from it within [`PROBE_TIMEOUT`] and a round trip, before the connection
    /// ends.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn answers(&self) -> bool {
        tokio::select! {
            biased;
            () = self.closed() => false,
            answer = timeout(PROBE_TIMEOUT + self.round_trip, self.meter.ping()) => answer.is_ok(),
        }
    }

    /// Pings the peer, and waits until something comes from it. What was written meanwhile does not count as sent before
    /// that.
    pub(crate) async fn probe(&self) {
        self.meter.probe().await;
    }

    /// Another connection took over: no new streams of ours, read on for a while, then close.
    pub(crate) fn retire(&self) {
        self.set_retired(true);
    }

    /// The other connection is gone: stay.
    pub(crate) fn reinstate(&self) {
        self.set_retired(false);
    }

    fn set_retired(&self, now: bool) {
        self.retired
            .change(|retired| std::mem::replace(retired, now) != now);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.look(|retired| *retired)
    }

    /// Waits until it [retires](Self::retire).
    pub(crate) async fn until_retired(&self) {
        self.retired.until(|retired| retired.then_some(())).await;
    }

    /// Waits until it has been retired for [`DRAIN_TIMEOUT`].
    pub(crate) async fn until_drained(&self) {
        loop {
            self.until_retired().await;
            let reinstated = self.retired.until(|retired| (!retired).then_some(()));
            if timeout(DRAIN_TIMEOUT, reinstated).await.is_err() {
                return;
            }
        }
    }

    pub(crate) const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) fn set_ended(&self) {
        self.ended.cancel();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("peer", &self.peer.node_id)
            .field("origin", &self.origin)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
