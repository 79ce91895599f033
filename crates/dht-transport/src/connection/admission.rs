//! How many sockets, from where: the limits of a listener, and of connections in all.

mod handshakes;
mod sources;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, sync::Arc};

use dht_core::{Address, Host, SourceGroup};
use handshakes::Handshakes;
use ipnet::IpNet;
use parking_lot::Mutex;
use sources::{Source, SourceCounts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cause::DialCause;
use crate::{
    config::Config,
    limits::{
        EVICTION_OVERLAP, MAX_LAN_CONNECTIONS, OPERATOR_RESERVE, OUTBOUND_RESERVE, OVERLAY_SHARE,
        PEER_SHARE,
    },
};

/// Bounds of [`Admission`]; see the fields of [`Config`] of the same names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) handshakes: usize,
    pub(crate) handshakes_per_source: usize,
    pub(crate) connections: usize,
    pub(crate) connections_per_source: usize,
    pub(crate) trusted: Vec<IpNet>,
}

/// Counts sockets and decides who gets in.
pub(crate) struct Admission {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bounds: Bounds,
    handshakes: Handshakes,
    connections: usize,
    /// Those of them that are being dialled.
    dialling: usize,
    /// Connections by the cause of their dial, those that are being dialled included.
    dialled: [usize; DialCause::ALL.len()],
    /// Connections of each source.
    sources: SourceCounts,
}

/// Why a socket is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Connections,
    Cause,
    SourceConnections,
    SourceHandshakes,
    Liveness,
}

/// The right to shake hands, until dropped.
pub(crate) struct HandshakeSlot {
    admission: Arc<Admission>,
    id: u64,
    source: Source,
    /// Fires when the slot is needed for another socket.
    pub(crate) evicted: CancellationToken,
}

/// One connection in the count, until dropped.
pub(crate) struct ConnectionSlot {
    admission: Arc<Admission>,
    source: Source,
    cause: Option<DialCause>,
    is_dialling: bool,
}

// === impl Bounds ===

impl Bounds {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            handshakes: config.max_handshakes.max(1),
            handshakes_per_source: config.max_handshakes_per_source,
            connections: config.max_connections,
            connections_per_source: config.max_connections_per_source,
            trusted: config.trusted_sources.clone(),
        }
    }

    /// Source whose connections and handshakes are counted; `None` for a trusted address.
    fn source(&self, ip: IpAddr) -> Source {
        let ip = ip.to_canonical();
        let is_trusted = self.trusted.iter().any(|range| range.contains(&ip));
        (!is_trusted).then(|| SourceGroup::of_ip(ip))
    }

    /// Group that every other limit goes by, also for a trusted address unless that is private.
    fn group(&self, ip: IpAddr) -> Option<SourceGroup> {
        let of_public = || SourceGroup::of(&Address::tcp(ip.to_canonical(), 0));
        self.source(ip).or_else(of_public)
    }
}

// === impl Refusal ===

impl Refusal {
    /// A short name for metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Cause => "connections_of_cause",
            Self::SourceConnections => "connections_of_source",
            Self::SourceHandshakes => "handshakes_of_source",
            Self::Liveness => "liveness",
        }
    }
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let state = State {
            bounds,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// Judges sockets by these bounds from now on. None that was let in is closed.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.state.lock().bounds = bounds;
    }

    /// Source that a dialled address counts for in the limit of connections.
    pub(crate) fn source_of(&self, address: &Address) -> Source {
        match address.host() {
            Some(Host::Ip(ip, _)) => self.state.lock().bounds.source(ip),
            _ => None,
        }
    }

    /// Group of a peer at this address, for every limit but those of connections and handshakes.
    pub(crate) fn group_of(&self, address: &Address) -> Option<SourceGroup> {
        match address.host() {
            Some(Host::Ip(ip, _)) => self.state.lock().bounds.group(ip),
            _ => SourceGroup::of(address),
        }
    }

    /// Lets a socket from this IP address shake hands.
    ///
    /// When all slots are taken, the oldest handshake of the source that has most of them makes room: a
    /// half-open socket keeps its place only until another socket wants it, while an honest handshake is over
    /// after a few round trips. Of the slots of one source, the address that has most makes room for one that has fewer, with a
    /// handshake that had [`HANDSHAKE_GRACE`](crate::limits::HANDSHAKE_GRACE): the addresses of a source cost its owner nothing.
    ///
    /// When there are as many connections as there may be, `can_make_room` says whether one would be closed for this one, given
    /// that limit. It must not ask [`Admission`], which is locked.
    pub(crate) fn admit(
        self: &Arc<Self>,
        from: IpAddr,
        can_make_room: impl FnOnce(usize) -> bool,
    ) -> Result<HandshakeSlot, Refusal> {
        let mut state = self.state.lock();
        let source = state.bounds.source(from);
        state.check_connections(source, can_make_room)?;
        let most = (state.bounds.handshakes, state.bounds.handshakes_per_source);
        let address = from.to_canonical();
        let begun = state
            .handshakes
            .begin(source, address, Instant::now(), most);
        let (id, evicted) = begun.ok_or(Refusal::SourceHandshakes)?;
        Ok(HandshakeSlot {
            admission: Arc::clone(self),
            id,
            source,
            evicted,
        })
    }

    /// Counts a connection this node dials.
    pub(crate) fn admit_dial(
        self: &Arc<Self>,
        cause: DialCause,
    ) -> Result<ConnectionSlot, Refusal> {
        let mut state = self.state.lock();
        let most = state.bounds.connections;
        let (in_all, of_cause) = match cause {
            DialCause::Operator => (most + OUTBOUND_RESERVE, usize::MAX),
            DialCause::Application => (most + OUTBOUND_RESERVE - OPERATOR_RESERVE, usize::MAX),
            DialCause::Overlay => (most, (most / OVERLAY_SHARE).max(1)),
            DialCause::Peer => (most, (most / PEER_SHARE).max(1)),
            DialCause::Lan => (most, (most / PEER_SHARE).clamp(1, MAX_LAN_CONNECTIONS)),
        };
        if state.connections >= in_all {
            return Err(Refusal::Connections);
        }
        let dialled = cause.of_mut(&mut state.dialled);
        if *dialled >= of_cause {
            return Err(Refusal::Cause);
        }
        *dialled += 1;
        state.connections += 1;
        state.dialling += 1;
        Ok(ConnectionSlot {
            admission: Arc::clone(self),
            source: None,
            cause: Some(cause),
            is_dialling: true,
        })
    }

    /// Connections that there may be.
    pub(crate) fn most_connections(&self) -> usize {
        self.state.lock().bounds.connections
    }

    pub(crate) fn handshakes(&self) -> usize {
        self.state.lock().handshakes.len()
    }
}

// === impl State ===

impl State {
    fn check_connections(
        &self,
        source: Source,
        can_make_room: impl FnOnce(usize) -> bool,
    ) -> Result<(), Refusal> {
        if self.sources.of(source) >= self.bounds.connections_per_source {
            return Err(Refusal::SourceConnections);
        }
        let (held, most) = (self.connections - self.dialling, self.bounds.connections);
        if held < most || held < most + EVICTION_OVERLAP && can_make_room(most) {
            return Ok(());
        }
        Err(Refusal::Connections)
    }
}

// === impl HandshakeSlot ===

impl HandshakeSlot {
    /// Turns the handshake into a connection, if there is still room for one, or could be.
    pub(crate) fn promote(
        self,
        can_make_room: impl FnOnce(usize) -> bool,
    ) -> Result<ConnectionSlot, Refusal> {
        let mut state = self.admission.state.lock();
        state.check_connections(self.source, can_make_room)?;
        state.connections += 1;
        state.sources.add(self.source);
        Ok(ConnectionSlot {
            admission: Arc::clone(&self.admission),
            source: self.source,
            cause: None,
            is_dialling: false,
        })
    }
}

// === impl ConnectionSlot ===

impl ConnectionSlot {
    /// The dial has become a connection.
    pub(crate) fn connected(&mut self) {
        if std::mem::take(&mut self.is_dialling) {
            self.admission.state.lock().dialling -= 1;
        }
    }

    /// Gives its place in the share of the cause of its dial back.
    pub(crate) fn leave_cause(&mut self) {
        if let Some(cause) = self.cause.take() {
            let mut state = self.admission.state.lock();
            let dialled = cause.of_mut(&mut state.dialled);
            *dialled = dialled.saturating_sub(1);
        }
    }

    /// Counts the connection for a source, as if the source had dialled.
    pub(crate) fn count_for(&mut self, source: Source) -> Result<(), Refusal> {
        let mut state = self.admission.state.lock();
        if state.sources.of(source) >= state.bounds.connections_per_source {
            return Err(Refusal::SourceConnections);
        }
        state.sources.add(source);
        drop(state);
        self.source = source;
        Ok(())
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.admission.state.lock().handshakes.end(self.id);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.leave_cause();
        self.connected();
        let mut state = self.admission.state.lock();
        state.connections = state.connections.saturating_sub(1);
        state.sources.remove(self.source);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("bounds", &self.state.lock().bounds)
            .finish_non_exhaustive()
    }
}
