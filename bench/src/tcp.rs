//! Two nodes in this process over loopback TCP, sealed, through both stacks.

use std::sync::Arc;

use anyhow::Context as _;
use dht_core::{
    Address, Clock as _, Entropy as _, Features, Network, NodeIdentity, SecretKey, SharedClock,
};
use dht_node::{Message, Node, OsEntropy, SendOptions, Subscription, SystemClock};
use dht_stack::ByteBudget;
use dht_transport::{Outlets, Transport};
use tokio::task::JoinSet;

use crate::{
    primitives::Floors,
    report::{Report, Row},
    sample::{Effort, median, now},
};

/// Callers that send at one time.
const CALLERS: usize = 32;

pub(crate) fn run(report: &mut Report, effort: Effort, floors: &Floors) -> anyhow::Result<()> {
    if !report.wants("tcp.") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let samples = |sample: &mut dyn FnMut() -> anyhow::Result<f64>| -> anyhow::Result<f64> {
        Ok(median(
            (0..effort.samples)
                .map(|_| sample())
                .collect::<anyhow::Result<_>>()?,
        ))
    };
    let mut pair = runtime.block_on(Pair::start())?;

    // Two cores share one sealing and one opening.
    let both = |bytes: usize| 2e6 / (floors.seal(bytes) + floors.open(bytes));
    let messages = effort.messages / 2;
    let value = samples(&mut || runtime.block_on(pair.one_way(messages, 1_000)))?;
    let row = Row::new(
        "tcp.messages_1k",
        "messages/s",
        "one 1 kB message sealed, sent, opened and delivered, both nodes on these two cores",
    );
    report.row(row.floor(both(6_016)).target(11_000.0), || value);

    let large = effort.messages / 8;
    let value = samples(&mut || runtime.block_on(pair.one_way(large, 64_000)))?;
    let row = Row::new("tcp.mbytes_64k", "MB/s", "the same with 64 kB messages");
    let floor = both(66_016) * 0.064;
    report.row(row.floor(floor).target(200.0), || value * 0.064);

    let mut pair = Some(pair);
    let trips = (effort.messages / 20).max(20);
    // On a worker, where applications run: the thread that blocks on the runtime is woken through the kernel.
    let value = samples(&mut || {
        runtime.block_on(async {
            let taken = pair.take().context("the pair is lost")?;
            let (ended, back) = tokio::spawn(taken.round_trip(trips)).await?;
            pair = Some(back);
            ended
        })
    })?;
    let floor = 2.0 * (floors.seal(6_016) + floors.open(6_016)) / 1e3;
    let row = Row::new("tcp.round_trip", "ms", "a 1 kB message and its answer");
    report.row(row.floor(floor).target(0.7), || value);
    if let Some(pair) = pair {
        runtime.block_on(pair.stop());
    }

    let dials = (effort.messages / 60).max(5);
    let value = samples(&mut || runtime.block_on(handshakes(dials)))?;
    let row = Row::new(
        "tcp.handshake",
        "ms",
        "from dialling to a connection that carries messages",
    );
    report.row(row.floor(floors.handshake() / 1e3).target(1.0), || value);
    Ok(())
}

struct Pair {
    alice: Arc<Node>,
    bob: Arc<Node>,
    to_alice: Subscription,
    to_bob: Subscription,
}

impl Pair {
    async fn start() -> anyhow::Result<Self> {
        let alice = Arc::new(node().await?);
        let bob = Arc::new(node().await?);
        alice
            .connect(&bob.peer_address())
            .await
            .context("alice cannot reach bob")?;
        let (to_alice, to_bob) = (alice.subscribe(), bob.subscribe());
        Ok(Self {
            alice,
            bob,
            to_alice,
            to_bob,
        })
    }

    /// Messages per second from the first send to the last arrival.
    async fn one_way(&mut self, messages: usize, bytes: usize) -> anyhow::Result<f64> {
        let start = now();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (alice, bob) = (Arc::clone(&self.alice), *self.bob.public_key());
            callers.spawn(async move {
                for _ in (caller..messages).step_by(CALLERS) {
                    let message = Message {
                        message_type: 1,
                        payload: vec![7; bytes].into(),
                    };
                    let sent = alice.send(&bob, message, SendOptions::default()).await;
                    if let Err(error) = sent {
                        eprintln!("not sent: {error}");
                    }
                }
            });
        }
        for _ in 0..messages {
            self.to_bob.recv().await.context("bob stopped")?;
        }
        let seconds = start.elapsed().as_secs_f64();
        while callers.join_next().await.is_some() {}
        Ok(messages as f64 / seconds)
    }

    /// Median milliseconds of a 1 kB message and its answer, one after the other.
    async fn round_trip(mut self, trips: usize) -> (anyhow::Result<f64>, Self) {
        (self.trips(trips).await, self)
    }

    async fn trips(&mut self, trips: usize) -> anyhow::Result<f64> {
        let message = || Message {
            message_type: 1,
            payload: vec![7; 1_000].into(),
        };
        let (alice, bob) = (*self.alice.public_key(), *self.bob.public_key());
        let mut times = Vec::with_capacity(trips);
        for _ in 0..trips {
            let start = now();
            self.alice
                .send(&bob, message(), SendOptions::default())
                .await?;
            self.to_bob.recv().await.context("bob stopped")?;
            self.bob
                .send(&alice, message(), SendOptions::default())
                .await?;
            self.to_alice.recv().await.context("alice stopped")?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(times))
    }

    async fn stop(self) {
        tokio::join!(self.alice.shutdown(), self.bob.shutdown());
    }
}

async fn node() -> anyhow::Result<Node> {
    let node = Node::builder(SecretKey::random(&mut OsEntropy.rng()))
        .overlay(false)
        .listen(Address::tcp([127, 0, 0, 1].into(), 0))
        .start()
        .await?;
    Ok(node)
}

/// Median milliseconds from dialling to a usable connection, one after the other.
async fn handshakes(dials: usize) -> anyhow::Result<f64> {
    let (listener, (identity, mut outlets)) = transport()?;
    let address = listener
        .listen(&Address::tcp([127, 0, 0, 1].into(), 0))
        .await?;
    let key = *identity.public_key();
    let mut times = Vec::with_capacity(dials);
    let drain = tokio::spawn(async move { while outlets.events.recv().await.is_some() {} });
    for _ in 0..dials {
        let (dialler, _outlets) = transport()?;
        let start = now();
        dialler.dial(&key, std::slice::from_ref(&address)).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    drain.abort();
    Ok(median(times))
}

type Started = (Arc<NodeIdentity>, Outlets);

/// A transport with an identity of its own.
fn transport() -> anyhow::Result<(Transport, Started)> {
    let clock: SharedClock = Arc::new(SystemClock);
    let mut rng = OsEntropy.rng();
    let address = Address::tcp([127, 0, 0, 1].into(), 18_189);
    let secret = SecretKey::random(&mut rng);
    let identity = NodeIdentity::new(secret, Features::NODE, vec![address], clock.now(), &mut rng);
    let identity = Arc::new(identity);
    let (transport, outlets) = Transport::builder(
        Arc::clone(&identity),
        Network::LocalNet,
        Arc::new(OsEntropy),
        clock,
        ByteBudget::new(1 << 20),
    )
    .start()?;
    Ok((transport, (identity, outlets)))
}
