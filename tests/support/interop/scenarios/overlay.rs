//! How nodes learn of each other.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use dht_core::{Entropy as _, OsEntropy, SecretKey};
use dht_overlay::sync::{PeerSyncClient, SyncError};
use dht_rpc::{CallError, DEFAULT_MAX_PEER_SESSIONS, StatusCode};
use dht_transport::Substream;

use super::{
    super::{
        control::{Command, Form, Role, Setup},
        exchange::stranger,
        peer::{Peer, messages},
        tap::{Tap, keys},
        world::{Scenario, World, no_bans},
    },
    messages::{greet, to},
};
use crate::frames;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "join",
        about: "nodes at the ends of a chain announce themselves: the others learn key and address",
        only_v1: false,
        quick: true,
        play: join,
    },
    Scenario {
        name: "discovery",
        about: "a node finds another through a third, each of them stock or ours, and talks to it directly",
        only_v1: false,
        quick: true,
        play: discovery,
    },
    Scenario {
        name: "peer-sync-stock-asks",
        about: "a stock node asks ours for peers, and learns all that ours knows",
        only_v1: false,
        quick: true,
        play: stock_asks_for_peers,
    },
    Scenario {
        name: "peer-sync-ours-asks",
        about: "our peer-sync client asks a stock node for peers, closer peers, too many and none, and cancels",
        only_v1: false,
        quick: true,
        play: ours_asks_for_peers,
    },
    Scenario {
        name: "peer-sync-sessions",
        about: "a peer starts twelve sessions: version 1 keeps all, version 6 refuses the last two, ours closes two that are idle",
        only_v1: false,
        quick: true,
        play: sessions,
    },
    Scenario {
        name: "lookup",
        about: "our node looks up one that a stock node has dialled, and that answers no discovery: it learns its address, and connects to it",
        only_v1: false,
        quick: true,
        play: lookup,
    },
    Scenario {
        name: "mixed-network",
        about: "six stock nodes and six of ours, from two seeds: an encrypted message from each to each",
        only_v1: false,
        quick: false,
        play: mixed_network,
    },
];

/// Waits until a node has another in its list of peers. It is asked again and again: stock nodes report no such event.
fn wait_known(node: &Peer, other: &Peer) -> anyhow::Result<()> {
    let key = other.key().to_string();
    node.wait_answer(Command::Peers, |known| {
        known
            .as_array()
            .is_some_and(|known| known.contains(&key.as_str().into()))
    })
}

fn join(world: &World) -> anyhow::Result<()> {
    use Role::{Ours, Stock};
    for roles in [
        [Stock, Ours, Stock],
        [Ours, Stock, Ours],
        [Stock, Ours, Ours],
        [Ours, Stock, Stock],
    ] {
        let [first, between, last] = roles.map(|role| world.passive_node(role));
        let (first, between, last) = (first?, between?, last?);
        first.dial(&between)?;
        last.dial(&between)?;
        for (joins, learns) in [(&first, &last), (&last, &first)] {
            joins.ask(Command::Join)?;
            wait_known(learns, joins)?;
        }
        no_bans([&first, &between, &last])?;
    }
    Ok(())
}

fn discovery(world: &World) -> anyhow::Result<()> {
    use Role::{Ours, Stock};
    for roles in [
        [Stock, Ours, Stock],
        [Ours, Stock, Ours],
        [Stock, Ours, Ours],
        [Stock, Stock, Ours],
        [Ours, Stock, Stock],
        [Ours, Ours, Stock],
    ] {
        let [seeker, between, sought] = roles.map(|role| world.passive_node(role));
        let (seeker, between, sought) = (seeker?, between?, sought?);
        seeker.dial(&between)?;
        sought.dial(&between)?;
        seeker.ask(Command::Discover {
            key: sought.key().to_string(),
        })?;
        seeker.ask(Command::Dial {
            key: sought.key().to_string(),
        })?;
        greet(&seeker, &sought, "found")?;
        no_bans([&seeker, &between, &sought])?;
    }
    Ok(())
}

fn stock_asks_for_peers(world: &World) -> anyhow::Result<()> {
    let ours = world.node(Role::Ours)?;
    let mut others = Vec::new();
    for role in [Role::Ours, Role::Stock, Role::Ours] {
        let other = world.node(role)?;
        other.dial(&ours)?;
        others.push(other);
    }
    let mut setup = world.setup();
    setup.discovery = true;
    setup.seeds.push(ours.known());
    let asks = world.start(Role::Stock, setup)?;
    for other in &others {
        wait_known(&asks, other)?;
    }
    no_bans(others.iter().chain([&ours, &asks]))
}

/// Time between questions.
const AGAIN: Duration = Duration::from_millis(100);

fn ours_asks_for_peers(world: &World) -> anyhow::Result<()> {
    let stock = world.passive_node(Role::Stock)?;
    let between = world.passive_node(Role::Ours)?;
    stock.dial(&between)?;
    // It tells of those only that it dialled itself and whose claim came with a message or over a connection.
    let mut others = Vec::new();
    for role in [Role::Ours, Role::Stock, Role::Ours] {
        let other = world.passive_node(role)?;
        other.dial(&between)?;
        other.ask(Command::Join)?;
        wait_known(&stock, &other)?;
        let key = other.key().to_string();
        stock.ask(Command::Dial { key })?;
        others.push(other);
    }
    let others_known: BTreeSet<String> =
        others.iter().map(|other| other.key().to_string()).collect();
    let mut all_known = others_known.clone();
    // A stock node of version 6 tells of nobody that it was told of by hand.
    all_known.insert(between.key().to_string());
    let is_right = |told: &[String]| {
        let told: BTreeSet<String> = told.iter().cloned().collect();
        told.is_superset(&others_known) && told.is_subset(&all_known)
    };
    let tap = Tap::start(SecretKey::random(&mut OsEntropy.rng()))?;
    tap.dial(&stock)?;
    // It enters them a moment after it has connected.
    tap.ask(&stock, async |client| {
        while !is_right(&keys(client.peers(100, false).await?).await?) {
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    })?;
    tap.ask(&stock, async |client| {
        let told = keys(client.peers(100, false).await?).await?;
        // The rest is cancelled with the next request.
        let mut cancelled = client.peers(100, false).await?;
        ensure!(cancelled.next().await?.is_some(), "nobody is told of");
        drop(cancelled);
        let again = keys(client.peers(0, false).await?).await?;
        ensure!(again == told, "{again:?} after cancelling");
        let one = keys(client.peers(1, false).await?).await?;
        ensure!(one.len() == 1, "{} instead of one", one.len());
        Ok(())
    })?;
    // Each refusal costs the session.
    let refusal = |n| {
        tap.ask(&stock, async |client| {
            let closer = async {
                let closer = client.closer_peers(None, n, &[], false).await?;
                keys(closer).await
            };
            match closer.await {
                Err(SyncError::Call(CallError::Status(status))) => Ok(status.code),
                closer => bail!("{n} closer peers are told of: {closer:?}"),
            }
        })
    };
    if world.is_v1() {
        tap.ask(&stock, async |client| {
            let closer = keys(client.closer_peers(None, 20, &[], false).await?).await?;
            ensure!(is_right(&closer), "get_closer_peers tells of {closer:?}");
            let one = keys(client.closer_peers(None, 1, &[], false).await?).await?;
            ensure!(one.len() == 1, "{} instead of one", one.len());
            Ok(())
        })?;
        for n in [0, 1_001] {
            let code = refusal(n)?;
            ensure!(code == StatusCode::BadRequest, "{n} closer peers: {code:?}");
        }
    } else {
        let code = refusal(20)?;
        ensure!(
            code == StatusCode::UnsupportedMethod,
            "closer peers: {code:?}"
        );
    }
    no_bans(others.iter().chain([&stock, &between]))
}

/// Sessions that a peer starts, two more than one of our nodes keeps.
const SESSIONS: usize = DEFAULT_MAX_PEER_SESSIONS + 2;

fn sessions(world: &World) -> anyhow::Result<()> {
    for role in [Role::Stock, Role::Ours] {
        let node = world.passive_node(role)?;
        let tap = Tap::start(stranger().secret_key().clone())?;
        tap.dial(&node)?;
        let ask = |session: &mut PeerSyncClient<Substream>| {
            tap.ask_in(session, async |client| {
                Ok(keys(client.peers(1, false).await?).await?)
            })
        };
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let mut session = tap.session(&node).ok();
            session.as_mut().map(ask).transpose()?;
            sessions.push(session);
        }
        let answered = sessions.iter_mut().map(|session| {
            let session = session.as_mut();
            session.is_some_and(|session| ask(session).is_ok())
        });
        let answered: Vec<bool> = answered.collect();
        let kept = answered.iter().filter(|is_answered| **is_answered).count();
        // How many are kept, and whether the last is one of them.
        let expected = match role {
            Role::Stock if world.is_v1() => (SESSIONS, true),
            Role::Stock => (DEFAULT_MAX_PEER_SESSIONS, false),
            Role::Ours => (DEFAULT_MAX_PEER_SESSIONS, true),
        };
        ensure!(
            (kept, answered.last() == Some(&true)) == expected,
            "{role:?}: answered: {answered:?}"
        );
        no_bans([&node])?;
    }
    Ok(())
}

/// The node that is sought answers no discovery: it is only a transport.
fn lookup(world: &World) -> anyhow::Result<()> {
    let stock = world.passive_node(Role::Stock)?;
    let address = world.setup().listen.context("no address")?.parse()?;
    let secret = stranger().secret_key().clone();
    let sought = Tap::start_listening(secret.clone(), address)?;
    let (id, key) = (sought.id().to_string(), secret.public_key().to_string());
    // A stock node tells of those only that it dialled itself and whose claim came with a message.
    sought.dial(&stock)?;
    sought.send(&stock, frames::join(sought.identity(), 1, &[])?)?;
    sought.send(&stock, frames::post(&secret, stock.key(), "joined")?)?;
    stock.wait("to take a message", |events| {
        messages(events).any(|message| message.from.as_ref() == Some(&key))
    })?;
    stock.ask(Command::Disconnect { key: key.clone() })?;
    stock.wait_disconnected(&id)?;
    stock.ask(Command::Dial { key: key.clone() })?;
    stock.wait_connected_to(&id)?;
    let other = Tap::start(stranger().secret_key().clone())?;
    other.dial(&stock)?;
    other.ask(&stock, async |client| {
        while !keys(client.peers(100, false).await?).await?.contains(&key) {
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    })?;
    let seeker = world.passive_node(Role::Ours)?;
    seeker.dial(&stock)?;
    seeker.ask(Command::Discover { key })?;
    seeker.wait_connected_to(&id)?;
    no_bans([&stock, &seeker])
}

/// Nodes of each kind.
const OF_EACH: usize = 6;

fn mixed_network(world: &World) -> anyhow::Result<()> {
    let seeds = [world.node(Role::Stock)?, world.node(Role::Ours)?];
    let mut nodes = Vec::new();
    for _ in 1..OF_EACH {
        for role in [Role::Stock, Role::Ours] {
            let setup = Setup {
                seeds: seeds.iter().map(Peer::known).collect(),
                discovery: true,
                ..world.setup()
            };
            nodes.push(world.start(role, setup)?);
        }
    }
    let [one, other] = &seeds;
    one.dial(other)?;
    for node in &nodes {
        for seed in &seeds {
            node.dial(seed)?;
        }
        node.ask(Command::Join)?;
    }
    nodes.extend(seeds);
    for (number, sender) in nodes.iter().enumerate() {
        for recipient in nodes.iter().filter(|other| other.key() != sender.key()) {
            let mut send = to(
                recipient,
                Form::Encrypted,
                &format!("from {number} "),
                200,
                1,
            );
            send.discover = true;
            sender.send(send.clone())?;
            recipient.received(&send, sender)?;
        }
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.key() != node.key()) {
            wait_known(node, other)?;
        }
    }
    world.no_bans_of_ours(&nodes)
}
