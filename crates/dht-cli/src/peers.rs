//! `peers`, `discover` and `ping`: the peers of the running node.

use std::time::Duration;

use clap::{Args, Subcommand};
use dht_api::{
    ClientError,
    types::{Done, PeerEntry, PeerFound},
};
use dht_core::{NodeId, PeerAddress, PublicKey};
use tokio::time::timeout;

use crate::{
    exit::Failure,
    home::Home,
    number::number,
    output::{self, print, printable},
    progress::shown,
    session::{refused, running},
    target::{KnownPeer, Recipient, dialled},
};

/// `dht-node peers`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dht-node peers list --home a --all\n  \
    dht-node peers show --home a KEY\n  dht-node peers add --home a KEY::ADDR\n  dht-node peers remove --home a KEY\n  \
    dht-node peers allow --home a KEY")]
pub(crate) struct Peers {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the connected peers, or all that are known.
    List(List),
    /// Print what is known of one peer.
    Show(One),
    /// Connect to a peer, which the node knows from then on.
    Add(Add),
    /// Forget a peer and close its connection; a ban of it stays.
    Remove(One),
    /// Print the allow list, add a peer to it or take one off: peers on it are never banned, and always stay known.
    Allow(Allow),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node peers list --home a\n  dht-node peers list --home a --all --json"
)]
struct List {
    #[command(flatten)]
    home: Home,
    /// Print all known peers instead of the connected ones: anchors, which are tried first after a restart, other known ones, and
    /// those this node only heard of.
    #[arg(long)]
    all: bool,
    /// Node id of the last peer of the list before: print those after it.
    #[arg(long, value_name = "ID")]
    after: Option<NodeId>,
    /// Most lines to print, 1 to 1000.
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true, value_parser = number::<u64>(1..=1000))]
    limit: u64,
    /// Print one JSON object with all of them.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node peers show --home a KEY\n  dht-node peers remove --home a KEY"
)]
struct One {
    #[command(flatten)]
    home: Home,
    /// Public key or node id of the peer.
    #[arg(value_name = "KEY|ID")]
    peer: KnownPeer,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dht-node peers add --home a KEY::/ip4/203.0.113.7/tcp/18189")]
struct Add {
    #[command(flatten)]
    home: Home,
    /// The peer, as printed by `dht-node id --address`.
    #[arg(value_name = "KEY::ADDR", value_parser = dialled)]
    peer: PeerAddress,
    /// Give up after this many seconds, 1 to 300.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number::<u64>(1..=300))]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node peers allow --home a\n  dht-node peers allow --home a KEY\n  \
    dht-node peers allow --home a KEY --remove"
)]
struct Allow {
    #[command(flatten)]
    home: Home,
    /// Public key or node id of the peer; without it the list is printed.
    #[arg(value_name = "KEY|ID")]
    peer: Option<KnownPeer>,
    /// Take the peer off the list.
    #[arg(long, requires = "peer")]
    remove: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `dht-node discover`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node discover --home a KEY\n  dht-node discover --home a KEY --timeout 20 --json"
)]
pub(crate) struct Discover {
    #[command(flatten)]
    home: Home,
    /// Public key of the node to search for.
    key: PublicKey,
    /// Give up after this many seconds, 1 to 300.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number::<u64>(1..=300))]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `dht-node ping`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node ping --home a KEY\n  dht-node ping --home a KEY::ADDR"
)]
pub(crate) struct Ping {
    #[command(flatten)]
    home: Home,
    /// The peer: its public key, or KEY::ADDR if the node does not know it.
    #[arg(value_name = "KEY[::ADDR]")]
    peer: Recipient,
    /// Give up after this many seconds, 1 to 300.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number::<u64>(1..=300))]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The answer to a request within a number of seconds, with the progress of a slow one.
async fn answer<T>(
    seconds: u64,
    what: &str,
    request: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    let limit = Duration::from_secs(seconds);
    match shown(what, timeout(limit, request)).await {
        Ok(answer) => answer.map_err(|error| refused(&error)),
        Err(_late) => Err(Failure::unreachable(format!(
            "{what}: no answer within {limit:?}; see --timeout"
        ))),
    }
}

impl Peers {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Show(one) => {
                let client = running(&one.home).await?;
                let peer = client.peer(one.peer.as_str()).await;
                show(&peer.map_err(|error| refused(&error))?, one.json).await
            }
            Command::Add(add) => add.run().await,
            Command::Remove(one) => {
                let client = running(&one.home).await?;
                let removed = client.remove_peer(one.peer.as_str()).await;
                let peer = one.peer.as_str();
                let told = [format!("removed {peer}"), format!("{peer} was not known")];
                tell(removed, one.json, told).await
            }
            Command::Allow(allow) => allow.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let client = running(&self.home).await?;
        let peers = client
            .peers(self.all, self.after, usize::try_from(self.limit).ok())
            .await;
        let list = peers.map_err(|error| refused(&error))?;
        if self.json {
            return print(output::json(&list)?).await;
        }
        for peer in &list.peers {
            print(line(peer)).await?;
        }
        Ok(())
    }
}

impl Add {
    async fn run(self) -> Result<(), Failure> {
        let client = running(&self.home).await?;
        let reached = client.ping(self.peer.to_string());
        answer(self.timeout, "connecting", reached).await?;
        let peer = client.peer(&self.peer.public_key.to_string()).await;
        show(&peer.map_err(|error| refused(&error))?, self.json).await
    }
}

impl Allow {
    async fn run(self) -> Result<(), Failure> {
        let client = running(&self.home).await?;
        match (self.peer, self.remove) {
            (Some(peer), false) => {
                let (allowed, peer) = (client.allow(peer.as_str()).await, peer.as_str());
                let told = [
                    format!("put {peer} on the allow list"),
                    format!("{peer} was on the allow list"),
                ];
                tell(allowed, self.json, told).await
            }
            (Some(peer), true) => {
                let (taken, peer) = (client.disallow(peer.as_str()).await, peer.as_str());
                let told = [
                    format!("took {peer} off the allow list"),
                    format!("{peer} was not on the allow list"),
                ];
                tell(taken, self.json, told).await
            }
            (None, _) => {
                let list = client.allowed().await.map_err(|error| refused(&error))?;
                if self.json {
                    return print(output::json(&list)?).await;
                }
                for allowed in &list.allowed {
                    print(allowed.peer.clone()).await?;
                }
                Ok(())
            }
        }
    }
}

/// Prints whether a request changed something, in one of two texts.
async fn tell(
    done: Result<Done, ClientError>,
    as_json: bool,
    [changed, unchanged]: [String; 2],
) -> Result<(), Failure> {
    let done = done.map_err(|error| refused(&error))?;
    print(match (as_json, done.changed) {
        (true, _) => output::json(&done)?,
        (false, true) => changed,
        (false, false) => unchanged,
    })
    .await
}

impl Discover {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let client = running(&self.home).await?;
        let found = client.discover(&self.key);
        let found = answer(self.timeout, "searching", found).await?;
        show(&found, self.json).await
    }
}

impl Ping {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let client = running(&self.home).await?;
        let pong = client.ping(self.peer.to_string());
        let pong = answer(self.timeout, "pinging", pong).await?;
        if self.json {
            return print(output::json(&pong)?).await;
        }
        let connected = pong.dial_micros.map_or_else(
            || "was connected".to_owned(),
            |micros| format!("connected in {}", milliseconds(micros)),
        );
        let (id, time) = (pong.node_id, milliseconds(pong.round_trip_micros));
        print(format!("{id} {connected}, round trip {time}")).await
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

async fn show(found: &PeerFound, as_json: bool) -> Result<(), Failure> {
    let text = if as_json {
        output::json(found)?
    } else {
        line(&found.peer)
    };
    print(text).await
}

fn line(peer: &PeerEntry) -> String {
    let state = match peer {
        _ if peer.is_banned => "banned",
        _ if peer.is_connected => "connected",
        _ if peer.is_anchor => "anchor",
        _ if peer.is_proven => "known",
        _ => "heard of",
    };
    let (id, key) = (peer.node_id, peer.public_key);
    let addresses = printable(&peer.addresses.join(" "));
    format!("{id} {key} {state:<9} {addresses}")
}
