//! Messages for an offline peer: a recipient stops, messages are sent to it, half of their holders restart, it returns.

use std::{collections::BTreeMap, path::Path, time::Duration};

use dht_core::{Address, Network, PublicKey, SecretKey};
use dht_node::{Message, Node, SafEvent, SendOptions, SendState, Subscription};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::tally;
use crate::exit::Failure;

/// Messages sent to the recipient while it is offline.
const MESSAGES: i32 = 50;
/// Nodes that store them.
const HOLDERS: usize = 6;
/// Longest time of one step.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time after the last expected message in which a second copy would be noticed.
const LISTEN_ON: Duration = Duration::from_millis(500);
const BYTES: usize = 4096;

/// Counts of this part.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Offline {
    sent: u64,
    delivered: u64,
    /// Deliveries of one message beyond the first.
    duplicated: u64,
    /// Deliveries with a wrong content or sender.
    altered: u64,
    holders: usize,
    restarted: usize,
    /// Copies that holders confirmed to the sender.
    acknowledged: u64,
    /// Copies that the holders had when the recipient returned.
    stored: u64,
    asked: u64,
    answered: u64,
    silent: u64,
    /// Copies of messages that the recipient already had from another holder.
    known: u64,
    seconds: f64,
}

impl Offline {
    pub(crate) const fn is_flawless(&self) -> bool {
        self.delivered == self.sent && self.duplicated == 0 && self.altered == 0
    }

    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "offline",
                format!("{} of {} delivered after return", self.delivered, self.sent),
            ),
            ("delivered twice", self.duplicated.to_string()),
            (
                "holders",
                format!(
                    "{}, {} restarted; {} copies confirmed, {} stored on return",
                    self.holders, self.restarted, self.acknowledged, self.stored
                ),
            ),
            (
                "requests on return",
                format!(
                    "{}, {} answered, {} silent, {} copies already known",
                    self.asked, self.answered, self.silent, self.known
                ),
            ),
            ("offline time", format!("{:.2} s", self.seconds)),
        ]
    }
}

pub(super) async fn run(seed: u64) -> Result<Offline, Failure> {
    let start = Instant::now();
    let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 0x0ff1);
    let homes = tempfile::tempdir()
        .map_err(|error| Failure::other(format!("cannot make a folder for the homes: {error}")))?;
    let keys: Vec<SecretKey> = (0..HOLDERS + 2)
        .map(|_| SecretKey::random(&mut rng))
        .collect();
    let mut nodes = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        nodes.push(node(homes.path(), index, key).await?);
    }
    for one in &nodes {
        for other in &nodes {
            one.add_peer(&other.peer_address());
        }
    }
    let (Some(recipient), Some(sender)) = (nodes.pop(), nodes.pop()) else {
        return Err(Failure::other("too few nodes".to_owned()));
    };
    let mut holders = nodes;

    // The recipient connects once, then stops.
    for holder in &holders {
        connect(&sender, holder).await?;
        connect(&recipient, holder).await?;
    }
    let to = *recipient.public_key();
    recipient.shutdown().await;
    drop(recipient);
    until(|| holders.iter().all(|holder| !knows(holder, &to))).await;

    let mut acknowledged = 0;
    let sends = (1..=MESSAGES).map(|number| {
        let message = Message {
            message_type: number,
            payload: tally::content(number, BYTES, seed),
        };
        send_stored(&sender, &to, message)
    });
    for copies in futures::future::join_all(sends).await {
        acknowledged += copies.map_err(Failure::unreachable)?;
    }
    let each = u64::from(MESSAGES.unsigned_abs());
    until(|| holders.iter().all(|holder| rows(holder) >= each)).await;

    // Half of the holders restart.
    let restarted = HOLDERS / 2;
    for (index, key) in keys.iter().enumerate().take(restarted) {
        let holder = holders.remove(0);
        holder.shutdown().await;
        drop(holder);
        holders.push(node(homes.path(), index, key).await?);
    }
    let stored = holders.iter().map(rows).sum();

    let key = keys
        .last()
        .ok_or_else(|| Failure::other("no key".to_owned()))?;
    let recipient = node(homes.path(), keys.len() - 1, key).await?;
    let mut events = recipient.saf_events();
    let inbox = recipient.subscribe();
    for holder in &holders {
        connect(&recipient, holder).await?;
    }
    let mut outcome = collect(inbox, seed, sender.public_key()).await;
    while let Some(events) = &mut events
        && let Ok(event) = events.try_recv()
    {
        if let SafEvent::CaughtUp(summary) = event {
            outcome.asked += summary.asked;
            outcome.answered += summary.answered;
            outcome.silent += summary.silent;
            outcome.known += summary.known;
        }
    }
    recipient.shutdown().await;
    sender.shutdown().await;
    for holder in holders {
        holder.shutdown().await;
    }
    Ok(Offline {
        sent: each,
        holders: HOLDERS,
        restarted,
        acknowledged,
        stored,
        seconds: start.elapsed().as_secs_f64(),
        ..outcome
    })
}

async fn node(homes: &Path, index: usize, key: &SecretKey) -> Result<Node, Failure> {
    Node::builder(key.clone())
        .network(Network::LocalNet)
        // The holders of each message are counted: the nodes are connected to those only that the demo connects them to.
        .overlay(false)
        .home(homes.join(index.to_string()))
        .listen(Address::tcp([127, 0, 0, 1].into(), 0))
        .start()
        .await
        .map_err(|error| Failure::listen(error.to_string()))
}

/// Sends a message and waits until all holders have confirmed a copy, or a while has passed; answers how many have.
async fn send_stored(sender: &Node, to: &PublicKey, message: Message) -> Result<u64, String> {
    let options = SendOptions {
        replicas: u8::try_from(HOLDERS).ok(),
        ..SendOptions::default()
    };
    let sent = sender.send(to, message, options).await;
    let mut delivery = sent.map_err(|error| error.to_string())?;
    let mut state = delivery.state();
    let wanted = u32::try_from(HOLDERS).unwrap_or(u32::MAX);
    let stored = async {
        while state != (SendState::Stored { holders: wanted })
            && let Some(further) = delivery.next().await
        {
            state = further;
        }
    };
    let _in_time = timeout(PATIENCE, stored).await;
    match state {
        SendState::Stored { holders } => Ok(u64::from(holders)),
        state => Err(format!("a message is not stored: {state:?}")),
    }
}

async fn connect(from: &Node, to: &Node) -> Result<(), Failure> {
    from.connect(&to.peer_address())
        .await
        .map_err(|error| Failure::unreachable(format!("a node cannot be reached: {error}")))
}

/// Counts arrivals until all messages are there and no second copy follows, or none arrives for [`PATIENCE`].
async fn collect(mut inbox: Subscription, seed: u64, from: &PublicKey) -> Offline {
    let mut outcome = Offline::default();
    let mut times = BTreeMap::<i32, u64>::new();
    let wanted = usize::try_from(MESSAGES).unwrap_or_default();
    loop {
        let patience = if times.len() < wanted {
            PATIENCE
        } else {
            LISTEN_ON
        };
        let Ok(Some(received)) = timeout(patience, inbox.recv()).await else {
            break;
        };
        let number = received.message.message_type;
        let same = received.message.payload == tally::content(number, BYTES, seed);
        outcome.altered += u64::from(!same || received.sender.as_ref() != Some(from));
        *times.entry(number).or_default() += 1;
    }
    outcome.delivered = times.len() as u64;
    outcome.duplicated = times.values().map(|count| count - 1).sum();
    outcome
}

fn knows(node: &Node, key: &PublicKey) -> bool {
    node.peers().iter().any(|peer| peer.public_key == *key)
}

fn rows(node: &Node) -> u64 {
    node.saf_stats().map_or(0, |stats| stats.rows)
}

/// Polls until `reached`. Gives up after [`PATIENCE`]: the outcome shows what is missing.
async fn until(mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
