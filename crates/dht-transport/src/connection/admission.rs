//! How many sockets, from where: the limits of a listener, and of connections in all.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, limits::OUTBOUND_RESERVE, medium::Source};

/// Bounds of [`Admission`]; see the fields of [`Config`] of the same names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) handshakes: usize,
    pub(crate) handshakes_per_source: usize,
    pub(crate) connections: usize,
    pub(crate) connections_per_source: usize,
    pub(crate) exempt_local: bool,
}

/// Counts sockets and decides who gets in.
pub(crate) struct Admission {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bounds: Bounds,
    /// In the order of arrival.
    handshakes: BTreeMap<u64, (Source, CancellationToken)>,
    next: u64,
    connections: usize,
    sources: HashMap<Source, Counts>,
}

#[derive(Default)]
struct Counts {
    handshakes: usize,
    connections: usize,
}

/// Why a socket is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Connections,
    SourceConnections,
    SourceHandshakes,
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
    source: Option<Source>,
}

impl Bounds {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            handshakes: config.max_handshakes.max(1),
            handshakes_per_source: config.max_handshakes_per_source,
            connections: config.max_connections,
            connections_per_source: config.max_connections_per_source,
            exempt_local: config.exempt_local,
        }
    }
}

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

    /// Lets a socket shake hands.
    ///
    /// When all slots are taken, the oldest handshake of the source that has most of them makes room: a
    /// half-open socket keeps its place only until another socket wants it, while an honest handshake is over
    /// after a few round trips.
    pub(crate) fn admit(self: &Arc<Self>, source: Source) -> Result<HandshakeSlot, Refusal> {
        let mut state = self.state.lock();
        state.check_connections(source)?;
        let held = state
            .sources
            .get(&source)
            .map_or(0, |counts| counts.handshakes);
        if !state.is_exempt(source) && held >= state.bounds.handshakes_per_source {
            return Err(Refusal::SourceHandshakes);
        }
        state.sources.entry(source).or_default().handshakes += 1;
        if state.handshakes.len() >= state.bounds.handshakes {
            state.evict();
        }
        let id = state.next;
        state.next += 1;
        let evicted = CancellationToken::new();
        state.handshakes.insert(id, (source, evicted.clone()));
        Ok(HandshakeSlot {
            admission: Arc::clone(self),
            id,
            source,
            evicted,
        })
    }

    /// Counts a connection this node dials.
    pub(crate) fn admit_outbound(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut state = self.state.lock();
        (state.connections < state.bounds.connections.saturating_add(OUTBOUND_RESERVE)).then(|| {
            state.connections += 1;
            ConnectionSlot {
                admission: Arc::clone(self),
                source: None,
            }
        })
    }

    pub(crate) fn handshakes(&self) -> usize {
        self.state.lock().handshakes.len()
    }
}

impl State {
    fn check_connections(&self, source: Source) -> Result<(), Refusal> {
        if self.connections >= self.bounds.connections {
            return Err(Refusal::Connections);
        }
        let held = self
            .sources
            .get(&source)
            .map_or(0, |counts| counts.connections);
        if !self.is_exempt(source) && held >= self.bounds.connections_per_source {
            return Err(Refusal::SourceConnections);
        }
        Ok(())
    }

    fn is_exempt(&self, source: Source) -> bool {
        self.bounds.exempt_local && source == Source::Local
    }

    fn evict(&mut self) {
        let busiest = self.sources.values().map(|counts| counts.handshakes).max();
        let victim = self.handshakes.iter().find_map(|(id, (source, _))| {
            let counts = self.sources.get(source)?;
            (Some(counts.handshakes) == busiest).then_some(*id)
        });
        // The newcomer is counted already; its source may be the busiest without a handshake in the list.
        let victim = victim.or_else(|| self.handshakes.keys().next().copied());
        if let Some((source, evicted)) = victim.and_then(|id| self.handshakes.remove(&id)) {
            evicted.cancel();
            self.uncount(source, |counts| &mut counts.handshakes);
        }
    }

    fn uncount(&mut self, source: Source, counter: impl Fn(&mut Counts) -> &mut usize) {
        if let Some(counts) = self.sources.get_mut(&source) {
            let counter = counter(counts);
            *counter = counter.saturating_sub(1);
            if counts.handshakes == 0 && counts.connections == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl HandshakeSlot {
    /// Turns the handshake into a connection, if there is still room for one.
    pub(crate) fn promote(self) -> Result<ConnectionSlot, Refusal> {
        let mut state = self.admission.state.lock();
        state.check_connections(self.source)?;
        state.connections += 1;
        state.sources.entry(self.source).or_default().connections += 1;
        Ok(ConnectionSlot {
            admission: Arc::clone(&self.admission),
            source: Some(self.source),
        })
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
        let mut state = self.admission.state.lock();
        state.connections = state.connections.saturating_sub(1);
        if let Some(source) = self.source {
            state.uncount(source, |counts| &mut counts.connections);
        }
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

    const BOUNDS: Bounds = Bounds {
        handshakes: 3,
        handshakes_per_source: 2,
        connections: 3,
        connections_per_source: 2,
        exempt_local: true,
    };

    fn source(last: u8) -> Source {
        Source::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    /// One source gets no more than its share of handshakes; local addresses are exempt.
    #[test]
    fn source_share_exempts_local_addresses() {
        let admission = Admission::new(BOUNDS);
        let held = [admission.admit(source(1)), admission.admit(source(1))];
        assert_eq!(
            admission.admit(source(1)).err(),
            Some(Refusal::SourceHandshakes)
        );
        assert!(admission.admit(source(2)).is_ok());
        drop(held);
        let local: Vec<_> = (0..3)
            .map(|_| admission.admit(Source::Local).unwrap())
            .collect();
        assert_eq!(local.len(), 3);
    }

    #[test]
    fn the_exemption_can_be_turned_off() {
        let admission = Admission::new(Bounds {
            exempt_local: false,
            ..BOUNDS
        });
        let _held = [
            admission.admit(Source::Local),
            admission.admit(Source::Local),
        ];
        assert_eq!(
            admission.admit(Source::Local).err(),
            Some(Refusal::SourceHandshakes)
        );
    }

    #[test]
    fn refused_source_is_not_remembered() {
        let admission = Admission::new(Bounds {
            handshakes_per_source: 0,
            ..BOUNDS
        });
        assert!(admission.admit(source(1)).is_err());
        assert!(admission.state.lock().sources.is_empty());
    }

    #[test]
    fn busiest_source_loses_its_oldest_handshake() {
        let admission = Admission::new(BOUNDS);
        let honest = admission.admit(source(1)).unwrap();
        let older = admission.admit(source(2)).unwrap();
        let newer = admission.admit(source(2)).unwrap();
        let another = admission.admit(source(3)).unwrap();
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
        let admission = Admission::new(BOUNDS);
        let mut held = Vec::new();
        for last in 1..=3 {
            held.push(
                admission
                    .admit(source(last))
                    .unwrap()
                    .promote()
                    .ok()
                    .unwrap(),
            );
        }
        assert_eq!(admission.admit(source(9)).err(), Some(Refusal::Connections));
        held.extend((0..OUTBOUND_RESERVE).map(|_| admission.admit_outbound().unwrap()));
        assert!(admission.admit_outbound().is_none());
        held.clear();
        assert!(admission.admit(source(9)).is_ok());
        assert!(admission.state.lock().sources.is_empty());
    }

    #[test]
    fn connections_of_one_source_are_bounded() {
        let admission = Admission::new(BOUNDS);
        let slot =
            |admission: &Arc<Admission>| admission.admit(source(1)).map(HandshakeSlot::promote);
        let _held = [slot(&admission), slot(&admission)];
        assert_eq!(slot(&admission).err(), Some(Refusal::SourceConnections));
    }

    #[test]
    fn new_bounds_close_no_connection() {
        let admission = Admission::new(BOUNDS);
        let connect = |n| admission.admit(source(n)).and_then(HandshakeSlot::promote);
        let held = [connect(1).unwrap(), connect(2).unwrap()];
        admission.set_bounds(Bounds {
            connections: 1,
            ..BOUNDS
        });
        assert_eq!(connect(3).err(), Some(Refusal::Connections));
        drop(held);
        let one = connect(3).unwrap();
        assert_eq!(connect(4).err(), Some(Refusal::Connections));
        admission.set_bounds(BOUNDS);
        assert!(connect(4).is_ok());
        drop(one);
    }
}
