//! Honest nodes, which count what of their messages comes back.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use dht_core::{Address, Network, PeerAddress, PublicKey, SharedClock};
use dht_node::{Config, Message, Node, SendOptions};
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    loopback::Loopback,
    target::{ECHO, ShiftedClock, gossip_to_all, secret},
};

/// Requests of the node for stored messages that an honest node answers at once.
const MANY_REQUESTS: u32 = 10_000;

/// Time between two messages of one honest node.
const PERIOD: Duration = Duration::from_millis(50);

/// Time in which a message must come back, after the attack has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time in which a new node must be connected and served.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(10);

/// A node with default settings that behaves, and passes gossip on.
pub(super) struct Honest {
    seed: u64,
    node: Arc<Node>,
    clock: SharedClock,
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    back: Mutex<BTreeSet<u64>>,
    /// Payloads of other messages.
    received: Mutex<Vec<Vec<u8>>>,
}

impl Honest {
    /// Starts a node that listens on this address of the [`Loopback`] network, with a clock that is ahead by these seconds. It stores one
    /// message at most for others if it `stores_nothing`.
    ///
    /// # Errors
    /// That it does not start.
    pub(super) async fn start(
        seed: u64,
        ip: Ipv4Addr,
        ahead: i64,
        stores_nothing: bool,
    ) -> anyhow::Result<Self> {
        let mut config = Config {
            network: Network::Esmeralda,
            listen: vec![Address::tcp(ip.into(), 0)],
            relay_gossip: true,
            ..Config::default()
        };
        // The node asks far more often than nodes do when a test makes it.
        config.saf.requester_burst = MANY_REQUESTS;
        config.rates.stored_request.burst = MANY_REQUESTS;
        if stores_nothing {
            config.saf.capacity_rows = 1;
        }
        let clock: SharedClock = Arc::new(ShiftedClock(ahead));
        let builder = Node::builder(secret(seed))
            .config(config)
            .clock(Arc::clone(&clock));
        let node = Arc::new(builder.medium(Loopback::new(ip)).start().await?);
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        let (mut inbox, takes) = (node.subscribe(), Arc::clone(&counts));
        tasks.spawn(async move {
            while let Some(received) = inbox.recv().await {
                let payload = &received.message.payload;
                match payload.strip_prefix(ECHO).map(number) {
                    Some(Some(number)) => drop(takes.back.lock().insert(number)),
                    _ => takes.received.lock().push(payload.to_vec()),
                }
                inbox.ack().await;
            }
        });
        Ok(Self {
            seed,
            node,
            clock,
            counts,
            tasks,
        })
    }

    /// Seed of its key.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// The node.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Sends messages to `to` all the time, to which it is connected first.
    ///
    /// # Errors
    /// That it cannot be connected to.
    pub(super) async fn talk_to(&mut self, to: &PeerAddress) -> anyhow::Result<()> {
        let connected = timeout(NEWCOMER_PATIENCE, self.node.connect(to)).await;
        connected.context("an honest node is not let in")??;
        let (node, counts, to) = (
            Arc::clone(&self.node),
            Arc::clone(&self.counts),
            to.public_key,
        );
        self.tasks.spawn(async move {
            let mut ticks = interval(PERIOD);
            loop {
                ticks.tick().await;
                ask(&node, &counts, &to).await;
            }
        });
        Ok(())
    }

    /// Messages that came back, of those sent so far, which are waited for.
    pub(super) async fn served(&self) -> (u64, u64) {
        let sent = self.counts.sent.load(Relaxed);
        let start = Instant::now();
        while self.back_of(sent) < sent && start.elapsed() < PATIENCE {
            sleep(PERIOD).await;
        }
        (self.back_of(sent), sent)
    }

    fn back_of(&self, sent: u64) -> u64 {
        self.counts.back.lock().range(..sent).count() as u64
    }

    /// Connects to `to` and sends it one message, which must come back. False if it does not in time.
    pub(super) async fn is_served(&self, to: &PeerAddress) -> bool {
        let served = async {
            self.node.connect(to).await.ok()?;
            let number = ask(&self.node, &self.counts, &to.public_key).await;
            while !self.counts.back.lock().contains(&number) {
                sleep(Duration::from_millis(5)).await;
            }
            Some(())
        };
        timeout(NEWCOMER_PATIENCE, served).await == Ok(Some(()))
    }

    /// Sends gossip to its peers.
    ///
    /// # Errors
    /// That it is sent to nobody.
    pub(super) async fn gossip(&self, text: &str) -> anyhow::Result<()> {
        let message = Message {
            message_type: 7,
            payload: text.as_bytes().to_vec().into(),
        };
        self.node.request(gossip_to_all(), message).await?;
        Ok(())
    }

    /// Number of messages received that are no answers and start like this.
    pub(super) fn received(&self, start: &[u8]) -> usize {
        let received = self.counts.received.lock();
        received
            .iter()
            .filter(|payload| payload.starts_with(start))
            .count()
    }

    /// Keys that this node has banned, with the reason.
    pub(super) fn bans(&self) -> Vec<(String, String)> {
        let bans = self.node.directory().banned(self.clock.now());
        let line = |ban: &Arc<dht_peers::Ban>| (ban.node_id.to_string(), ban.reason.to_string());
        bans.iter().map(line).collect()
    }
}

/// Sends one message that is to come back; its number.
async fn ask(node: &Node, counts: &Counts, to: &PublicKey) -> u64 {
    let number = counts.sent.fetch_add(1, Relaxed);
    let message = Message {
        message_type: 7,
        payload: [ECHO, number.to_string().as_bytes()].concat().into(),
    };
    // One that is refused does not come back, and counts.
    let _refused = node.send(to, message, SendOptions::default()).await;
    number
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
