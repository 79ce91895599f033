//! One attack: the node, the honest nodes that it serves, the hostile peers, and what must hold.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use dht_core::Entropy as _;
use dht_core::{
    Address, Clock as _, Features, Network, NodeIdentity, OsEntropy, PeerAddress, PublicKey,
    SecretKey,
};
use dht_node::Config;
use dht_peers::InboundFrame;
use dht_transport::{BoxFuture, InboundStream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{Check, Outcome, honest::Honest};
use crate::{
    load::{Peer, PeerError},
    loopback::{Loopback, ip},
    target::{Process, Setup, ShiftedClock, Status, secret},
};

/// Longest time of one scenario.
const LIMIT: Duration = Duration::from_secs(150);

/// Time in which honest nodes talk to the node before the attack.
const WARM_UP: Duration = Duration::from_secs(1);

/// Address of the node.
const TARGET: Ipv4Addr = ip(1, 0, 1);

/// Addresses of the two honest nodes that talk to it all the time.
const HONEST: [Ipv4Addr; 2] = [ip(2, 0, 1), ip(3, 0, 1)];

/// Descriptors of the node besides its connections.
const OTHER_DESCRIPTORS: u32 = 64;

/// Second byte of the address of the first honest node that comes later.
const NEWCOMERS: u8 = 200;

/// An attack.
#[derive(Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Description of what the hostile peers do.
    pub attack: &'static str,
    /// Most that the node's memory may grow, in MiB.
    pub growth_limit_mib: f64,
    /// Changes the node before it starts.
    pub(super) prepare: fn(&mut Setup),
    /// Descriptors of open files that the node may have; `None` for what the system allows.
    pub(super) descriptors: Option<u32>,
    /// Whether the node lowers its connections to what its descriptors allow, as the program does.
    pub(super) fits: bool,
    /// Whether honest nodes leave storing messages to the node.
    pub(super) stores_alone: bool,
    pub(super) attack_with: Attack,
}

type Attack = for<'a> fn(&'a mut Stage) -> BoxFuture<'a, anyhow::Result<()>>;

/// The node with its peers.
pub(super) struct Stage {
    target: Process,
    honest: Vec<Honest>,
    quick: bool,
    stores_alone: bool,
    seeds: u64,
    checks: Vec<Check>,
}

impl Scenario {
    pub(super) const fn new(name: &'static str, attack: &'static str, attack_with: Attack) -> Self {
        Self {
            name,
            attack,
            growth_limit_mib: 64.0,
            prepare: |_| {},
            descriptors: None,
            fits: false,
            stores_alone: false,
            attack_with,
        }
    }

    pub(super) const fn within_mib(self, growth_limit_mib: f64) -> Self {
        Self {
            growth_limit_mib,
            ..self
        }
    }

    pub(super) const fn with_node(self, prepare: fn(&mut Setup)) -> Self {
        Self { prepare, ..self }
    }

    pub(super) const fn with_descriptors(self, descriptors: u32) -> Self {
        Self {
            descriptors: Some(descriptors),
            ..self
        }
    }

    pub(super) const fn that_stores_alone(self) -> Self {
        Self {
            stores_alone: true,
            ..self
        }
    }

    pub(super) const fn that_fits(self, descriptors: u32) -> Self {
        Self {
            fits: true,
            ..self.with_descriptors(descriptors)
        }
    }
}

/// Runs one scenario: `quick` attacks with less.
pub async fn run(scenario: &Scenario, quick: bool) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome {
        name: scenario.name,
        attack: scenario.attack,
        served: 0,
        sent: 0,
        growth_mib: 0.0,
        growth_limit_mib: scenario.growth_limit_mib,
        bans: Vec::new(),
        checks: Vec::new(),
        error: None,
        seconds: 0.0,
    };
    if let Err(error) = play(scenario, quick, &mut outcome).await {
        outcome.error = Some(format!("{error:#}"));
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome
}

async fn play(scenario: &Scenario, quick: bool, outcome: &mut Outcome) -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let config = Config {
        network: Network::Esmeralda,
        listen: vec![Address::tcp(TARGET.into(), 0)],
        ..Config::default()
    };
    let mut setup = Setup {
        home: Some(home.path().to_owned()),
        on_loopback: true,
        ..Setup::new(config, 1)
    };
    (scenario.prepare)(&mut setup);
    if let (Some(descriptors), true) = (scenario.descriptors, scenario.fits) {
        let others = OTHER_DESCRIPTORS;
        setup.config.transport.fit((descriptors - others) as usize);
    }
    let mut stage = Stage {
        target: Process::start(&setup, scenario.descriptors)?,
        honest: Vec::new(),
        quick,
        stores_alone: scenario.stores_alone,
        seeds: 2,
        checks: Vec::new(),
    };
    for ip in HONEST {
        let to = stage.target().clone();
        stage.honest(ip, 0).await?.talk_to(&to).await?;
    }
    sleep(WARM_UP).await;
    let before = stage.target.resident_mb().0;
    let attacked = timeout(LIMIT, (scenario.attack_with)(&mut stage)).await;
    let attacked = attacked.context("the attack takes too long");
    for honest in stage.honest.iter().take(HONEST.len()) {
        let (served, sent) = honest.served().await;
        outcome.served += served;
        outcome.sent += sent;
    }
    outcome.growth_mib = stage.target.resident_mb().1 - before;
    outcome.bans = stage.honest_bans()?;
    let failures = stage.status()?.failures;
    if !failures.is_empty() {
        stage.check(format!("stopped: {failures:?}"), false);
    }
    outcome.checks = stage.checks;
    attacked?
}

// === impl Stage ===

impl Stage {
    /// Key and address of the node.
    pub(super) const fn target(&self) -> &PeerAddress {
        self.target.address()
    }

    /// Key of the node.
    pub(super) const fn key(&self) -> PublicKey {
        *self.target.public_key()
    }

    /// The process of the node.
    pub(super) const fn process(&mut self) -> &mut Process {
        &mut self.target
    }

    /// Counters of the node.
    ///
    /// # Errors
    /// That it has died.
    pub(super) fn status(&mut self) -> anyhow::Result<Status> {
        tokio::task::block_in_place(|| self.target.status())
    }

    /// The first number, or the second for a short run.
    pub(super) const fn scale(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Whether the run is a short one.
    pub(super) const fn is_quick(&self) -> bool {
        self.quick
    }

    /// Something that must hold.
    pub(super) fn check(&mut self, what: impl Into<String>, held: bool) {
        let what = what.into();
        self.checks.push(Check { what, held });
    }

    /// A number that no other key of this run is made of.
    pub(super) const fn seed(&mut self) -> u64 {
        self.seeds += 1;
        self.seeds
    }

    /// Starts another honest node, whose bans count, too.
    ///
    /// # Errors
    /// That it does not start.
    pub(super) async fn honest(&mut self, ip: Ipv4Addr, ahead: i64) -> anyhow::Result<&mut Honest> {
        let seed = self.seed();
        self.add(Honest::start(seed, ip, ahead, self.stores_alone).await?)
    }

    /// As [`honest`](Self::honest), with the key of this seed.
    ///
    /// # Errors
    /// That it does not start.
    pub(super) async fn honest_with(
        &mut self,
        seed: u64,
        ip: Ipv4Addr,
    ) -> anyhow::Result<&mut Honest> {
        self.add(Honest::start(seed, ip, 0, self.stores_alone).await?)
    }

    fn add(&mut self, honest: Honest) -> anyhow::Result<&mut Honest> {
        self.honest.push(honest);
        self.honest.last_mut().context("one was added")
    }

    /// An honest node, in the order of their start.
    ///
    /// # Errors
    /// That there is none.
    pub(super) fn honest_at(&self, at: usize) -> anyhow::Result<&Honest> {
        self.honest.get(at).context("no such honest node")
    }

    /// Honest nodes from `count` new networks connect one after the other, and each must be served.
    ///
    /// # Errors
    /// That one does not start.
    pub(super) async fn newcomers_are_served(&mut self, count: u8) -> anyhow::Result<()> {
        let to = self.target().clone();
        let mut served = 0;
        for at in 0..count {
            let from = ip(NEWCOMERS + at, 0, 1);
            let newcomer = self.honest(from, 0).await?;
            served += u8::from(newcomer.is_served(&to).await);
        }
        self.check(format!("newcomers {served}/{count}"), served == count);
        Ok(())
    }

    /// A hostile peer, connected from this address.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(super) async fn hostile(&mut self, from: Ipv4Addr) -> Result<Peer, PeerError> {
        self.hostile_that(from, drop).await
    }

    /// As [`hostile`](Self::hostile); it hands what it receives to `on_message`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(super) async fn hostile_that(
        &mut self,
        from: Ipv4Addr,
        on_message: impl FnMut(InboundFrame) + Send + 'static,
    ) -> Result<Peer, PeerError> {
        let to = self.target().clone();
        self.hostile_to(&to, from, on_message).await
    }

    /// A hostile peer, connected to another node.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(super) async fn hostile_to(
        &mut self,
        to: &PeerAddress,
        from: Ipv4Addr,
        on_message: impl FnMut(InboundFrame) + Send + 'static,
    ) -> Result<Peer, PeerError> {
        let network = (Network::Esmeralda, Loopback::new(from));
        let claimed = Address::tcp(from.into(), 18_189);
        Peer::connect_on(network, self.seed(), claimed, to, on_message).await
    }

    /// A hostile peer with this key that claims these addresses, connected from this one. The streams of a protocol that it offers go
    /// to `service`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(super) async fn hostile_as(
        &mut self,
        secret: SecretKey,
        addresses: Vec<Address>,
        from: Ipv4Addr,
        service: Option<(Bytes, mpsc::Sender<InboundStream>)>,
    ) -> Result<Peer, PeerError> {
        let network = (Network::Esmeralda, Loopback::new(from));
        let identity = claiming(secret, addresses, 0);
        Peer::connect_as(network, identity, service, self.target(), drop).await
    }

    /// An identity that claims these addresses, which cost nobody anything.
    pub(super) fn claimed(&mut self, addresses: Vec<Address>) -> NodeIdentity {
        claiming(secret(self.seed()), addresses, 0)
    }

    /// Waits until `reached`, at most so long; whether it was.
    ///
    /// # Errors
    /// That the node has died.
    pub(super) async fn until(
        &mut self,
        limit: Duration,
        reached: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<bool> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if reached(&self.status()?) {
                return Ok(true);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(false)
    }

    /// Bans between honest nodes.
    fn honest_bans(&mut self) -> anyhow::Result<Vec<String>> {
        let mut names = BTreeMap::from([(self.key().node_id().to_string(), "the node".to_owned())]);
        for (at, honest) in self.honest.iter().enumerate() {
            let id = honest.node().public_key().node_id();
            names.insert(id.to_string(), format!("honest {at}"));
        }
        let mut bans: Vec<_> = self.status()?.bans.into_iter().collect();
        bans.extend(self.honest.iter().flat_map(Honest::bans));
        let named = bans.into_iter().filter_map(|(id, reason)| {
            let name = names.get(&id)?;
            Some(format!("{name}, for: {reason}"))
        });
        Ok(named.collect())
    }
}

/// An identity that claims these addresses since `ahead` seconds from now.
pub(super) fn claiming(secret: SecretKey, addresses: Vec<Address>, ahead: i64) -> NodeIdentity {
    let now = ShiftedClock(ahead).now();
    NodeIdentity::new(secret, Features::NODE, addresses, now, &mut OsEntropy.rng())
}

/// The address at which a node with this IP address listens.
pub(super) fn listening_at(ip: Ipv4Addr) -> Vec<Address> {
    vec![Address::tcp(ip.into(), 18_189)]
}

/// Sends frames as fast as the node takes them; the number that was sent before the node hung up.
///
/// # Errors
/// If not one frame could be sent: the node was not attacked.
pub(super) async fn pump(
    peer: &Peer,
    frames: impl IntoIterator<Item = Bytes>,
) -> anyhow::Result<usize> {
    let mut waiting = VecDeque::new();
    let mut sent = 0;
    for frame in frames {
        if peer.send_when_possible(frame, &mut waiting).await.is_err() {
            break;
        }
        sent += 1;
    }
    for delivery in waiting {
        // Its loss shows in what the node counts.
        let _lost = delivery.await;
    }
    anyhow::ensure!(sent > 0, "the hostile peer could not send a frame");
    Ok(sent)
}
