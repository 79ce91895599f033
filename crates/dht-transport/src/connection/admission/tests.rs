//! Tests of admission.

use std::{net::Ipv4Addr, time::Duration};

use tokio::time::advance;

use super::*;
use crate::limits::{HANDSHAKE_GRACE, TRUSTED_SOURCES};

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
    admission.admit(from, |_| false)
}

fn promote(slot: HandshakeSlot) -> Result<ConnectionSlot, Refusal> {
    slot.promote(|_| false)
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

/// Trust lifts the limits of connections and handshakes; a public address, and one that is not trusted, has its group for all
/// others.
#[test]
fn only_trusted_private_addresses_are_ungrouped() {
    let trusting = |ranges: &[&str]| Bounds {
        trusted: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..bounds()
    };
    let (default, gateway, none) = (bounds(), trusting(&["203.0.113.0/24"]), trusting(&[]));
    let group = |bounds: &Bounds, ip: &str| {
        let ip = ip.parse().unwrap();
        let (group, own) = (bounds.group(ip), SourceGroup::of_ip(ip));
        assert!(group.is_none_or(|group| group == own), "{ip}");
        (bounds.source(ip).is_some(), group.is_some())
    };
    for public in ["203.0.113.7", "::ffff:203.0.113.7"] {
        assert_eq!(group(&default, public), (true, true), "{public}");
        assert_eq!(group(&gateway, public), (false, true), "{public}");
    }
    for private in ["127.0.0.1", "10.1.2.3", "::ffff:192.168.0.1", "fd00::1"] {
        assert_eq!(group(&default, private), (false, false), "{private}");
        assert_eq!(group(&none, private), (true, true), "{private}");
    }
    let admission = Admission::new(default);
    let of = |text: &str| admission.group_of(&text.parse().unwrap());
    assert_eq!(of("/dns/node.example.com/tcp/5"), None);
    assert!(of("/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1").is_some());
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

/// Half-open sockets of one address keep out no other address of its network for long.
#[tokio::test(start_paused = true)]
async fn neighbour_evicts_the_busiest_address() {
    let admission = Admission::new(bounds());
    let [busy, neighbour] = [[192, 0, 1, 1], [192, 0, 1, 2]].map(IpAddr::from);
    let held = [busy, busy].map(|ip| admit(&admission, ip).unwrap());
    advance(HANDSHAKE_GRACE).await;
    let newcomer = admit(&admission, neighbour).unwrap();
    assert!(held[0].evicted.is_cancelled() && !held[1].evicted.is_cancelled());
    assert_eq!(admission.handshakes(), 2);
    // Each has one now: neither takes that of the other.
    for ip in [busy, neighbour] {
        assert_eq!(admit(&admission, ip).err(), Some(Refusal::SourceHandshakes));
    }
    drop((held, newcomer));
    assert!(admission.is_empty());
}

/// Somebody with many addresses of a network ends no handshake of another customer that has just begun.
#[tokio::test(start_paused = true)]
async fn fresh_handshake_outlasts_many_neighbours() {
    let admission = Admission::new(bounds());
    let address = |last| IpAddr::from([192, 0, 1, last]);
    let honest = admit(&admission, address(1)).unwrap();
    let mut hostile = vec![admit(&admission, address(2)).unwrap()];
    let mut attack = || {
        let more = (3..=200).filter_map(|last| admit(&admission, address(last)).ok());
        let more: Vec<_> = more.collect();
        let count = more.len();
        hostile.extend(more);
        count
    };
    advance(HANDSHAKE_GRACE - Duration::from_millis(1)).await;
    assert_eq!(attack(), 0);
    assert!(!honest.evicted.is_cancelled());
    // A half-open socket, as far as anybody can tell.
    advance(Duration::from_millis(1)).await;
    assert_eq!(attack(), 2);
    assert!(honest.evicted.is_cancelled());
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
    assert!(admission.is_empty());
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
    assert!(admission.is_empty(), "nothing is remembered");
}

#[test]
fn connections_are_bounded_beside_dial_reserve() {
    let admission = Admission::new(bounds());
    let mut held = Vec::new();
    for last in 1..=3 {
        held.push(
            admit(&admission, source(last))
                .unwrap()
                .promote(|_| false)
                .ok()
                .unwrap(),
        );
    }
    assert_eq!(
        admit(&admission, source(9)).err(),
        Some(Refusal::Connections)
    );
    let dial = |cause| admission.admit_dial(cause);
    for cause in [DialCause::Overlay, DialCause::Peer, DialCause::Lan] {
        assert_eq!(dial(cause).err(), Some(Refusal::Connections));
    }
    let application = OUTBOUND_RESERVE - OPERATOR_RESERVE;
    held.extend((0..application).map(|_| dial(DialCause::Application).unwrap()));
    assert!(dial(DialCause::Application).is_err());
    held.extend((0..OPERATOR_RESERVE).map(|_| dial(DialCause::Operator).unwrap()));
    assert!(dial(DialCause::Operator).is_err());
    held.clear();
    assert!(admit(&admission, source(9)).is_ok());
    assert!(admission.is_empty());
}

/// Dials that peers cause, and those of the overlay, take a share of the slots, and targets count as sources do.
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
    let lan = dials(DialCause::Lan);
    assert_eq!((overlay.len(), peer.len(), lan.len()), (20, 10, 10));
    let target = bounds().source(source(1));
    let mut counted = peer.iter_mut().map(|slot| slot.count_for(target));
    assert!(counted.next().unwrap().is_ok() && counted.next().unwrap().is_ok());
    assert_eq!(counted.next().unwrap(), Err(Refusal::SourceConnections));
    let inbound = || admit(&admission, source(1)).err();
    assert_eq!(inbound(), Some(Refusal::SourceConnections));
    drop((peer, overlay));
    assert!(inbound().is_none());
    assert!(admission.is_empty());
}

/// One that can be closed for another lets it in, a few at a time; one source gets no more than its share.
#[test]
fn evictable_connection_admits_another() {
    let admission = Admission::new(Bounds {
        handshakes: 100,
        ..bounds()
    });
    let connect = |n: u8, can: bool| {
        let slot = admission.admit(source(n), |_| can)?;
        slot.promote(|_| can)
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

impl Admission {
    /// Whether nobody is counted.
    fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sources.is_empty() && state.handshakes.is_empty()
    }
}
