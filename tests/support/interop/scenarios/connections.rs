//! Handshakes, dials and restarts.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use dht_core::{Address, Network};
use dht_transport::{Medium as _, Tcp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    super::{
        control::{Command, Role, Setup},
        exchange::Streams,
        peer::Peer,
        world::{Scenario, World, no_bans},
    },
    messages::greet,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "handshake-stock-dials",
        about: "a stock node dials ours: both know each other's key and address, and talk",
        only_v1: false,
        quick: true,
        play: |world| handshake(world, Role::Stock),
    },
    Scenario {
        name: "handshake-ours-dials",
        about: "our node dials a stock one: both know each other's key and address, and talk",
        only_v1: false,
        quick: true,
        play: |world| handshake(world, Role::Ours),
    },
    Scenario {
        name: "claims",
        about: "nodes and clients that claim DNS, IPv6, onion and several addresses are taken, and talk",
        only_v1: false,
        quick: true,
        play: claims,
    },
    Scenario {
        name: "network-byte",
        about: "nodes of two networks dial each other: refused, and nobody is banned",
        only_v1: false,
        quick: true,
        play: network_byte,
    },
    Scenario {
        name: "simultaneous-dial",
        about: "both dial at once: one connection remains, and both talk over it",
        only_v1: false,
        quick: true,
        play: simultaneous_dial,
    },
    Scenario {
        name: "streams",
        about: "negotiation, right and wrong, and calls, right and wrong: our node answers and proposes each byte as a stock one",
        only_v1: false,
        quick: true,
        play: streams,
    },
    Scenario {
        name: "liveness",
        about: "liveness sessions of a peer made by hand, as nodes check only themselves: ours echoes and ends as a stock node",
        only_v1: false,
        quick: true,
        play: liveness,
    },
    Scenario {
        name: "idle",
        about: "nobody says anything for 400 seconds: the connection stays, and both talk over it",
        only_v1: false,
        quick: false,
        play: idle,
    },
    Scenario {
        name: "restart-stock",
        about: "a stock node restarts with its key, in order and killed: found and talked to again",
        only_v1: false,
        quick: true,
        play: |world| restart(world, Role::Stock),
    },
    Scenario {
        name: "restart-ours",
        about: "our node restarts with its key, in order and killed: found and talked to again",
        only_v1: false,
        quick: true,
        play: |world| restart(world, Role::Ours),
    },
];

/// Trials of dialling at once.
const TRIALS: usize = 30;

fn handshake(world: &World, dialler: Role) -> anyhow::Result<()> {
    let (stock, ours) = world.pair(dialler)?;
    for (node, other) in [(&stock, &ours), (&ours, &stock)] {
        let known = node.ask(Command::Peers)?;
        ensure!(
            known == serde_json::json!([other.key().to_string()]),
            "knows {known}"
        );
        let connected = node.ask(Command::Connections)?;
        ensure!(
            connected == serde_json::json!([other.id().to_string()]),
            "connected to {connected}"
        );
    }
    greet(&stock, &ours, "hello")?;
    no_bans([&stock, &ours])
}

fn claims(world: &World) -> anyhow::Result<()> {
    let onion = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234";
    let claims: [&[&str]; 4] = [
        &["/dns4/node.example/tcp/18189"],
        &["/ip6/::1/tcp/18189"],
        &[onion],
        &[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/2",
            "/dns4/node.example/tcp/3",
            "/ip6/::1/tcp/4",
            onion,
        ],
    ];
    for (role, opposite) in [(Role::Stock, Role::Ours), (Role::Ours, Role::Stock)] {
        let other = world.node(opposite)?;
        for addresses in claims {
            for client in [false, true] {
                let setup = Setup {
                    claims: Some(addresses.iter().map(|text| (*text).to_owned()).collect()),
                    client,
                    ..world.setup()
                };
                let claimant = world.start(role, setup)?;
                claimant.dial(&other)?;
                greet(&claimant, &other, "claimed")?;
                no_bans([&claimant, &other])?;
                claimant.stop()?;
            }
        }
    }
    Ok(())
}

fn network_byte(world: &World) -> anyhow::Result<()> {
    let stock = world.node(Role::Stock)?;
    let ours = world.start(
        Role::Ours,
        Setup {
            network: Network::Esmeralda.wire_byte(),
            ..world.setup()
        },
    )?;
    for (dialler, listener) in [(&stock, &ours), (&ours, &stock)] {
        dialler.ask(Command::Add(listener.known()))?;
        let dial = Command::Dial {
            key: listener.key().to_string(),
        };
        ensure!(
            dialler.ask(dial).is_err(),
            "a node of another network was let in"
        );
        let connected = listener.ask(Command::Connections)?;
        ensure!(
            connected == serde_json::json!([]),
            "connected to {connected}"
        );
    }
    no_bans([&stock, &ours])
}

fn simultaneous_dial(world: &World) -> anyhow::Result<()> {
    let trials = if world.quick { TRIALS / 3 } else { TRIALS };
    for trial in 0..trials {
        let (stock, ours) = (world.node(Role::Stock)?, world.node(Role::Ours)?);
        stock.ask(Command::Add(ours.known()))?;
        ours.ask(Command::Add(stock.known()))?;
        let dial = |peer: &Peer| Command::Dial {
            key: peer.key().to_string(),
        };
        // Every other time in the other order.
        let dials = match trial % 2 {
            0 => [
                (&stock, stock.tell(dial(&ours))?),
                (&ours, ours.tell(dial(&stock))?),
            ],
            _ => [
                (&ours, ours.tell(dial(&stock))?),
                (&stock, stock.tell(dial(&ours))?),
            ],
        };
        for (node, id) in dials {
            // One of the dials may be given up for the other.
            let _given_up = node.answer(id);
        }
        greet(&stock, &ours, "at once")?;
        no_bans([&stock, &ours])?;
        stock.stop()?;
        ours.stop()?;
    }
    Ok(())
}

/// Longer than a node keeps what is of no use.
const IDLE: Duration = Duration::from_secs(400);

fn idle(world: &World) -> anyhow::Result<()> {
    let (stock, ours) = world.pair(Role::Ours)?;
    std::thread::sleep(IDLE);
    greet(&stock, &ours, "still there")?;
    no_bans([&stock, &ours])
}

fn streams(world: &World) -> anyhow::Result<()> {
    let of = |role| {
        let node = world.passive_node(role)?;
        let streams = Streams::of(&node, world.is_v1())?;
        no_bans([&node])?;
        anyhow::Ok(streams)
    };
    let (stock, ours) = (of(Role::Stock)?, of(Role::Ours)?);
    for (stock, ours) in stock.exchanges.iter().zip(&ours.exchanges) {
        ensure!(stock == ours, "{ours:?} instead of {stock:?}");
    }
    for (stock, ours) in stock.openings.iter().zip(&ours.openings) {
        ensure!(stock == ours, "{ours:?} instead of {stock:?}");
    }
    Ok(())
}

/// Bytes written in liveness sessions: lines of each end, the longest of each version, longer ones, and bytes that are no text.
fn lines() -> Vec<Vec<u8>> {
    let few: [&[u8]; 6] = [
        b"pingpong\n",
        b"pingpong\r\n\n",
        b"one\ntwo\nthree\n",
        b"an unfinished line",
        b"\xff\nsecond\n",
        b"",
    ];
    let long = [49, 50, 51, 79, 80, 81, 1_000].into_iter();
    let long = long.flat_map(|length| {
        ["\n", "\r\n", "", "\nmore\n"].map(|end| ("x".repeat(length) + end).into_bytes())
    });
    few.into_iter().map(<[u8]>::to_vec).chain(long).collect()
}

/// Time for a liveness session.
const ECHO_LIMIT: Duration = Duration::from_secs(20);

/// How often a session is tried that echoes nothing, and the time between.
const LIVENESS_ATTEMPTS: usize = 3;
const LIVENESS_PAUSE: Duration = Duration::from_millis(100);

/// First byte of a liveness session, and that of version 1.
const LIVENESS: u8 = 0xa7;
const V1_LIVENESS: u8 = 0xa6;

fn liveness(world: &World) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let first = if world.is_v1() { V1_LIVENESS } else { LIVENESS };
    // Each session alone, as a stock node has one at once, and gives it up a moment after it has ended.
    let echo = async |address: &Address, written: &[u8]| {
        let mut socket = Tcp.dial(address).await?;
        let mut echoed = Vec::new();
        let talk = async {
            socket.write_all(&[first]).await?;
            socket.write_all(written).await?;
            socket.shutdown().await?;
            socket.read_to_end(&mut echoed).await
        };
        // A node that refuses a line may reset the connection.
        let _ended = timeout(ECHO_LIMIT, talk).await?;
        anyhow::Ok(echoed)
    };
    let of = |role| {
        let setup = Setup {
            liveness_sessions: 1,
            ..world.passive_setup()
        };
        let node = world.start(role, setup)?;
        let known = node.address()?;
        let address = known.addresses.first().context("no address")?;
        let mut echoes = Vec::new();
        for line in lines() {
            let mut echoed = Vec::new();
            for _ in 0..LIVENESS_ATTEMPTS {
                echoed = runtime.block_on(echo(address, &line))?;
                if !echoed.is_empty() {
                    break;
                }
                std::thread::sleep(LIVENESS_PAUSE);
            }
            echoes.push(String::from_utf8(echoed)?);
        }
        no_bans([&node])?;
        anyhow::Ok((node, echoes))
    };
    let ((stock, stock_echoes), (ours, our_echoes)) = (of(Role::Stock)?, of(Role::Ours)?);
    for (stock, ours) in stock_echoes.iter().zip(&our_echoes) {
        ensure!(stock == ours, "{ours:?} instead of {stock:?}");
    }
    let first = our_echoes.first().map(String::as_str);
    ensure!(first == Some("pingpong\n"), "echoed {first:?}");
    stock.dial(&ours)?;
    greet(&stock, &ours, "after liveness")?;
    no_bans([&stock, &ours])
}

fn restart(world: &World, role: Role) -> anyhow::Result<()> {
    let stays = match role {
        Role::Stock => Role::Ours,
        Role::Ours => Role::Stock,
    };
    let stays = world.node(stays)?;
    let setup = world.setup();
    let mut restarted = world.start(role, setup.clone())?;
    restarted.dial(&stays)?;
    greet(&restarted, &stays, "first")?;
    for (label, killed, dialler_restarts) in [
        ("second", false, false),
        ("third", true, true),
        ("fourth", true, false),
    ] {
        let id = restarted.id().to_string();
        match killed {
            false => restarted.stop()?,
            true => drop(restarted),
        }
        stays.wait_disconnected(&id)?;
        restarted = world.start(role, setup.clone())?;
        match dialler_restarts {
            true => restarted.dial(&stays)?,
            false => stays.dial(&restarted)?,
        }
        greet(&restarted, &stays, label)?;
    }
    no_bans([&restarted, &stays])
}
