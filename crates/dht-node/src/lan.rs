//! Nodes of the same local networks (feature `lan`): this node announces its key and its port there, and may dial others that do.
//!
//! # Security
//! Anybody on a link can announce anything, and learns that a node with this key runs here. What is announced is only a suggestion
//! to dial, at the address that the message came from and if that is on a link of this machine: the directory learns of a peer once a
//! handshake has proved its key. Messages and suggestions of an address, suggestions that wait, dials and connections are bounded;
//! each bound is for local networks alone, so that whoever fills it keeps out nobody else.

mod link;
mod message;
mod suggestions;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use dht_core::{
    Address, Clock as _, Entropy as _, Host, NodeId, PublicKey, SharedClock, SharedEntropy,
};
use dht_transport::limits::MAX_LAN_DIALS;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use metrics::{Unit, counter, describe_counter};
use rand_core::Rng as _;
use simple_dns::SimpleDnsError;
use tokio::time::{Instant, sleep, sleep_until};

use self::{
    link::{Interface, Link, Multicast, PORT},
    message::{LanMessage, LanService, MAX_MESSAGE_BYTES},
    suggestions::{Suggestion, Suggestions},
};
use crate::{config::Config, connection_mirror::ConnectionMirror, context::seed};

/// Time between two looks at the interfaces of this machine.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Time after which a link that failed is opened again.
const RETRY: Duration = Duration::from_secs(60);
/// Time between the first two questions; each pause is three times the one before (RFC 6762, section 5.2).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Time between two announcements at least (RFC 6762, section 6).
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// Time that an answer waits, so that those of many nodes do not collide (RFC 6762, section 6), in milliseconds.
const ANSWER_DELAY_MILLIS: std::ops::Range<u64> = 20..120;
/// Time between two dials.
const DIAL_EVERY: Duration = Duration::from_secs(2);
/// Messages in a second after which the rest of it waits in the socket, or is lost there.
const MAX_MESSAGES_PER_SECOND: u32 = 256;

const HEARD: &str = "dht_node_lan_announcements_total";

/// The node as local discovery uses it.
pub(crate) trait LanPorts: Send + Sync {
    /// Whether a peer may be dialled: one that is not known, or that could not be reached where it is known.
    fn wants(&self, key: &PublicKey) -> bool;
    /// Whether a peer is connected.
    fn is_connected(&self, peer: &NodeId) -> bool;
    /// Dials a peer; whether it is connected.
    fn dial(&self, key: PublicKey, address: Address) -> BoxFuture<'_, bool>;
}

/// Announces this node on its local networks, and dials others.
pub(crate) struct LanDiscovery<P> {
    key: PublicKey,
    service: LanService,
    /// IPv4 addresses that this node listens on, which may be unspecified, with their ports.
    listening: Vec<SocketAddrV4>,
    ports: P,
    suggestions: Suggestions,
    clock: SharedClock,
    entropy: SharedEntropy,
}

/// Times at which something is due on a link.
struct Schedule {
    interfaces: BTreeSet<Interface>,
    look: Instant,
    question: Instant,
    /// Time between the next question and the one after it.
    pause: Duration,
    /// When this node announces itself; `None` if nobody asks.
    announcement: Option<Instant>,
    /// Before it there is no other announcement.
    quiet_until: Instant,
    dial: Instant,
    /// Second in which messages are counted, and how many there were.
    second: Instant,
    messages: u32,
}

impl<P: LanPorts> LanDiscovery<P> {
    pub(crate) fn new(
        config: &Config,
        key: PublicKey,
        listening: &[Address],
        ports: P,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Self {
        let listening = listening.iter().filter_map(|address| match address.host() {
            Some(Host::Ip(IpAddr::V4(ip), port)) => Some(SocketAddrV4::new(ip, port)),
            _ => None,
        });
        Self {
            key,
            service: LanService::of(config.network),
            listening: listening.collect(),
            ports,
            suggestions: Suggestions::new(seed(&entropy)),
            clock,
            entropy,
        }
    }

    /// Announces and dials until dropped. A link that fails is opened again later.
    pub(crate) async fn run(mut self) {
        let mut is_told = false;
        loop {
            let error = match Multicast::open() {
                Ok(mut link) => {
                    let failed = self.run_on(&mut link).await;
                    let Err(error) = failed;
                    error
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(%error, "no discovery on local networks; it is tried again");
            }
            sleep(RETRY).await;
        }
    }

    /// As [`run`](Self::run), on one link until that fails.
    async fn run_on(&mut self, link: &mut impl Link) -> Result<Infallible, io::Error> {
        let Self {
            key,
            service,
            listening,
            ports,
            suggestions,
            clock,
            entropy,
        } = self;
        let mut rng = entropy.rng();
        let mut schedule = Schedule::new(Instant::now());
        let mut dials = FuturesUnordered::new();
        let mut buffer = [0; MAX_MESSAGE_BYTES + 1];
        loop {
            let may_dial = dials.len() < MAX_LAN_DIALS && !suggestions.is_empty();
            tokio::select! {
                biased;
                () = sleep_until(schedule.look) => {
                    let interfaces = link.interfaces().await?;
                    schedule.looked(interfaces, Instant::now());
                }
                Some((suggestion, connected)) = dials.next(), if !dials.is_empty() => {
                    if connected {
                        suggestions.on_connected(&suggestion);
                    }
                }
                () = sleep_until(schedule.dial), if may_dial => {
                    schedule.dial = Instant::now() + DIAL_EVERY;
                    if let Some(suggestion) = suggestions.next().filter(|it| ports.wants(&it.key)) {
                        let address = Address::tcp(IpAddr::V4(*suggestion.at.ip()), suggestion.at.port());
                        let dial = ports.dial(suggestion.key, address);
                        dials.push(dial.map(move |connected| (suggestion, connected)));
                    }
                }
                () = sleep_until(schedule.question) => {
                    schedule.asked(Instant::now());
                    broadcast(link, &schedule.interfaces, |_| service.question().map(Some)).await;
                }
                () = sleep_until(schedule.announcement.unwrap_or(schedule.look)), if schedule.announcement.is_some() => {
                    schedule.announced(Instant::now());
                    let announcement = |ip: Ipv4Addr| {
                        let at = |at: &&SocketAddrV4| at.ip().is_unspecified() || *at.ip() == ip;
                        let at = listening.iter().find(at);
                        at.map(|at| service.announcement(key, ip, at.port())).transpose()
                    };
                    broadcast(link, &schedule.interfaces, announcement).await;
                }
                received = link.receive(&mut buffer), if schedule.may_receive(Instant::now()) => {
                    let (length, from) = received?;
                    schedule.messages += 1;
                    let (ip, now) = (*from.ip(), clock.now());
                    let is_near = schedule.interfaces.iter().any(|interface| interface.contains(ip));
                    // Section 11 of RFC 6762: what was not sent from the port comes from no responder.
                    if !is_near || from.port() != PORT || !suggestions.may_read(ip, now) {
                        continue;
                    }
                    let announcement = match buffer.get(..length).and_then(|message| service.read(message)) {
                        None => continue,
                        Some(LanMessage::Question) => {
                            let delay = rng.next_u64() % (ANSWER_DELAY_MILLIS.end - ANSWER_DELAY_MILLIS.start);
                            let delay = Duration::from_millis(ANSWER_DELAY_MILLIS.start + delay);
                            schedule.asked_for(Instant::now() + delay);
                            continue;
                        }
                        Some(LanMessage::Announcement(announcement)) => announcement,
                    };
                    if announcement.key == *key {
                        continue;
                    }
                    let suggestion = Suggestion {
                        key: announcement.key,
                        at: SocketAddrV4::new(ip, announcement.port),
                    };
                    suggestions.retain_connected(|id| ports.is_connected(id));
                    let outcome = match ports.wants(&suggestion.key) {
                        false => "known",
                        true => match suggestions.hear(suggestion, now) {
                            Ok(()) => "taken",
                            Err(refused) => refused.name(),
                        },
                    };
                    counter!(HEARD, "outcome" => outcome).increment(1);
                }
                () = sleep_until(schedule.second + Duration::from_secs(1)), if !schedule.may_receive(Instant::now()) => {}
            }
        }
    }
}

/// Sends on each interface what `message` makes of its address.
async fn broadcast(
    link: &impl Link,
    interfaces: &BTreeSet<Interface>,
    message: impl Fn(Ipv4Addr) -> Result<Option<Vec<u8>>, SimpleDnsError>,
) {
    for Interface { ip, .. } in interfaces {
        let sent = match message(*ip) {
            Ok(None) => Ok(()),
            Ok(Some(message)) => link.send(*ip, &message).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = sent {
            tracing::debug!(%ip, %error, "nothing sent on an interface");
        }
    }
}

// === impl Schedule ===

impl Schedule {
    fn new(at: Instant) -> Self {
        Self {
            interfaces: BTreeSet::new(),
            look: at,
            question: at,
            pause: FIRST_PAUSE,
            announcement: None,
            quiet_until: at,
            dial: at,
            second: at,
            messages: 0,
        }
    }

    /// Takes in the interfaces; whenever one comes, the node asks and announces itself as at the start.
    fn looked(&mut self, interfaces: BTreeSet<Interface>, at: Instant) {
        if !interfaces.is_subset(&self.interfaces) {
            (self.question, self.pause) = (at, FIRST_PAUSE);
            self.asked_for(at);
        }
        self.interfaces = interfaces;
        self.look = at + LOOK_EVERY;
    }

    fn asked(&mut self, at: Instant) {
        self.question = at + self.pause;
        self.pause = (self.pause * 3).min(LONGEST_PAUSE);
    }

    /// Somebody asks for an announcement at this time.
    fn asked_for(&mut self, at: Instant) {
        let at = at.max(self.quiet_until);
        self.announcement = Some(self.announcement.map_or(at, |planned| planned.min(at)));
    }

    fn announced(&mut self, at: Instant) {
        self.announcement = None;
        self.quiet_until = at + ANNOUNCE_EVERY;
    }

    /// Whether another message may be received in this second.
    fn may_receive(&mut self, at: Instant) -> bool {
        if at.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.messages) = (at, 0);
        }
        self.messages < MAX_MESSAGES_PER_SECOND
    }
}

impl LanPorts for ConnectionMirror {
    fn wants(&self, key: &PublicKey) -> bool {
        let (id, now) = (key.node_id(), self.shared.clock.now());
        let known = self.shared.directory.find(&id);
        let is_lost = known.is_none_or(|known| known.is_offline() && !known.is_banned(now));
        is_lost && !self.is_connected(&id)
    }

    fn is_connected(&self, peer: &NodeId) -> bool {
        self.shared.connections.contains(peer)
    }

    fn dial(&self, key: PublicKey, address: Address) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let peer = key.node_id();
            match self.transport.dial_on_link(&key, &address).await {
                Ok(_connection) => self.ensure(&peer),
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %address, %error, "nobody where a node was announced");
                    return false;
                }
            }
            true
        })
    }
}

/// Describes the metrics of this module.
pub(crate) fn describe_metrics() {
    describe_counter!(
        HEARD,
        Unit::Count,
        "Announcements of other nodes on local networks, by what became of them: taken to be dialled, known, or over a limit"
    );
}

#[cfg(test)]
mod tests;
