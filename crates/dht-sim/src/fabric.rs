//! A network in memory: hosts with one address each, streams with delay, jitter, loss and a shared uplink, and what goes wrong.
//!
//! A stream never loses bytes: a lost segment comes late, and all behind it. A cut path delivers nothing until it is whole again. A
//! silent host takes nothing and says nothing. All chance comes from one seed.

mod link;

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    io,
    iter::Sum,
    net::{IpAddr, Ipv4Addr},
    ops::Sub,
    sync::{Arc, Weak},
    time::Duration,
};

use dht_core::{Address, Host};
use dht_stack::{Channel, WhenFull};
use dht_transport::{Accepted, Acceptor, BoxFuture, Medium, Socket};
use parking_lot::Mutex;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use self::link::{End, Link};
use crate::log::Log;

/// Sockets that wait to be accepted by one listener; further dials are refused.
const BACKLOG: Channel = Channel {
    name: "simulated connections",
    from: &[("dials", WhenFull::Shed)],
    to: "listeners",
    capacity: 128,
};
/// Bytes in one packet, for the chance that a segment loses one.
const PACKET_BYTES: usize = 1_460;
/// Times that a packet is sent again before the path counts as recovered.
const MOST_RETRANSMISSIONS: u32 = 6;

/// A host of a [`Fabric`]: keeps its links and its place when its address changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// Properties of paths.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Least and most delay between a host and the middle of the network, in one direction. Each host has its own.
    pub access: (Duration, Duration),
    /// Most that is added to the delay of a segment, evenly spread.
    pub jitter: Duration,
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Time until a lost packet is sent again; each further time takes twice as long.
    pub retransmission: Duration,
    /// Bytes a second that a host can send, over all its links.
    pub uplink: u64,
}

impl Default for Weather {
    /// Homes and data centres of one continent: 5 to 40 ms to the middle, 10 ms jitter, one packet of a thousand lost, 2 MB/s up.
    fn default() -> Self {
        Self {
            access: (Duration::from_millis(5), Duration::from_millis(40)),
            jitter: Duration::from_millis(10),
            loss: 0.001,
            retransmission: Duration::from_millis(200),
            uplink: 2_000_000,
        }
    }
}

/// Counters of one host since the start of a run, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes written to sockets.
    pub bytes: u64,
    /// Dials begun.
    pub dials: u64,
    /// Of these, those that became a stream.
    pub connected: u64,
}

/// A network of hosts. Clones share it.
#[derive(Clone)]
pub struct Fabric(Arc<Inner>);

struct Inner {
    weather: Weather,
    log: Log,
    state: Mutex<State>,
}

struct State {
    rng: ChaCha12Rng,
    hosts: BTreeMap<HostId, Place>,
    by_address: BTreeMap<IpAddr, HostId>,
    links: BTreeMap<u64, Weak<Link>>,
    next_link: u64,
}

/// State of one host.
struct Place {
    address: IpAddr,
    access: Duration,
    /// Whether packets reach it.
    is_up: bool,
    /// Hosts with different numbers do not reach each other.
    side: u8,
    /// How often it has come up after it was silenced.
    starts: u32,
    listeners: BTreeMap<u16, mpsc::Sender<(End, IpAddr, u16)>>,
    next_port: u16,
    /// Until when its uplink is busy.
    busy_until: Instant,
    traffic: Traffic,
}

/// A host's interface to the network, as the [`Medium`] of its node.
#[derive(Clone, Debug)]
pub struct Interface {
    fabric: Fabric,
    host: HostId,
}

struct Listener {
    interface: Interface,
    port: u16,
    address: IpAddr,
    incoming: mpsc::Receiver<(End, IpAddr, u16)>,
}

// === impl Traffic ===

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            bytes: sum.bytes + one.bytes,
            dials: sum.dials + one.dials,
            connected: sum.connected + one.connected,
        })
    }
}

impl Sub for Traffic {
    type Output = Self;

    /// Difference of the counters between two moments.
    fn sub(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            dials: self.dials - before.dials,
            connected: self.connected - before.connected,
        }
    }
}

// === impl Fabric ===

impl Fabric {
    /// A network without hosts.
    #[must_use]
    pub fn new(weather: Weather, seed: u64, log: Log) -> Self {
        Self(Arc::new(Inner {
            weather,
            log,
            state: Mutex::new(State {
                rng: ChaCha12Rng::seed_from_u64(seed),
                hosts: BTreeMap::new(),
                by_address: BTreeMap::new(),
                links: BTreeMap::new(),
                next_link: 0,
            }),
        }))
    }

    /// Adds a host that is up and has this address.
    pub fn add(&self, address: IpAddr) -> HostId {
        let state = &mut *self.0.state.lock();
        let host = HostId(state.hosts.len());
        let (least, most) = self.0.weather.access;
        let access = least + most.saturating_sub(least).mul_f64(unit(&mut state.rng));
        state.by_address.insert(address, host);
        state.hosts.insert(
            host,
            Place {
                address,
                access,
                is_up: true,
                side: 0,
                starts: 0,
                listeners: BTreeMap::new(),
                next_port: 40_000,
                busy_until: Instant::now(),
                traffic: Traffic::default(),
            },
        );
        host
    }

    /// The medium of a host's node.
    #[must_use]
    pub fn interface(&self, host: HostId) -> Interface {
        Interface {
            fabric: self.clone(),
            host,
        }
    }

    /// Takes a host off the network: what it sends and what is sent to it does not arrive, and its own dials fail.
    pub fn take_down(&self, host: HostId) {
        self.change(host, |place| place.is_up = false);
        self.0.log.record(format_args!("down {}", host.0));
        self.update_links();
    }

    /// Puts a host on the network again; links that are left go on.
    pub fn bring_up(&self, host: HostId) {
        self.change(host, |place| place.is_up = true);
        self.0.log.record(format_args!("up {}", host.0));
        self.update_links();
    }

    /// Puts a host on the network again that lost power: of its links from before, it knows nothing.
    pub fn restart(&self, host: HostId) {
        self.change(host, |place| {
            place.is_up = true;
            place.starts += 1;
        });
        self.0.log.record(format_args!("restart {}", host.0));
        self.update_links();
    }

    /// Gives a host another address; what is sent to the old one reaches nobody.
    pub fn move_to(&self, host: HostId, address: IpAddr) {
        let state = &mut *self.0.state.lock();
        if let Some(place) = state.hosts.get_mut(&host) {
            state.by_address.remove(&place.address);
            place.address = address;
            state.by_address.insert(address, host);
        }
        self.0
            .log
            .record(format_args!("moved {} {address}", host.0));
    }

    /// Cuts the network in parts: hosts with different answers do not reach each other.
    pub fn cut(&self, side: impl Fn(HostId) -> u8) {
        for (host, place) in &mut self.0.state.lock().hosts {
            place.side = side(*host);
        }
        self.0.log.record(format_args!("cut"));
        self.update_links();
    }

    /// Resets every link of a host.
    pub fn reset(&self, host: HostId) {
        for link in self.links() {
            if link.hosts.contains(&host) {
                link.reset();
            }
        }
        self.0.log.record(format_args!("reset {}", host.0));
    }

    /// Counters of all hosts since the start.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let state = self.0.state.lock();
        state.hosts.values().map(|place| place.traffic).sum()
    }

    /// Counters of a host since the start.
    #[must_use]
    pub fn traffic_of(&self, host: HostId) -> Traffic {
        let state = self.0.state.lock();
        let place = state.hosts.get(&host);
        place.map_or_else(Traffic::default, |place| place.traffic)
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: HostId) -> Option<IpAddr> {
        Some(self.0.state.lock().hosts.get(&host)?.address)
    }

    fn change(&self, host: HostId, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.0.state.lock().hosts.get_mut(&host) {
            change(place);
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let mut state = self.0.state.lock();
        state
            .links
            .retain(|_, link| link.upgrade().is_some_and(|link| !link.is_over()));
        state.links.values().filter_map(Weak::upgrade).collect()
    }

    /// Brings every link in step with what its hosts are.
    fn update_links(&self) {
        for link in self.links() {
            let (is_whole, forgot) = {
                let state = self.0.state.lock();
                let [a, b] = link.hosts;
                let starts = [a, b].map(|host| state.hosts.get(&host).map_or(0, |it| it.starts));
                let forgot = (0..2).filter(|side| starts.get(*side) != link.starts.get(*side));
                (state.reaches(a, b), forgot.collect::<Vec<_>>())
            };
            if !is_whole {
                link.stall();
                continue;
            }
            let again = self
                .0
                .weather
                .retransmission
                .mul_f64(1.0 + 4.0 * self.chance());
            match forgot.first() {
                Some(side) => link.forget(*side, again),
                None => link.resume(again),
            }
        }
    }

    fn chance(&self) -> f64 {
        unit(&mut self.0.state.lock().rng)
    }

    /// Time until bytes written now at one end of a link are at the other, after those written before.
    fn delay_of(&self, link: &Link, side: usize, bytes: usize) -> Duration {
        let [dialled, accepted] = link.hosts;
        let [from, to] = if side == 0 {
            [dialled, accepted]
        } else {
            [accepted, dialled]
        };
        self.0.state.lock().delay(&self.0.weather, from, to, bytes)
    }

    fn wrote(&self, link: &Link, side: usize, bytes: &[u8]) {
        if let Some(host) = link.hosts.get(side) {
            self.change(*host, |place| place.traffic.bytes += bytes.len() as u64);
        }
        let hash = blake2b_simd::Params::new().hash_length(8).hash(bytes);
        let (id, length) = (link.id, bytes.len());
        self.0
            .log
            .record(format_args!("bytes {id}.{side} {length} {}", hash.to_hex()));
    }

    fn closed(&self, link: &Link, side: usize) {
        self.0.log.record(format_args!("closed {}.{side}", link.id));
    }

    async fn dial(&self, from: HostId, ip: IpAddr, port: u16) -> io::Result<Socket> {
        let (host, tries) = {
            let state = &mut *self.0.state.lock();
            let place = state.hosts.get_mut(&from);
            let place = place.ok_or(io::ErrorKind::NetworkUnreachable)?;
            place.traffic.dials += 1;
            if !place.is_up {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            }
            (
                state.by_address.get(&ip).copied(),
                lost(&mut state.rng, self.0.weather.loss),
            )
        };
        self.0
            .log
            .record(format_args!("dial {} {ip}:{port}", from.0));
        let Some(to) = host else {
            return pending().await;
        };
        // The first packet is sent again after 1, 2, 4 … seconds.
        let lost = Duration::from_secs((1 << tries) - 1);
        sleep(lost + self.delay(from, to)).await;
        let Some((link, from_port, listener)) = self.0.state.lock().open(from, to, ip, port) else {
            return pending().await;
        };
        let source = self
            .address(from)
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        // Both ends are there from now on: a dial that is given up closes its own.
        let accepted = End::new(self.clone(), Arc::clone(&link), 1);
        let dialled = End::new(self.clone(), Arc::clone(&link), 0);
        let taken = listener.is_some_and(|it| it.try_send((accepted, source, from_port)).is_ok());
        sleep(self.delay(to, from)).await;
        if !taken {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.change(from, |place| place.traffic.connected += 1);
        self.0
            .log
            .record(format_args!("connected {} {}-{}", link.id, from.0, to.0));
        Ok(Socket::other(dialled))
    }

    fn delay(&self, from: HostId, to: HostId) -> Duration {
        self.0.state.lock().delay(&self.0.weather, from, to, 0)
    }
}

// === impl State ===

impl State {
    /// Whether packets of one host get to another.
    fn reaches(&self, from: HostId, to: HostId) -> bool {
        match (self.hosts.get(&from), self.hosts.get(&to)) {
            (Some(from), Some(to)) => from.is_up && to.is_up && from.side == to.side,
            _ => false,
        }
    }

    /// A new link, the port that it leaves from, and the listener; `None` if nothing answers.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn open(
        &mut self,
        from: HostId,
        to: HostId,
        ip: IpAddr,
        port: u16,
    ) -> Option<(Arc<Link>, u16, Option<mpsc::Sender<(End, IpAddr, u16)>>)> {
        if !self.reaches(from, to) || self.by_address.get(&ip) != Some(&to) {
            return None;
        }
        let starts = [self.hosts.get(&from)?.starts, self.hosts.get(&to)?.starts];
        let link = Arc::new(Link::new(self.next_link, [from, to], starts));
        self.links.insert(self.next_link, Arc::downgrade(&link));
        self.next_link += 1;
        let place = self.hosts.get_mut(&from)?;
        place.next_port = place.next_port.wrapping_add(1).max(1_024);
        let from_port = place.next_port;
        let listener = self.hosts.get(&to)?.listeners.get(&port).cloned();
        Some((link, from_port, listener))
    }

    /// Time until bytes that a host sends now are at another.
    fn delay(&mut self, weather: &Weather, from: HostId, to: HostId, bytes: usize) -> Duration {
        let now = Instant::now();
        let jitter = weather.jitter.mul_f64(unit(&mut self.rng));
        let packets = bytes.div_ceil(PACKET_BYTES).max(1);
        // The chance that any of the packets is lost.
        let loss = 1.0 - (1.0 - weather.loss).powf(packets as f64);
        let again = weather.retransmission * ((1 << lost(&mut self.rng, loss)) - 1);
        let access = self
            .hosts
            .get(&to)
            .map_or(Duration::ZERO, |place| place.access);
        let Some(place) = self.hosts.get_mut(&from) else {
            return access + jitter + again;
        };
        let sending = Duration::from_secs_f64(bytes as f64 / weather.uplink.max(1) as f64);
        place.busy_until = place.busy_until.max(now) + sending;
        place.busy_until.duration_since(now) + place.access + access + jitter + again
    }
}

/// How often in a row something is lost.
fn lost(rng: &mut ChaCha12Rng, chance: f64) -> u32 {
    let mut times = 0;
    while times < MOST_RETRANSMISSIONS && unit(rng) < chance {
        times += 1;
    }
    times
}

/// A number from 0 up to and without 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits")]
fn unit(rng: &mut ChaCha12Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

// === impl Interface ===

impl Medium for Interface {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let (ip, port) = ip_of(address)?;
            self.fabric.dial(self.host, ip, port).await
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async move {
            let (_, port) = ip_of(address)?;
            let mut state = self.fabric.0.state.lock();
            let place = state.hosts.get_mut(&self.host);
            let place = place.ok_or(io::ErrorKind::AddrNotAvailable)?;
            if place
                .listeners
                .get(&port)
                .is_some_and(|listener| !listener.is_closed())
            {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, incoming) = BACKLOG.open();
            place.listeners.insert(port, sender);
            let address = place.address;
            let interface = self.clone();
            Ok(Box::new(Listener {
                interface,
                port,
                address,
                incoming,
            }) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        ip_of(address).is_ok()
    }
}

impl Acceptor for Listener {
    fn local_address(&self) -> Address {
        Address::tcp(self.address, self.port)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let accepted = self.incoming.recv().await;
            let (end, source, port) = accepted.ok_or(io::ErrorKind::NotConnected)?;
            Ok(Accepted {
                socket: Socket::other(end),
                remote: Address::tcp(source, port),
                source,
            })
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let (host, port) = (self.interface.host, self.port);
        self.incoming.close();
        self.interface.fabric.change(host, |place| {
            if place
                .listeners
                .get(&port)
                .is_some_and(mpsc::Sender::is_closed)
            {
                place.listeners.remove(&port);
            }
        });
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric")
            .field("traffic", &self.traffic())
            .finish_non_exhaustive()
    }
}

fn ip_of(address: &Address) -> io::Result<(IpAddr, u16)> {
    match address.host() {
        Some(Host::Ip(ip, port)) => Ok((ip, port)),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
