//! Starts the nodes, waits until they have found each other from one seed, and sends the messages.

use std::{sync::Arc, time::Duration};

use dht_core::{Address, Destination, Network, PublicKey, SecretKey};
use dht_node::{DEFAULT_NEIGHBOURS, Message, Node, SendOptions, StateKind};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    Outcome, gossip,
    tally::{self, Tally},
};
use crate::exit::Failure;

/// Longest time in which the nodes find each other.
const FORMING: Duration = Duration::from_secs(120);
/// Time without an arrival after which the missing messages count as lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages being sent at one time.
const IN_FLIGHT: usize = 64;
const MAX_BYTES: u64 = 256 * 1024;

pub(super) async fn run(nodes: u16, messages: u32, seed: u64) -> Result<Outcome, Failure> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let bar = progress(u64::from(messages));
    bar.set_message("starting nodes");
    let network = start(nodes, &mut rng).await?;
    let tally = Arc::new(Tally::default());
    let mut applications = JoinSet::new();
    for (index, node) in network.iter().enumerate() {
        let inbox = node.subscribe();
        applications.spawn(gossip::application(
            index,
            Arc::clone(node),
            inbox,
            Arc::clone(&tally),
        ));
    }
    let mesh = formed(&network, &bar).await?;

    let start = Instant::now();
    bar.set_message("sending");
    let watched = Arc::clone(&tally);
    let shown = bar.clone();
    let watcher = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shown.set_message(format!("{} arrivals", watched.delivered()));
        }
    });
    send_all(&network, messages, seed, &mut rng, &tally, &bar).await;
    tally.settled(PATIENCE).await;
    let seconds = start.elapsed().as_secs_f64();
    watcher.abort();
    bar.finish_and_clear();

    let mut outcome = Outcome {
        nodes,
        mesh_seconds: mesh.seconds,
        connections_per_node: mesh.connections as f64 / f64::from(nodes),
        seconds,
        ..tally.outcome()
    };
    for node in &network {
        let stats = node.stats();
        outcome.duplicates_dropped += stats.duplicates_dropped;
        outcome.bytes_on_wire += stats.bytes_sent;
        outcome.handshakes += stats.handshakes;
    }
    applications.abort_all();
    while applications.join_next().await.is_some() {}
    // The others would miss the seed, which is their configured peer.
    let mut network = network.into_iter();
    let seed = network.next();
    let mut stopping: JoinSet<_> = network
        .map(|node| async move { node.shutdown().await })
        .collect();
    while stopping.join_next().await.is_some() {}
    if let Some(seed) = seed {
        seed.shutdown().await;
    }
    Ok(outcome)
}

/// Starts the nodes. Each knows the first one only.
async fn start(nodes: u16, rng: &mut ChaCha12Rng) -> Result<Vec<Arc<Node>>, Failure> {
    let mut network: Vec<Arc<Node>> = Vec::with_capacity(usize::from(nodes));
    for _ in 0..nodes {
        let mut builder = Node::builder(SecretKey::random(rng))
            .network(Network::LocalNet)
            .listen(Address::tcp([127, 0, 0, 1].into(), 0));
        if let Some(seed) = network.first() {
            builder = builder.peer(seed.peer_address());
        }
        let started = builder.start().await;
        let node = started.map_err(|error| Failure::listen(error.to_string()))?;
        network.push(Arc::new(node));
    }
    Ok(network)
}

/// Shape of the network when it had formed.
struct Mesh {
    seconds: f64,
    /// Connections of all nodes.
    connections: usize,
}

/// Waits until each node has found as many neighbours as it wants, or all others.
async fn formed(network: &[Arc<Node>], bar: &ProgressBar) -> Result<Mesh, Failure> {
    let start = Instant::now();
    let wanted = DEFAULT_NEIGHBOURS.min(network.len() - 1);
    let has_formed = |node: &&Arc<Node>| {
        let overlay = node.overlay();
        overlay.is_some_and(|overlay| overlay.neighbours.len() >= wanted)
    };
    loop {
        let formed = network.iter().filter(has_formed).count();
        let links = network.iter().map(|node| node.stats().connections);
        let connections = links.sum::<usize>();
        if formed == network.len() {
            return Ok(Mesh {
                seconds: start.elapsed().as_secs_f64(),
                connections,
            });
        }
        if start.elapsed() > FORMING {
            return Err(Failure::unreachable(format!(
                "only {formed} of {} nodes found {wanted} neighbours within {} s",
                network.len(),
                FORMING.as_secs()
            )));
        }
        bar.set_message(format!(
            "mesh: {formed} of {} nodes have their neighbours, {} links",
            network.len(),
            connections / 2
        ));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn send_all(
    network: &[Arc<Node>],
    messages: u32,
    seed: u64,
    rng: &mut ChaCha12Rng,
    tally: &Tally,
    bar: &ProgressBar,
) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut sending = JoinSet::new();
    for number in 1..=i32::try_from(messages).unwrap_or(i32::MAX) {
        let (from, to) = two_different(rng, network.len());
        let (Some(node), Some(recipient)) = (network.get(from), network.get(to)) else {
            continue;
        };
        let (node, recipient) = (Arc::clone(node), *recipient.public_key());
        let bytes = random_size(rng);
        let gossiped = number % 4 == 0;
        let number = if gossiped { -number } else { number };
        let payload = tally::content(number, bytes, seed);
        if gossiped {
            tally.sent(number, payload.clone(), None, network.len() as u64 - 1);
        } else {
            tally.sent(number, payload.clone(), Some(*node.public_key()), 1);
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let bar = bar.clone();
        sending.spawn(async move {
            let message = Message {
                message_type: number,
                payload,
            };
            let sent = if gossiped {
                node.propagate(Destination::Unknown, message, Vec::new())
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            } else {
                sent(&node, &recipient, message).await
            };
            if let Err(error) = sent {
                // The message is missing from the tally, which decides the outcome.
                tracing::warn!(number, %error, "not sent");
            }
            bar.inc(1);
            drop(slot);
        });
    }
    while sending.join_next().await.is_some() {}
}

/// Sends a message, and waits until it has left or can no longer.
async fn sent(node: &Node, to: &PublicKey, message: Message) -> Result<(), String> {
    let sent = node.send(to, message, SendOptions::default()).await;
    let mut delivery = sent.map_err(|error| error.to_string())?;
    let sent = delivery.wait(StateKind::Sent).await;
    sent.map(drop).map_err(|error| error.to_string())
}

/// A size between 1 B and 256 KiB, with each order of magnitude equally likely.
fn random_size(rng: &mut ChaCha12Rng) -> usize {
    let magnitude = 1 << (rng.next_u64() % 19);
    let size = 1 + rng.next_u64() % magnitude;
    usize::try_from(size.min(MAX_BYTES)).unwrap_or(1)
}

fn below(rng: &mut ChaCha12Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap_or(0)
}

fn two_different(rng: &mut ChaCha12Rng, bound: usize) -> (usize, usize) {
    let first = below(rng, bound);
    (first, (first + 1 + below(rng, bound - 1)) % bound)
}

fn progress(messages: u64) -> ProgressBar {
    // indicatif hides the bar if stderr is not a terminal.
    let bar = ProgressBar::with_draw_target(Some(messages), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} sent, {msg} ({elapsed})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
