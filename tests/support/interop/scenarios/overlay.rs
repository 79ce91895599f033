//! How nodes learn of each other.

use std::time::Duration;

use anyhow::ensure;
use dht_core::{Entropy as _, OsEntropy, SecretKey};

use super::{
    super::{
        control::{Command, Form, Setup},
        peer::Peer,
        tap::{Tap, keys},
        world::{Role, Scenario, World, no_bans},
    },
    messages::{greet, to},
};

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
        only_v1: true,
        quick: true,
        play: ours_asks_for_peers,
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
        let [first, between, last] = roles.map(|role| world.node(role));
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
        let [seeker, between, sought] = roles.map(|role| world.node(role));
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

/// Nodes that a node knows well.
const KNOWN: usize = 3;

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
    let stock = world.node(Role::Stock)?;
    let mut others = Vec::new();
    for role in [Role::Ours, Role::Stock, Role::Ours] {
        let other = world.node(role)?;
        // It tells of those only that it dialled itself.
        stock.dial(&other)?;
        others.push(other);
    }
    let mut known: Vec<String> = others.iter().map(|other| other.key().to_string()).collect();
    known.sort();
    let tap = Tap::start(SecretKey::random(&mut OsEntropy.rng()))?;
    tap.dial(&stock)?;
    // It enters them a moment after it has connected.
    tap.ask(&stock, async |client| {
        while keys(client.peers(100, false).await?).await? != known {
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    })?;
    tap.ask(&stock, async |client| {
        for _ in 0..2 {
            let told = keys(client.peers(100, false).await?).await?;
            ensure!(told == known, "get_peers tells of {told:?}");
            let closer = keys(client.closer_peers(None, 20, &[], false).await?).await?;
            ensure!(closer == known, "get_closer_peers tells of {closer:?}");
        }
        let one = keys(client.closer_peers(None, 1, &[], false).await?).await?;
        ensure!(one.len() == 1, "{} instead of one", one.len());
        // The rest is cancelled with the next request.
        let mut cancelled = client.peers(100, false).await?;
        ensure!(cancelled.next().await?.is_some(), "nobody is told of");
        drop(cancelled);
        let again = keys(client.peers(0, false).await?).await?;
        ensure!(again.len() == KNOWN, "{} after cancelling", again.len());
        Ok(())
    })?;
    // Each refusal costs the session.
    for n in [0, 1_001] {
        let refused = tap.ask(&stock, async |client| {
            Ok(keys(client.closer_peers(None, n, &[], false).await?)
                .await
                .is_err())
        })?;
        ensure!(refused, "{n} closer peers are told of");
    }
    no_bans(others.iter().chain([&stock]))
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
    no_bans(&nodes)
}
