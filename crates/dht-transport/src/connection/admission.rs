//! How many sockets, from where: the limits of a listener, and of connections in all.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use dht_core::{Address, Host, SourceGroup};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::cause::DialCause;
use crate::{
    config::Config,
    limits::{EVICTION_OVERLAP, OPERATOR_RESERVE, OUTBOUND_RESERVE, OVERLAY_SHARE, PEER_SHARE},
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

/// Source of a socket; `None` for one that counts for no source.
type Source = Option<SourceGroup>;

#[derive(Default)]
struct State {
    bounds: Bounds,
    /// In the order of arrival.
    handshakes: BTreeMap<u64, Handshake>,
    next: u64,
    connections: usize,
    /// Those of them that are being dialled.
    dialling: usize,
    /// Connections by the cause of their dial, those that are being dialled included.
    dialled: [usize; DialCause::ALL.len()],
    sources: HashMap<SourceGroup, Counts>,
}

/// A socket that shakes hands.
struct Handshake {
    source: Source,
    address: IpAddr,
    evicted: CancellationToken,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    handshakes: usize,
    connections: usize,
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

    fn source(&self, ip: IpAddr) -> Source {
        let ip = ip.to_canonical();
        let is_trusted = self.trusted.iter().any(|range| range.contains(&ip));
        (!is_trusted).then(|| SourceGroup::of_ip(ip))
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

    /// Source that a dialled address counts for.
    pub(crate) fn source_of(&self, address: &Address) -> Source {
        match address.host() {
            Some(Host::Ip(ip, _)) => self.state.lock().bounds.source(ip),
            _ => None,
        }
    }

    /// Lets a socket from this IP address shake hands.
    ///
    /// When all slots are taken, the oldest handshake of the source that has most of them makes room: a
    /// half-open socket keeps its place only until another socket wants it, while an honest handshake is over
    /// after a few round trips. Of the slots of one source, the address that has most makes room for one that has fewer.
    ///
    /// When there are as many connections as there may be, `can_make_room` says whether one would be closed for this one.
    pub(crate) fn admit(
        self: &Arc<Self>,
        from: IpAddr,
        can_make_room: impl FnOnce() -> bool,
    ) -> Result<HandshakeSlot, Refusal> {
        let mut state = self.state.lock();
        let source = state.bounds.source(from);
        state.check_connections(source, can_make_room)?;
        let address = from.to_canonical();
        if state.counts(source).handshakes >= state.bounds.handshakes_per_source
            && !state.evict_neighbour(source, address)
        {
            return Err(Refusal::SourceHandshakes);
        }
        state.count(source, |counts| counts.handshakes += 1);
        if state.handshakes.len() >= state.bounds.handshakes {
            state.evict();
        }
        let id = state.next;
        state.next += 1;
        let evicted = CancellationToken::new();
        let handshake = Handshake {
            source,
            address,
            evicted: evicted.clone(),
        };
        state.handshakes.insert(id, handshake);
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
        can_make_room: impl FnOnce() -> bool,
    ) -> Result<(), Refusal> {
        if self.counts(source).connections >= self.bounds.connections_per_source {
            return Err(Refusal::SourceConnections);
        }
        let (held, most) = (self.connections - self.dialling, self.bounds.connections);
        if held < most || held < most + EVICTION_OVERLAP && can_make_room() {
            return Ok(());
        }
        Err(Refusal::Connections)
    }

    /// What a source holds; nothing, for a socket that counts for none.
    fn counts(&self, source: Source) -> Counts {
        let counts = source.and_then(|source| self.sources.get(&source));
        counts.copied().unwrap_or_default()
    }

    fn count(&mut self, source: Source, change: impl FnOnce(&mut Counts)) {
        if let Some(source) = source {
            change(self.sources.entry(source).or_default());
        }
    }

    /// Ends the oldest handshake of the source that has most.
    fn evict(&mut self) {
        let mut held = HashMap::<Source, usize>::new();
        for handshake in self.handshakes.values() {
            *held.entry(handshake.source).or_default() += 1;
        }
        let busiest = held.values().max();
        let mut handshakes = self.handshakes.iter();
        let victim = handshakes.find(|(_, handshake)| held.get(&handshake.source) == busiest);
        if let Some(id) = victim.map(|(id, _)| *id) {
            self.evict_handshake(id);
        }
    }

    /// Ends the oldest handshake of the address that has most of those of a source; false if `newcomer` has as many.
    fn evict_neighbour(&mut self, source: Source, newcomer: IpAddr) -> bool {
        let of_source = |handshake: &&Handshake| handshake.source == source;
        let mut held = HashMap::<IpAddr, usize>::new();
        for handshake in self.handshakes.values().filter(of_source) {
            *held.entry(handshake.address).or_default() += 1;
        }
        let own = held.get(&newcomer).copied().unwrap_or_default();
        let Some(most) = held.values().copied().max().filter(|most| *most > own) else {
            return false;
        };
        let mut handshakes = self.handshakes.iter();
        let victim = handshakes.find(|(_, handshake)| {
            of_source(handshake) && held.get(&handshake.address) == Some(&most)
        });
        let victim = victim.map(|(id, _)| *id);
        victim.is_some_and(|id| self.evict_handshake(id))
    }

    fn evict_handshake(&mut self, id: u64) -> bool {
        let Some(handshake) = self.handshakes.remove(&id) else {
            return false;
        };
        handshake.evicted.cancel();
        self.uncount(handshake.source, |counts| &mut counts.handshakes);
        true
    }

    fn uncount(&mut self, source: Source, counter: impl Fn(&mut Counts) -> &mut usize) {
        if let Some(source) = source
            && let Some(counts) = self.sources.get_mut(&source)
        {
            let counter = counter(counts);
            *counter = counter.saturating_sub(1);
            if counts.handshakes == 0 && counts.connections == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

// === impl HandshakeSlot ===

impl HandshakeSlot {
    /// Source that the socket counts for.
    pub(crate) const fn source(&self) -> Option<SourceGroup> {
        self.source
    }

    /// Turns the handshake into a connection, if there is still room for one, or could be.
    pub(crate) fn promote(
        self,
        can_make_room: impl FnOnce() -> bool,
    ) -> Result<ConnectionSlot, Refusal> {
        let mut state = self.admission.state.lock();
        state.check_connections(self.source, can_make_room)?;
        state.connections += 1;
        state.count(self.source, |counts| counts.connections += 1);
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
    /// What was dialled is a connection.
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
        if state.counts(source).connections >= state.bounds.connections_per_source {
            return Err(Refusal::SourceConnections);
        }
        state.count(source, |counts| counts.connections += 1);
        drop(state);
        self.source = source;
        Ok(())
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        // An evicted one is uncounted already.
        if state.handshakes.remove(&self.id).is_some() {
            state.uncount(self.source, |counts| &mut counts.handshakes);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.leave_cause();
        self.connected();
        let mut state = self.admission.state.lock();
        state.connections = state.connections.saturating_sub(1);
        state.uncount(self.source, |counts| &mut counts.connections);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("bounds", &self.state.lock().bounds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::limits::TRUSTED_SOURCES;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn bounds() -> Bounds {
        Bounds {
            handshakes: 3,
            handshakes_per_source: 2,
            connections: 3,
            connections_per_source: 2,
            trusted: TRUSTED_SOURCES.to_vec(),
        }
    }

    fn admit(admission: &Arc<Admission>, from: IpAddr) -> Result<HandshakeSlot, Refusal> {
        admission.admit(from, || false)
    }

    fn promote(slot: HandshakeSlot) -> Result<ConnectionSlot, Refusal> {
        slot.promote(|| false)
    }

    /// The first address of another source.
    fn source(third: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, third, 1).into()
    }

    /// Another key and another address of one /24 or /56 are no other source.
    #[test]
    fn one_network_is_one_source() {
        let of = |ip: &str| bounds().source(ip.parse().unwrap());
        assert_eq!(of("203.0.113.1"), of("203.0.113.200"));
        assert_ne!(of("203.0.113.1"), of("203.0.114.1"));
        assert_eq!(of("203.0.113.1"), of("::ffff:203.0.113.9"));
        assert_eq!(of("2001:db8:1:200::1"), of("2001:db8:1:2ff::1"));
        assert_ne!(of("2001:db8:1:200::1"), of("2001:db8:1:300::1"));
        for trusted in [
            "127.0.0.9",
            "::1",
            "10.1.2.3",
            "::ffff:192.168.0.1",
            "fd00::1",
        ] {
            assert_eq!(of(trusted), None, "{trusted}");
        }
    }

    /// Peers behind a gateway have one address; the operator says so.
    #[test]
    fn trusted_gateway_admits_any_number() {
        let gateway = source(7);
        let mut bounds = Bounds {
            connections: 100,
            handshakes: 100,
            connections_per_source: 32,
            ..bounds()
        };
        let admission = Admission::new(bounds.clone());
        let connect = || admit(&admission, gateway).and_then(promote);
        let mut held: Vec<_> = (0..32).map(|_| connect().unwrap()).collect();
        assert_eq!(connect().err(), Some(Refusal::SourceConnections));
        bounds.trusted = vec!["192.0.7.0/24".parse().unwrap()];
        admission.set_bounds(bounds);
        held.extend((0..32).map(|_| connect().unwrap()));
    }

    /// One source gets no more than its share of handshakes; local addresses are exempt.
    #[test]
    fn source_share_exempts_local_addresses() {
        let admission = Admission::new(bounds());
        let held = [admit(&admission, source(1)), admit(&admission, source(1))];
        assert_eq!(
            admit(&admission, source(1)).err(),
            Some(Refusal::SourceHandshakes)
        );
        assert!(admit(&admission, source(2)).is_ok());
        drop(held);
        let local: Vec<_> = (0..3).map(|_| admit(&admission, LOCAL).unwrap()).collect();
        assert_eq!(local.len(), 3);
    }

    /// Half-open sockets of one address keep out no other address of its network.
    #[test]
    fn neighbour_evicts_the_busiest_address() {
        let admission = Admission::new(bounds());
        let [busy, neighbour] = [[192, 0, 1, 1], [192, 0, 1, 2]].map(IpAddr::from);
        let held = [busy, busy].map(|ip| admit(&admission, ip).unwrap());
        let newcomer = admit(&admission, neighbour).unwrap();
        assert!(held[0].evicted.is_cancelled() && !held[1].evicted.is_cancelled());
        assert_eq!(admission.handshakes(), 2);
        // Each has one now: neither takes that of the other.
        for ip in [busy, neighbour] {
            assert_eq!(admit(&admission, ip).err(), Some(Refusal::SourceHandshakes));
        }
        drop((held, newcomer));
        assert!(admission.state.lock().sources.is_empty());
    }

    #[test]
    fn the_exemption_can_be_turned_off() {
        let admission = Admission::new(Bounds {
            trusted: Vec::new(),
            ..bounds()
        });
        let _held = [admit(&admission, LOCAL), admit(&admission, LOCAL)];
        assert_eq!(
            admit(&admission, LOCAL).err(),
            Some(Refusal::SourceHandshakes)
        );
    }

    #[test]
    fn refused_source_is_not_remembered() {
        let admission = Admission::new(Bounds {
            handshakes_per_source: 0,
            ..bounds()
        });
        assert!(admit(&admission, source(1)).is_err());
        assert!(admission.state.lock().sources.is_empty());
    }

    #[test]
    fn busiest_source_loses_its_oldest_handshake() {
        let admission = Admission::new(bounds());
        let honest = admit(&admission, source(1)).unwrap();
        let older = admit(&admission, source(2)).unwrap();
        let newer = admit(&admission, source(2)).unwrap();
        let another = admit(&admission, source(3)).unwrap();
        assert!(older.evicted.is_cancelled());
        for kept in [&honest, &newer, &another] {
            assert!(!kept.evicted.is_cancelled());
        }
        assert_eq!(admission.handshakes(), 3);
        drop((older, newer, another, honest));
        assert_eq!(admission.handshakes(), 0);
        assert!(
            admission.state.lock().sources.is_empty(),
            "nothing is remembered"
        );
    }

    #[test]
    fn connections_are_bounded_beside_dial_reserve() {
        let admission = Admission::new(bounds());
        let mut held = Vec::new();
        for last in 1..=3 {
            held.push(
                admit(&admission, source(last))
                    .unwrap()
                    .promote(|| false)
                    .ok()
                    .unwrap(),
            );
        }
        assert_eq!(
            admit(&admission, source(9)).err(),
            Some(Refusal::Connections)
        );
        let dial = |cause| admission.admit_dial(cause);
        for cause in [DialCause::Overlay, DialCause::Peer] {
            assert_eq!(dial(cause).err(), Some(Refusal::Connections));
        }
        let application = OUTBOUND_RESERVE - OPERATOR_RESERVE;
        held.extend((0..application).map(|_| dial(DialCause::Application).unwrap()));
        assert!(dial(DialCause::Application).is_err());
        held.extend((0..OPERATOR_RESERVE).map(|_| dial(DialCause::Operator).unwrap()));
        assert!(dial(DialCause::Operator).is_err());
        held.clear();
        assert!(admit(&admission, source(9)).is_ok());
        assert!(admission.state.lock().sources.is_empty());
    }

    /// What peers have this node dial, and its own overlay, take a share of the slots, and targets count as sources do.
    #[test]
    fn each_cause_has_its_share() {
        let admission = Admission::new(Bounds {
            connections: 80,
            ..bounds()
        });
        let dials =
            |cause| -> Vec<_> { std::iter::from_fn(|| admission.admit_dial(cause).ok()).collect() };
        let overlay = dials(DialCause::Overlay);
        let mut peer = dials(DialCause::Peer);
        assert_eq!((overlay.len(), peer.len()), (20, 10));
        let target = bounds().source(source(1));
        let mut counted = peer.iter_mut().map(|slot| slot.count_for(target));
        assert!(counted.next().unwrap().is_ok() && counted.next().unwrap().is_ok());
        assert_eq!(counted.next().unwrap(), Err(Refusal::SourceConnections));
        let inbound = || admit(&admission, source(1)).err();
        assert_eq!(inbound(), Some(Refusal::SourceConnections));
        drop((peer, overlay));
        assert!(inbound().is_none());
        assert!(admission.state.lock().sources.is_empty());
    }

    /// One that can be closed for another lets it in, a few at a time; one source gets no more than its share.
    #[test]
    fn evictable_connection_admits_another() {
        let admission = Admission::new(Bounds {
            handshakes: 100,
            ..bounds()
        });
        let connect = |n: u8, can: bool| {
            let slot = admission.admit(source(n), || can)?;
            slot.promote(|| can)
        };
        let mut held: Vec<_> = (1..=3).map(|n| connect(n, false).unwrap()).collect();
        assert_eq!(connect(4, false).err(), Some(Refusal::Connections));
        // Its own dials do not keep others from making room.
        let dial = || admission.admit_dial(DialCause::Application).unwrap();
        let dials: Vec<_> = (0..OUTBOUND_RESERVE - OPERATOR_RESERVE)
            .map(|_| dial())
            .collect();
        held.extend((10..).map_while(|n| connect(n, true).ok()));
        assert_eq!(held.len(), 3 + EVICTION_OVERLAP);
        assert_eq!(connect(5, true).err(), Some(Refusal::Connections));
        drop(dials);
        assert_eq!(connect(5, true).err(), Some(Refusal::Connections));
        held.truncate(3);
        held.push(connect(1, true).unwrap());
        assert_eq!(connect(1, true).err(), Some(Refusal::SourceConnections));
    }

    #[test]
    fn connections_of_one_source_are_bounded() {
        let admission = Admission::new(bounds());
        let slot = |admission: &Arc<Admission>| admit(admission, source(1)).map(promote);
        let _held = [slot(&admission), slot(&admission)];
        assert_eq!(slot(&admission).err(), Some(Refusal::SourceConnections));
    }

    #[test]
    fn new_bounds_close_no_connection() {
        let admission = Admission::new(bounds());
        let connect = |n| admit(&admission, source(n)).and_then(promote);
        let held = [connect(1).unwrap(), connect(2).unwrap()];
        admission.set_bounds(Bounds {
            connections: 1,
            ..bounds()
        });
        assert_eq!(connect(3).err(), Some(Refusal::Connections));
        drop(held);
        let one = connect(3).unwrap();
        assert_eq!(connect(4).err(), Some(Refusal::Connections));
        admission.set_bounds(bounds());
        assert!(connect(4).is_ok());
        drop(one);
    }
}
