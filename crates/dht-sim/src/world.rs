//! Nodes on a [`Fabric`], each with a key, a home in memory and a reader of its inbox.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use dht_core::{
    Address, Clock, Entropy as _, Features, Message, Network, NodeIdentity, PeerAddress, PublicKey,
    SecretKey, SeededEntropy, UnixSeconds,
};
use dht_node::{Builder, EntryId, MemoryHome, Node, SendOptions};
use dht_peers::PeerRecord;
use parking_lot::Mutex;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::{
    fabric::{Fabric, HostId, Weather},
    log::Log,
};

/// Port that every node listens on.
const PORT: u16 = 18_189;
/// Time on the clocks of nodes at the start of a run.
const EPOCH: u64 = 1_700_000_000;
/// Memory of one node in MiB.
const MEMORY_MIB: usize = 32;
/// Type of the messages that nodes send each other.
const MESSAGE_TYPE: i32 = 1;

/// The clock of every node: tokio's, from a fixed second on.
#[derive(Debug)]
struct SimClock(Instant);

impl Clock for SimClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(EPOCH.saturating_add(self.0.elapsed().as_secs()))
    }
}

/// Parts that outlive a node: its key, its home, and its place in the network.
#[derive(Debug)]
pub struct Identity {
    secret: SecretKey,
    entropy: Arc<SeededEntropy>,
    home: MemoryHome,
    /// Place in the network.
    pub host: HostId,
}

/// The nodes of one run.
#[derive(Debug)]
pub struct World {
    /// The network between the nodes.
    pub fabric: Fabric,
    /// Everything that happened.
    pub log: Log,
    clock: Arc<SimClock>,
    rng: ChaCha12Rng,
    identities: Vec<Identity>,
    running: BTreeMap<usize, Running>,
    post: Arc<Mutex<Post>>,
    sending: JoinSet<()>,
    start: Instant,
}

#[derive(Debug)]
struct Running {
    node: Arc<Node>,
    reader: JoinHandle<()>,
}

/// The messages of a run, by number.
#[derive(Debug, Default)]
struct Post {
    messages: Vec<Mail>,
}

#[derive(Debug)]
struct Mail {
    sent: Instant,
    received: Option<Duration>,
    /// How often the application got it.
    times: u32,
    error: Option<String>,
}

/// Outcome of the messages.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// Messages given to a node.
    pub sent: usize,
    /// Of these, those that the recipient's application has.
    pub received: usize,
    /// Times that an application got a message again that it had acked.
    pub again: u32,
    /// Messages that a node did not take.
    pub refused: usize,
    /// Time of each delivery, in order.
    pub latencies: Vec<Duration>,
}

impl World {
    /// A world without nodes. All that follows depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64, weather: Weather, trace: Option<Box<dyn io::Write + Send>>) -> Self {
        let log = Log::new(trace);
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let start = Instant::now();
        Self {
            fabric: Fabric::new(weather, rng.next_u64(), log.clone()),
            log,
            clock: Arc::new(SimClock(start)),
            rng,
            identities: Vec::new(),
            running: BTreeMap::new(),
            post: Arc::default(),
            sending: JoinSet::new(),
            start,
        }
    }

    /// Adds a node that does not run yet, with a network group of its own. Answers its number.
    pub fn add(&mut self) -> usize {
        let secret = SecretKey::random(&mut self.rng);
        let number = self.identities.len();
        self.add_with(secret, address(number))
    }

    /// Adds a node with this key and address.
    pub fn add_with(&mut self, secret: SecretKey, address: IpAddr) -> usize {
        self.identities.push(Identity {
            secret,
            entropy: Arc::new(SeededEntropy::new(self.rng.next_u64())),
            home: MemoryHome::default(),
            host: self.fabric.add(address),
        });
        self.identities.len() - 1
    }

    /// Adds a node that never runs; answers what it said of itself.
    ///
    /// # Errors
    /// If it was not added.
    pub fn add_gone(&mut self) -> anyhow::Result<PeerRecord> {
        let (number, now) = (self.add(), self.now());
        let (peer, identity) = (self.peer(number)?, self.identity(number)?);
        let (secret, mut rng) = (identity.secret.clone(), identity.entropy.rng());
        let node = NodeIdentity::new(secret, Features::NODE, peer.addresses, now, &mut rng);
        Ok(PeerRecord::from_claim(peer.public_key, node.claim(), now))
    }

    /// Time on the clocks of nodes.
    #[must_use]
    pub fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// Number of nodes, those that do not run included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// Time since the start, as nodes feel it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A number below `most`, by chance.
    #[expect(clippy::cast_possible_truncation, reason = "below a usize")]
    pub fn below(&mut self, most: usize) -> usize {
        (self.rng.next_u64() % most.max(1) as u64) as usize
    }

    /// Two different nodes that run, by chance.
    pub fn pair(&mut self) -> Option<(usize, usize)> {
        let running: Vec<_> = self.running.keys().copied().collect();
        let from = self.below(running.len());
        let to = (from + 1 + self.below(running.len().checked_sub(1)?)) % running.len();
        Some((*running.get(from)?, *running.get(to)?)).filter(|(from, to)| from != to)
    }

    /// All numbers in an order of chance.
    pub fn shuffled(&mut self) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.len()).collect();
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
        all
    }

    /// The public key of a node.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn key(&self, number: usize) -> anyhow::Result<PublicKey> {
        Ok(self.identity(number)?.secret.public_key())
    }

    /// Key and present address of a node.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn peer(&self, number: usize) -> anyhow::Result<PeerAddress> {
        let identity = self.identity(number)?;
        let ip = self.fabric.address(identity.host).context("no address")?;
        Ok(PeerAddress {
            public_key: identity.secret.public_key(),
            addresses: vec![Address::tcp(ip, PORT)],
        })
    }

    /// Parts that outlive a node.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn identity(&self, number: usize) -> anyhow::Result<&Identity> {
        self.identities.get(number).context("no such node")
    }

    /// A node that runs.
    #[must_use]
    pub fn node(&self, number: usize) -> Option<&Arc<Node>> {
        Some(&self.running.get(&number)?.node)
    }

    /// The nodes that run, with their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Arc<Node>)> {
        self.running
            .iter()
            .map(|(number, running)| (*number, &running.node))
    }

    /// Starts a node, with settings that `set` adds.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(
        &mut self,
        number: usize,
        set: impl FnOnce(Builder) -> Builder,
    ) -> anyhow::Result<()> {
        let identity = self.identity(number)?;
        let listen = self.peer(number)?.addresses.into_iter();
        let builder = set(Node::builder(identity.secret.clone()))
            .network(Network::Esmeralda)
            .memory_mib(MEMORY_MIB)
            .clock(Arc::clone(&self.clock) as _)
            .entropy(Arc::clone(&identity.entropy) as _)
            .memory_home(identity.home.clone())
            .medium(self.fabric.interface(identity.host))
            .reproducible();
        let node = listen.fold(builder, Builder::listen).start().await;
        let node = Arc::new(node.with_context(|| format!("node {number} does not start"))?);
        self.log.record(format_args!("start {number}"));
        let (post, log) = (Arc::clone(&self.post), self.log.clone());
        let mut inbox = node.subscribe();
        let reader = tokio::spawn(async move {
            while let Some(received) = inbox.recv().await {
                let mail = u64::from_le_bytes(first_bytes(&received.message.payload));
                log.record(format_args!("received {number} {mail}"));
                inbox.ack().await;
                post.lock().arrived(mail);
            }
        });
        self.running.insert(number, Running { node, reader });
        Ok(())
    }

    /// Ends a node in order.
    pub async fn stop(&mut self, number: usize) {
        if let Some(running) = self.running.remove(&number) {
            running.node.shutdown().await;
            self.end(number, running).await;
        }
    }

    /// Ends a node at once, as a crash of its process does: its links are closed, not more.
    pub async fn kill(&mut self, number: usize) {
        if let Some(running) = self.running.remove(&number) {
            self.end(number, running).await;
        }
    }

    async fn end(&self, number: usize, running: Running) {
        self.log.record(format_args!("end {number}"));
        running.reader.abort();
        // Only cancellation is expected.
        let _ended = running.reader.await;
        drop(running.node);
        // Its tasks end at their next turn, some only when another has ended, and with them the listener.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Sends a message of `bytes` from one node to another. The sender is told where the recipient is if `introduced`.
    ///
    /// # Errors
    /// If the recipient does not exist.
    pub fn send(
        &mut self,
        from: usize,
        to: usize,
        bytes: usize,
        introduced: bool,
    ) -> anyhow::Result<()> {
        let (peer, node) = (self.peer(to)?, self.node(from).cloned());
        let mail = self.post.lock().enter();
        self.log.record(format_args!("send {from} {to} {mail}"));
        let (post, log) = (Arc::clone(&self.post), self.log.clone());
        let Some(node) = node else {
            post.lock().refused(mail, "the sender does not run".into());
            return Ok(());
        };
        if introduced {
            node.add_peer(&peer);
        }
        let mut payload = mail.to_le_bytes().to_vec();
        payload.resize(bytes.max(payload.len()), 0);
        let message = Message {
            message_type: MESSAGE_TYPE,
            payload: payload.into(),
        };
        self.sending.spawn(async move {
            match node
                .send(&peer.public_key, message, SendOptions::default())
                .await
            {
                Ok(delivery) => {
                    let id: EntryId = delivery.id();
                    log.record(format_args!("queued {from} {mail} {id}"));
                }
                Err(error) => post.lock().refused(mail, error.to_string()),
            }
        });
        Ok(())
    }

    /// Outcome of the messages so far.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        self.post.lock().delivered()
    }

    /// The messages that a node took and no application has.
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        let post = self.post.lock();
        let missing = post.messages.iter().enumerate();
        let missing = missing.filter(|(_, mail)| mail.times == 0 && mail.error.is_none());
        missing.map(|(number, _)| number).collect()
    }

    /// Why the first message that was refused was refused.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.post
            .lock()
            .messages
            .iter()
            .find_map(|mail| mail.error.clone())
    }

    /// Ends every node at once.
    pub async fn end_all(&mut self) {
        self.sending.shutdown().await;
        while let Some((number, running)) = self.running.pop_first() {
            self.end(number, running).await;
        }
    }
}

impl Post {
    fn enter(&mut self) -> u64 {
        self.messages.push(Mail {
            sent: Instant::now(),
            received: None,
            times: 0,
            error: None,
        });
        self.messages.len() as u64 - 1
    }

    fn mail(&mut self, number: u64) -> Option<&mut Mail> {
        self.messages.get_mut(usize::try_from(number).ok()?)
    }

    fn arrived(&mut self, number: u64) {
        if let Some(mail) = self.mail(number) {
            mail.times += 1;
            mail.received.get_or_insert_with(|| mail.sent.elapsed());
        }
    }

    fn refused(&mut self, number: u64, error: String) {
        if let Some(mail) = self.mail(number) {
            mail.error = Some(error);
        }
    }

    fn delivered(&self) -> Delivered {
        let mut delivered = Delivered {
            sent: self.messages.len(),
            ..Delivered::default()
        };
        for mail in &self.messages {
            delivered.received += usize::from(mail.times > 0);
            delivered.again += mail.times.saturating_sub(1);
            delivered.refused += usize::from(mail.error.is_some());
            delivered.latencies.extend(mail.received);
        }
        delivered.latencies.sort_unstable();
        delivered
    }
}

/// A public address in a network group that no other number below 20 000 has.
#[expect(clippy::cast_possible_truncation, reason = "below 256 each")]
pub(crate) fn address(number: usize) -> IpAddr {
    let (first, second) = (20 + number % 79, number / 79 % 256);
    Ipv4Addr::new(first as u8, second as u8, 7, 1).into()
}

fn first_bytes(payload: &[u8]) -> [u8; 8] {
    payload.first_chunk().copied().unwrap_or([0xff; 8])
}
