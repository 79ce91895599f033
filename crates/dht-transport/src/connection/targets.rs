//! Where a dial may lead: the sockets behind an address, and what a peer may choose of them.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use dht_core::{Address, DnsKind, Host, SourceGroup, UnixSeconds};
use dht_stack::TokenBuckets;
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    cause::DialCause,
    names::{Lookup, Names},
};
use crate::{
    error::DialError,
    limits::{
        DIAL_STAGGER, MAX_PEER_DIALS_PER_TARGET, MAX_RESOLVED_ADDRESSES, MAX_TARGETS,
        PEER_DIALS_PER_TARGET,
    },
    medium::Media,
    tasks::Panics,
};

/// Resolves addresses, and holds the dials of untrusted targets to their limits for each target.
pub(crate) struct Targets {
    names: Names,
    /// Whether untrusted targets in private networks are refused.
    is_public: bool,
    rates: TokenBuckets<(DialCause, TargetGroup)>,
    busy: Arc<Mutex<Busy>>,
}

/// An address that a dial may try.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) address: Address,
    /// Whether strangers chose the address: nobody but peers names it, or a peer caused the dial.
    pub(crate) is_untrusted_target: bool,
}

/// A range of targets: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address, which is what one
/// customer may have of it, or the key of an onion service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TargetGroup {
    V4([u8; 3]),
    V6([u8; 6]),
    Onion([u8; 32]),
}

/// Untrusted targets of the dials under way. Those of one cause do not count for another: nobody uses up what the
/// application may dial by having this node answer.
#[derive(Default)]
struct Busy {
    sockets: HashSet<(DialCause, Address)>,
    groups: HashMap<(DialCause, TargetGroup), usize>,
}

/// The right of a dial to use an untrusted target, until dropped.
pub(crate) struct TargetPlace {
    busy: Arc<Mutex<Busy>>,
    socket: (DialCause, Address),
    group: Option<(DialCause, TargetGroup)>,
}

// === impl Targets ===

impl Targets {
    pub(crate) fn new(
        lookup: Lookup,
        is_public: bool,
        seed: [u8; 16],
        panics: Arc<Panics>,
    ) -> Self {
        Self {
            names: Names::new(lookup, panics),
            is_public,
            rates: TokenBuckets::new([PEER_DIALS_PER_TARGET], MAX_TARGETS, seed),
            busy: Arc::default(),
        }
    }

    /// Whether an address can be dialled, by itself or by the addresses of its name. An untrusted name is looked up by this
    /// machine or not at all: where a proxy has it lead can be held to no limit.
    pub(crate) fn serves(media: &Media, candidate: &Candidate) -> bool {
        let served = media.serves(&candidate.address);
        match name_of(&candidate.address) {
            Some(_) if served => !candidate.is_untrusted_target,
            Some(name) => media.serves(&Address::tcp([0, 0, 0, 0].into(), name.port)),
            None => served,
        }
    }

    /// The addresses behind an address, each once, in the order in which they are tried. A medium that takes names gets
    /// the name. The caller limits the time.
    pub(crate) async fn resolve(
        &self,
        media: &Media,
        candidate: &Candidate,
        cause: DialCause,
    ) -> Result<Vec<Address>, DialError> {
        let Candidate {
            address,
            is_untrusted_target,
        } = candidate;
        let name = name_of(address).filter(|_| !media.serves(address));
        let Some(Name { kind, name, port }) = name else {
            return self.allowed(vec![address.clone()], *is_untrusted_target, cause);
        };
        let found = self.names.lookup(name, cause).await;
        let found = found.map_err(|_| DialError::Lookup)?;
        let mut targets: Vec<Address> = Vec::new();
        for ip in found {
            let target = Address::tcp(ip.to_canonical(), port);
            if (kind == DnsKind::Dns || ip.to_canonical().is_ipv4()) && !targets.contains(&target) {
                targets.push(target);
            }
        }
        if targets.is_empty() {
            return Err(DialError::Lookup);
        }
        targets.truncate(MAX_RESOLVED_ADDRESSES);
        self.allowed(targets, *is_untrusted_target, cause)
    }

    /// Targets behind one address that a dial may use: of untrusted ones the first that is not private;
    /// a node that announces itself on a local network is there.
    fn allowed(
        &self,
        mut targets: Vec<Address>,
        is_untrusted_target: bool,
        cause: DialCause,
    ) -> Result<Vec<Address>, DialError> {
        if is_untrusted_target {
            if self.is_public && cause != DialCause::Lan {
                targets.retain(Address::is_public);
            }
            targets.truncate(1);
        }
        if targets.is_empty() {
            return Err(DialError::PrivateTarget);
        }
        Ok(targets)
    }

    /// A place for a dial of an untrusted target: no other of its cause to the same socket is under way, few to its group, and
    /// few were a moment ago. An IP address without a `source` counts for no group.
    pub(crate) fn claim(
        &self,
        target: &Address,
        cause: DialCause,
        source: Option<SourceGroup>,
        now: UnixSeconds,
    ) -> Option<TargetPlace> {
        let group = TargetGroup::of(target, source).map(|group| (cause, group));
        let socket = (cause, target.clone());
        let mut busy = self.busy.lock();
        let held = group.and_then(|group| busy.groups.get(&group));
        if held.is_some_and(|held| *held >= MAX_PEER_DIALS_PER_TARGET)
            || busy.sockets.contains(&socket)
            || !group.is_none_or(|group| self.rates.try_take(&group, 0, now.0))
        {
            return None;
        }
        busy.sockets.insert(socket.clone());
        if let Some(group) = group {
            *busy.groups.entry(group).or_default() += 1;
        }
        Some(TargetPlace {
            busy: Arc::clone(&self.busy),
            socket,
            group,
        })
    }
}

impl Drop for TargetPlace {
    fn drop(&mut self) {
        let mut busy = self.busy.lock();
        busy.sockets.remove(&self.socket);
        if let Some(group) = self.group
            && let Some(held) = busy.groups.get_mut(&group)
        {
            *held -= 1;
            if *held == 0 {
                busy.groups.remove(&group);
            }
        }
    }
}

impl TargetGroup {
    fn of(target: &Address, source: Option<SourceGroup>) -> Option<Self> {
        match target.host()? {
            Host::Ip(ip, _) => source.map(|_| Self::of_ip(ip)),
            Host::Onion3 { address, .. } => address.first_chunk().copied().map(Self::Onion),
            _ => None,
        }
    }

    const fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// Connects to the first target that answers. The next one is tried when the one before failed, or after a moment beside
/// it: a name may have an address that does not answer.
pub(crate) async fn first_of<A, T, F: Future<Output = io::Result<T>>>(
    targets: Vec<A>,
    connect: impl Fn(A) -> F,
) -> io::Result<T> {
    let mut waiting = targets.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    loop {
        match waiting.next() {
            Some(target) => running.push(connect(target)),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        tokio::select! {
            biased;
            Some(result) = running.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            },
            () = sleep(DIAL_STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// A name to look up.
struct Name {
    kind: DnsKind,
    name: String,
    port: u16,
}

fn name_of(address: &Address) -> Option<Name> {
    match address.host() {
        Some(Host::Dns {
            kind: kind @ (DnsKind::Dns | DnsKind::Dns4),
            name,
            port,
        }) => Some(Name { kind, name, port }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    fn targets(is_public: bool, found: &'static [&'static str]) -> Targets {
        let lookup = move |_: &str| Ok(found.iter().map(|ip| ip.parse().unwrap()).collect());
        Targets::new(Arc::new(lookup), is_public, [7; 16], Arc::default())
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    async fn resolved(
        targets: &Targets,
        text: &str,
        is_untrusted_target: bool,
    ) -> Result<Vec<String>, DialError> {
        let media = Media(Vec::new());
        let candidate = Candidate {
            address: address(text),
            is_untrusted_target,
        };
        let cause = DialCause::Application;
        let found = targets.resolve(&media, &candidate, cause).await?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    /// An address of a host name that does not answer does not hold up the next address of that name.
    #[tokio::test(start_paused = true)]
    async fn silent_resolved_address_delays_no_next() {
        let connect = |port: u16| async move {
            match port {
                1 => pending().await,
                2 => Err(io::ErrorKind::ConnectionRefused.into()),
                port => Ok(port),
            }
        };
        let start = Instant::now();
        let connected = first_of(vec![1, 2, 3], connect).await;
        assert_eq!(connected.unwrap(), 3);
        assert_eq!(start.elapsed(), DIAL_STAGGER);
        let refused = first_of(vec![2], connect).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let nobody = first_of(Vec::new(), connect).await.unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::AddrNotAvailable);
    }

    /// A name that a peer chose leads into no private network of a public node, also when it resolves into one.
    #[tokio::test]
    async fn untrusted_private_targets_are_refused() {
        let found = &["10.0.0.1", "::ffff:127.0.0.1", "203.0.113.5", "203.0.113.6"];
        let public = targets(true, found);
        let name = "/dns4/node.example.com/tcp/5";
        assert_eq!(
            resolved(&public, name, true).await,
            Ok(vec!["/ip4/203.0.113.5/tcp/5".to_owned()])
        );
        assert_eq!(resolved(&public, name, false).await.unwrap().len(), 4);
        let inside = targets(true, &["192.168.1.1"]);
        for text in [name, "/ip4/127.0.0.1/tcp/5"] {
            let refused = resolved(&inside, text, true).await;
            assert_eq!(refused, Err(DialError::PrivateTarget));
        }
        let local = targets(false, found);
        assert_eq!(
            resolved(&local, name, true).await,
            Ok(vec!["/ip4/10.0.0.1/tcp/5".to_owned()])
        );
    }

    #[tokio::test]
    async fn resolved_sockets_are_tried_once() {
        let same = targets(
            true,
            &[
                "203.0.113.5",
                "::ffff:203.0.113.5",
                "2001:db8::1",
                "203.0.113.5",
            ],
        );
        let found = |text| resolved(&same, text, false);
        let both = ["/ip4/203.0.113.5/tcp/5", "/ip6/2001:db8::1/tcp/5"];
        assert_eq!(found("/dns/node.example.com/tcp/5").await.unwrap(), both);
        assert_eq!(
            found("/dns4/node.example.com/tcp/5").await.unwrap(),
            both[..1]
        );
    }

    /// Any number of keys may claim one socket, or sockets of one network.
    #[test]
    fn dials_of_one_network_are_few() {
        let targets = targets(true, &[]);
        let claim_for = |cause, text: &str, now| {
            let target = address(text);
            targets.claim(&target, cause, SourceGroup::of(&target), now)
        };
        let claim = |text: &str, now| claim_for(DialCause::Peer, text, now);
        let first = claim("/ip4/203.0.113.1/tcp/1", NOW).unwrap();
        assert!(
            claim_for(DialCause::Application, "/ip4/203.0.113.1/tcp/1", NOW).is_some(),
            "another cause"
        );
        assert!(
            claim("/ip4/203.0.113.1/tcp/1", NOW).is_none(),
            "same socket"
        );
        let second = claim("/ip4/203.0.113.2/tcp/1", NOW).unwrap();
        assert!(
            claim("/ip4/203.0.113.3/tcp/1", NOW).is_none(),
            "two at once"
        );
        assert!(claim("/ip4/203.0.114.3/tcp/1", NOW).is_some());
        drop((first, second));
        let dials = (0..100).filter(|_| claim("/ip4/203.0.113.1/tcp/1", NOW).is_some());
        assert_eq!(dials.count() + 2, PEER_DIALS_PER_TARGET.burst as usize);
        let later = NOW.saturating_add(1);
        assert!(claim("/ip4/203.0.113.1/tcp/1", later).is_some());
        let busy = targets.busy.lock();
        assert!(busy.sockets.is_empty() && busy.groups.is_empty());
    }

    /// Of one onion service, as of one network, few ports are dialled.
    #[test]
    fn one_onion_service_is_one_target() {
        let targets = targets(true, &[]);
        let claim = |text: &str| targets.claim(&address(text), DialCause::Peer, None, NOW);
        let onion = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd";
        let dials: Vec<_> = (1..10)
            .filter_map(|port| claim(&format!("{onion}:{port}")))
            .collect();
        assert_eq!(dials.len(), MAX_PEER_DIALS_PER_TARGET);
    }

    #[test]
    fn one_ipv6_site_is_one_target() {
        let of = |text: &str| TargetGroup::of(&address(text), SourceGroup::of(&address(text)));
        assert_eq!(
            of("/ip6/2001:db8:1:2::1/tcp/1"),
            of("/ip6/2001:db8:1:f00::9/tcp/1")
        );
        assert_ne!(
            of("/ip6/2001:db8:1::1/tcp/1"),
            of("/ip6/2001:db8:2::1/tcp/1")
        );
    }
}
