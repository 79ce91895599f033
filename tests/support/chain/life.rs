//! One life of one of the three nodes.

use std::{fmt, io::BufRead as _, path::Path, process, str::FromStr, sync::Arc, thread};

use dht_core::{
    Address, Clock as _, Entropy as _, PeerAddress, PublicKey, SecretKey, SeededEntropy,
};
use dht_node::{Config, Delivery, Event, Message, Node, SendOptions, SendState, SystemClock};
use dht_spool::{DEFAULT_CONSUMER, Limit};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};

use super::line::{Line, message, number, say};

/// Rows that the consumer reads at once.
const ROWS: usize = 16;
/// Numbers read from standard input that the sender has not taken.
const NUMBERS: usize = 256;

/// Which of the three nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends the messages whose numbers come on standard input.
    Sender,
    /// Stores messages for the recipient.
    Holder,
    /// Has the inbox that the consumer reads.
    Recipient,
}

/// Where the three nodes are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Seed of their keys.
    pub seed: u64,
    /// TCP ports of sender, holder and recipient on this machine.
    pub ports: [u16; 3],
}

/// Runs a node in this process until it is killed or its standard input ends, and says what happens on standard output.
///
/// # Errors
/// When the node does not start.
pub async fn live(role: Role, network: &Network, home: &Path) -> Result<(), String> {
    let others = Role::ALL.into_iter().filter(|other| *other != role);
    let config = Config {
        listen: vec![network.address(role)],
        peers: others.map(|other| network.peer(other)).collect(),
        ..Config::default()
    };
    let started = Node::builder(network.secret(role))
        .config(config)
        .overlay(false)
        .home(home);
    let node = Arc::new(started.start().await.map_err(|error| error.to_string())?);
    say_or_end(&Line::Ready);
    let mut tasks = JoinSet::new();
    tasks.spawn(report(Arc::clone(&node)));
    if role == Role::Recipient {
        tasks.spawn(consume(Arc::clone(&node)));
    }
    let to = network.secret(Role::Recipient).public_key();
    let mut numbers = standard_input();
    while let Some(number) = numbers.recv().await {
        while tasks.try_join_next().is_some() {}
        tasks.spawn(send(Arc::clone(&node), to, number));
    }
    Ok(())
}

/// The numbers on standard input.
fn standard_input() -> mpsc::Receiver<u64> {
    let (sender, numbers) = mpsc::channel(NUMBERS);
    thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        for number in lines.filter_map(|line| line.parse().ok()) {
            if sender.blocking_send(number).is_err() {
                return;
            }
        }
    });
    numbers
}

/// Gives a message to the outbox, which may have it from an earlier life, and says when it is received or stored.
async fn send(node: Arc<Node>, to: PublicKey, number: u64) {
    let options = SendOptions {
        replicas: Some(1),
        key: Some(number.to_string()),
        ..SendOptions::default()
    };
    match node.send(&to, message(number), options).await {
        Ok(delivery) => follow(delivery, number).await,
        Err(error) => fault(format!("message {number} is not taken: {error}")),
    }
}

async fn follow(mut delivery: Delivery, number: u64) {
    let mut state = Some(delivery.state());
    while let Some(now) = state {
        match now {
            SendState::Stored { .. } | SendState::Received => {
                say_or_end(&Line::Acknowledged(number));
                return;
            }
            SendState::Queued | SendState::Sent => {}
            ended => fault(format!("message {number} ended as {ended:?}")),
        }
        state = delivery.next().await;
    }
    fault(format!(
        "message {number} was left as {:?}: {:?}",
        delivery.state(),
        delivery.last_error()
    ));
}

/// Reads and acks the inbox for ever.
async fn consume(node: Arc<Node>) {
    let Some(inbox) = node.inbox().cloned() else {
        return fault("there is no inbox".to_owned());
    };
    let mut newest = inbox.newest();
    loop {
        newest.mark_unchanged();
        let reading = inbox.clone();
        let limit = Limit {
            rows: ROWS,
            ..Limit::default()
        };
        let rows = spawn_blocking(move || reading.read(DEFAULT_CONSUMER, None, limit)).await;
        let rows = match rows {
            Ok(Ok(rows)) => rows,
            failed => return fault(format!("the inbox cannot be read: {failed:?}")),
        };
        let Some(last) = rows.last().map(|row| row.id) else {
            if newest.changed().await.is_err() {
                return;
            }
            continue;
        };
        let numbers: Vec<_> = rows
            .into_iter()
            .filter_map(|row| {
                let received = Message {
                    message_type: row.message.message_type,
                    payload: row.message.payload,
                };
                let number = number(&received);
                if number.is_none() {
                    fault("a message is not what was sent".to_owned());
                }
                number
            })
            .collect();
        numbers
            .iter()
            .for_each(|number| say_or_end(&Line::Read(*number)));
        match inbox.ack(DEFAULT_CONSUMER, last, SystemClock.now()).await {
            Ok(()) => numbers
                .iter()
                .for_each(|number| say_or_end(&Line::Acked(*number))),
            Err(error) => return fault(format!("the inbox takes no ack: {error}")),
        }
    }
}

/// Says what a healthy node does not do.
async fn report(node: Arc<Node>) {
    let mut events = node.events();
    while let Some(event) = events.recv().await {
        match event {
            Event::Banned(ban) => fault(format!("banned: {ban:?}")),
            Event::InboxRefused(error) => fault(format!("the inbox refuses messages: {error}")),
            Event::Failed { part, reason } => fault(format!("{part} failed: {reason}")),
            // A full inbox is told again within seconds, bans and failures once: the node knows of those.
            Event::Missed { .. } => {
                for ban in node.directory().banned(SystemClock.now()) {
                    fault(format!("banned: {ban:?}"));
                }
                for (part, reason) in node.failures() {
                    fault(format!("{part} failed: {reason}"));
                }
            }
            _ => {}
        }
    }
}

fn fault(text: String) {
    say_or_end(&Line::Fault(text));
}

/// Says a line; without anybody to hear it there is nothing left to do.
fn say_or_end(line: &Line) {
    if say(line).is_err() {
        process::exit(1);
    }
}

// === impl Role ===

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Sender, Self::Holder, Self::Recipient];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Sender => 0,
            Self::Holder => 1,
            Self::Recipient => 2,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "sender",
            Self::Holder => "holder",
            Self::Recipient => "recipient",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|role| role.to_string() == name);
        named.ok_or_else(|| format!("no such role: {name}"))
    }
}

// === impl Network ===

impl Network {
    fn secret(&self, role: Role) -> SecretKey {
        let mut rng = SeededEntropy::new(self.seed.wrapping_add(role.index() as u64)).rng();
        SecretKey::random(&mut rng)
    }

    fn address(&self, role: Role) -> Address {
        let port = self.ports.get(role.index()).copied().unwrap_or_default();
        Address::tcp(std::net::Ipv4Addr::LOCALHOST.into(), port)
    }

    fn peer(&self, role: Role) -> PeerAddress {
        PeerAddress {
            public_key: self.secret(role).public_key(),
            addresses: vec![self.address(role)],
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sender, holder, recipient] = self.ports;
        write!(f, "{}:{sender}:{holder}:{recipient}", self.seed)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a network: {text}");
        let (seed, ports) = text.split_once(':').ok_or_else(wrong)?;
        let ports = ports.split(':').map(str::parse);
        let ports: Vec<u16> = ports.collect::<Result<_, _>>().map_err(|_| wrong())?;
        Ok(Self {
            seed: seed.parse().map_err(|_| wrong())?,
            ports: ports.try_into().map_err(|_| wrong())?,
        })
    }
}
