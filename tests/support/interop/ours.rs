//! One of our nodes as a process: the twin of the programs under `tests/interop/reference`.

use std::{
    collections::{HashSet, VecDeque},
    io::Write as _,
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use dht_core::{
    Clock as _, Destination, Encryption, Features, Network, PeerAddress, PublicKey, SendBuilder,
    SendParams,
};
use dht_node::{Config, Event as NodeEvent, Message, Node, SendOptions, StateKind, SystemClock};
use dht_outbound::Deliveries;
use dht_peers::PeerFilter;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::control::{
    Command, Event, Form, Known, Line, Message as Arrived, Numbered, Ready, Reply, Send, Sent,
    Setup, fingerprint, payload,
};

/// The hidden flag that makes a program the node.
pub const FLAG: &str = "--node";

/// Type of the messages that are sent.
const MESSAGE_TYPE: i32 = 7;

/// Messages whose delivery is awaited; a peer's queue takes a few hundred.
const IN_FLIGHT: usize = 64;

/// Runs a node until standard input ends or says [`Command::Stop`].
///
/// # Errors
/// That it does not start, or a line is no command.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut lines = std::io::stdin().lines();
    let setup: Setup = serde_json::from_str(&lines.next().context("no setup")??)?;
    let node = Arc::new(runtime.block_on(start(setup))?);
    let mut inbox = node.subscribe();
    runtime.spawn(async move {
        while let Some(received) = inbox.recv().await {
            print(&Line::Event(Event::Message(Arrived {
                from: received.sender.map(|key| key.to_string()),
                via: received.via.to_string(),
                message_type: received.message.message_type,
                bytes: received.message.payload.len(),
                hash: fingerprint(&received.message.payload),
            })));
        }
    });
    runtime.spawn(watch(Arc::clone(&node)));
    let key = node.public_key().to_string();
    print(&Line::Ready {
        ready: Ready { key },
    });
    for line in lines {
        let Numbered { id, command } = serde_json::from_str(&line?)?;
        if matches!(command, Command::Stop) {
            break;
        }
        let node = Arc::clone(&node);
        runtime.spawn(async move {
            let (ok, err) = match act(&node, command).await {
                Ok(value) => (value, None),
                Err(error) => (Value::Null, Some(format!("{error:#}"))),
            };
            print(&Line::Reply(Reply { id, ok, err }));
        });
    }
    runtime.block_on(node.shutdown());
    print(&Line::Event(Event::Stopped));
    Ok(())
}

async fn start(setup: Setup) -> anyhow::Result<Node> {
    let network = Network::ALL
        .into_iter()
        .find(|network| network.wire_byte() == setup.network);
    let mut config = Config {
        network: network.context("no network has this byte")?,
        listen: setup
            .listen
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?,
        relay_gossip: setup.relay,
        ..Config::default()
    };
    config.transport.liveness_sessions = setup.liveness_sessions;
    for claim in setup.claims.iter().flatten() {
        config.public_addresses.push(claim.parse()?);
    }
    let features = match setup.client {
        true => Features::CLIENT,
        false => Features::NODE,
    };
    let builder = Node::builder(setup.key.parse()?)
        .config(config)
        .overlay(setup.overlay);
    let node = builder.features(features).home(setup.home).start().await?;
    for seed in &setup.seeds {
        node.add_peer(&address(seed)?);
    }
    Ok(node)
}

async fn act(node: &Node, command: Command) -> anyhow::Result<Value> {
    let now = SystemClock.now();
    match command {
        Command::Add(known) => node.add_peer(&address(&known)?),
        Command::Dial { key } => node.connect(&known(node, key.parse()?)?).await?,
        Command::Disconnect { key } => {
            let known = known(node, key.parse()?)?;
            node.remove_peer(&known.public_key.node_id());
            node.add_peer(&known);
        }
        Command::Join => {
            let (sent, _) = node.join().await?.wait_all().await;
            return Ok(json!({ "sent": sent.len() }));
        }
        Command::Discover { key } => node.discover(&key.parse()?).await?,
        Command::Fetch => {
            let summary = node.fetch_stored().await?;
            return Ok(format!("{summary:?}").into());
        }
        Command::Send(messages) => return send(node, messages).await,
        Command::Peers => {
            let known = node
                .directory()
                .list(usize::MAX, &PeerFilter::everybody(now));
            let keys = known.iter().map(|peer| peer.public_key().to_string());
            return Ok(keys.collect::<Vec<_>>().into());
        }
        Command::Connections => {
            let peers = node.peers();
            let ids = peers.iter().map(|peer| peer.node_id.to_string());
            return Ok(ids.collect::<Vec<_>>().into());
        }
        Command::Bans => {
            let bans = node.directory().banned(now);
            let bans = bans.iter().map(|ban| {
                let key = ban.public_key.map(|key| key.to_string());
                json!({ "key": key, "reason": *ban.reason })
            });
            return Ok(bans.collect::<Vec<_>>().into());
        }
        Command::Stop => {}
    }
    Ok(Value::Null)
}

/// Sends messages and waits until the node knows what became of them.
async fn send(node: &Node, send: Send) -> anyhow::Result<Value> {
    let mut total = Sent::default();
    let mut waiting = VecDeque::new();
    let settle = async |total: &mut Sent, deliveries: Deliveries| {
        let mut outcomes = deliveries.into_stream();
        while let Some(outcome) = outcomes.next().await {
            match outcome.result {
                Ok(()) => total.sent += 1,
                Err(error) => {
                    total.failed += 1;
                    *total.errors.entry(error.to_string()).or_default() += 1;
                }
            }
        }
    };
    for number in 0..send.count {
        let label = format!("{}{number}", send.label);
        let message = Message::new(MESSAGE_TYPE, payload(&label, send.bytes));
        if send.form == Form::Outbox {
            let to = recipient(&send)?;
            let mut delivery = node.send(&to, message, SendOptions::default()).await?;
            delivery.wait(StateKind::Sent).await?;
            total.sent += 1;
            continue;
        }
        waiting.push_back(node.request(params(&send)?, message).await?);
        if waiting.len() == IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            settle(&mut total, oldest).await;
        }
    }
    for deliveries in waiting {
        settle(&mut total, deliveries).await;
    }
    Ok(serde_json::to_value(total)?)
}

fn params(send: &Send) -> anyhow::Result<SendParams> {
    let encrypted = |params: SendBuilder, to: PublicKey| {
        let params = params.with_encryption(Encryption::EncryptFor(to));
        params.with_destination(Destination::PublicKey(to))
    };
    let direct = |to| {
        SendParams::builder()
            .direct_public_key(to)
            .with_discovery(send.discover)
    };
    let params = match send.form {
        Form::Clear => direct(recipient(send)?),
        Form::Signed => direct(recipient(send)?).force_origin(),
        Form::Encrypted => {
            let to = recipient(send)?;
            encrypted(direct(to), to)
        }
        Form::Broadcast => SendParams::builder().broadcast(Vec::new()),
        Form::Propagate => {
            let to = recipient(send).map_or(Destination::Unknown, Destination::PublicKey);
            SendParams::builder()
                .propagate(to, Vec::new())
                .with_destination(to)
        }
        Form::Carried => encrypted(
            SendParams::builder().broadcast(Vec::new()),
            recipient(send)?,
        ),
        Form::Closest => {
            let to = recipient(send)?;
            encrypted(SendParams::builder().closest(to.node_id(), Vec::new()), to)
        }
        Form::Outbox => bail!("the outbox has no parameters"),
    };
    Ok(params.finish())
}

fn recipient(send: &Send) -> anyhow::Result<PublicKey> {
    let to = send.to.as_deref().ok_or_else(|| anyhow!("no recipient"))?;
    Ok(to.parse()?)
}

/// Key and addresses of a peer in the directory.
fn known(node: &Node, key: PublicKey) -> anyhow::Result<PeerAddress> {
    let record = node.directory().find_by_key(&key);
    let record = record.context("no such peer is known")?;
    let addresses = record.addresses().iter();
    Ok(PeerAddress {
        public_key: key,
        addresses: addresses.map(|known| known.address.clone()).collect(),
    })
}

fn address(known: &Known) -> anyhow::Result<PeerAddress> {
    let addresses = known.addresses.iter().map(|text| text.parse());
    Ok(PeerAddress {
        public_key: known.key.parse()?,
        addresses: addresses.collect::<Result<_, _>>()?,
    })
}

/// Prints bans, and who is connected.
async fn watch(node: Arc<Node>) {
    let mut events = node.events();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
    let mut before = HashSet::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(NodeEvent::Banned(ban)) => print(&Line::Event(Event::Banned { peer: ban.node_id.to_string() })),
                Some(other) => print(&Line::Event(Event::Dht { what: format!("{other:?}") })),
                None => return,
            },
            _ = tick.tick() => {
                let now: HashSet<_> = node.peers().iter().map(|peer| peer.node_id).collect();
                for peer in before.difference(&now) {
                    print(&Line::Event(Event::Disconnected { peer: peer.to_string() }));
                }
                for peer in now.difference(&before) {
                    print(&Line::Event(Event::Connected { peer: peer.to_string() }));
                }
                before = now;
            }
        }
    }
}

fn print(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        let mut out = std::io::stdout().lock();
        // Nobody reads once the other side has ended.
        let _gone = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
