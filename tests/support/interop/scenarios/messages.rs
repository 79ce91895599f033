//! Messages in each form, each size and each direction.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, bail, ensure};
use dht_core::{RawEnvelope, encode_parts};
use tokio::time::Instant;

use super::super::{
    control::{Form, Role, Send, Setup},
    exchange::stranger,
    peer::Peer,
    tap::Tap,
    world::{Scenario, World, no_bans},
};

/// Lengths, and how many messages of each. The body is 17 or 18 bytes longer, as the random number in it is: 5 979 and 5 980 are the
/// longest that fit one block of padding with its length.
const SIZES: [(usize, u64); 9] = [
    (1, 1),
    (5_978, 8),
    (5_979, 8),
    (5_980, 8),
    (5_999, 1),
    (6_000, 1),
    (6_001, 1),
    (100_000, 1),
    (3_900_000, 1),
];

/// Senders that live for one message.
const SHORT_LIVES: usize = 20;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "messages-stock-dials",
        about: "a stock node dials ours; each sends clear, signed and encrypted messages of 1 byte to 3.9 MB",
        only_v1: false,
        quick: true,
        play: |world| each_form(world, Role::Stock),
    },
    Scenario {
        name: "messages-ours-dials",
        about: "our node dials a stock one; each sends clear, signed and encrypted messages of 1 byte to 3.9 MB",
        only_v1: false,
        quick: true,
        play: |world| each_form(world, Role::Ours),
    },
    Scenario {
        name: "padding",
        about: "a stock node and ours encrypt bodies around the longest that fits one block: both pad each to the same length",
        only_v1: false,
        quick: true,
        play: padding,
    },
    Scenario {
        name: "burst",
        about: "both send 10 000 messages of 1 kB in each form at once; to version 6, which bans for more, 300",
        only_v1: false,
        quick: true,
        play: burst,
    },
    Scenario {
        name: "short-lived-senders",
        about: "twenty of our nodes start, send one message each, and stop once it is sent; all arrive",
        only_v1: false,
        quick: true,
        play: short_lived_senders,
    },
    Scenario {
        name: "paced",
        about: "our node sends 1 200 messages to a stock node that says its version: all arrive, and it bans nobody",
        only_v1: false,
        quick: false,
        play: paced,
    },
    Scenario {
        name: "soak",
        about: "three stock nodes and three of ours send to each other for ten minutes: nothing is lost, and nobody is banned",
        only_v1: false,
        quick: false,
        play: soak,
    },
];

/// Messages to a node that bans who sends 1 000 in a minute.
const PACED: u64 = 1_200;

/// Messages in each of three forms that such a node takes at once.
const UNPACED: u64 = 300;

/// Sent at once of those.
const AT_ONCE: u64 = 150;

const FORMS: [Form; 3] = [Form::Clear, Form::Signed, Form::Encrypted];

/// Messages from one node to another.
pub(super) fn to(recipient: &Peer, form: Form, label: &str, bytes: usize, count: u64) -> Send {
    Send {
        form,
        to: Some(recipient.key().to_string()),
        label: label.to_owned(),
        bytes,
        count,
        discover: false,
    }
}

/// One encrypted message each way.
pub(super) fn greet(one: &Peer, other: &Peer, label: &str) -> anyhow::Result<()> {
    for (sender, recipient) in [(one, other), (other, one)] {
        let send = to(recipient, Form::Encrypted, label, 100, 1);
        sender.send(send.clone())?;
        recipient.received(&send, sender)?;
    }
    Ok(())
}

fn each_form(world: &World, dialler: Role) -> anyhow::Result<()> {
    let (stock, ours) = world.pair(dialler)?;
    let sizes = SIZES.iter().copied();
    // An unsigned message of one byte cannot be told from the next of one byte, so each form has a label of its own.
    for (size, count) in sizes.filter(|(size, _)| !world.quick || *size <= 100_000) {
        for (form, label) in FORMS.into_iter().zip(["clear", "signed", "encrypted"]) {
            for (sender, recipient) in [(&stock, &ours), (&ours, &stock)] {
                let send = to(recipient, form, label, size, count);
                sender.send(send.clone())?;
                recipient.received(&send, sender)?;
            }
        }
    }
    no_bans([&stock, &ours])
}

/// Lengths of bodies, the third of which is the longest that fits one block with its length.
const BODIES: RangeInclusive<usize> = 5_994..=5_998;

/// Lengths of payloads that make such bodies; which, is up to a random number in the body.
const PAYLOADS: RangeInclusive<usize> = 5_976..=5_981;

fn padding(world: &World) -> anyhow::Result<()> {
    let mut of_role = Vec::new();
    for role in [Role::Stock, Role::Ours] {
        let node = world.passive_node(role)?;
        let mut tap = Tap::start(stranger().secret_key().clone())?;
        tap.dial(&node)?;
        let mut lengths = BTreeMap::new();
        while lengths.len() < BODIES.count() {
            for bytes in PAYLOADS {
                node.send(Send {
                    form: Form::Encrypted,
                    to: Some(tap.identity().public_key().to_string()),
                    label: "padded ".to_owned(),
                    bytes,
                    count: 1,
                    discover: false,
                })?;
                let sealed = RawEnvelope::parse(tap.next_but_saf()?)?.into_sealed()?;
                let encrypted = sealed.body().len();
                let opened = sealed.verify()?.open(tap.identity())?;
                let parts = opened.parts().context("no body")?;
                let body = encode_parts(parts).len();
                if BODIES.contains(&body) {
                    lengths.insert(body, encrypted);
                }
            }
        }
        of_role.push(lengths);
        no_bans([&node])?;
    }
    let [stock, ours] = &*of_role else {
        bail!("not two nodes");
    };
    ensure!(stock == ours, "{ours:?} instead of {stock:?}");
    Ok(())
}

fn burst(world: &World) -> anyhow::Result<()> {
    let count = if world.quick { 1_000 } else { 10_000 };
    let to_stock = if world.is_v1() { count } else { UNPACED };
    let (stock, ours) = world.pair(Role::Ours)?;
    for (form, label) in FORMS.into_iter().zip(["c", "s", "e"]) {
        let (there, back) = (
            to(&ours, form, label, 1_000, count),
            to(&stock, form, label, 1_000, to_stock),
        );
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| stock.send(there.clone()));
            ours.send(back.clone())?;
            sending.join().unwrap_or_else(|_| anyhow::bail!("panicked"))
        })?;
        ours.received(&there, &stock)?;
        stock.received(&back, &ours)?;
    }
    no_bans([&stock, &ours])
}

fn short_lived_senders(world: &World) -> anyhow::Result<()> {
    let stock = world.node(Role::Stock)?;
    for number in 0..SHORT_LIVES {
        let mut setup = world.setup();
        setup.seeds.push(stock.known());
        setup.listen = None;
        let sender = world.start(Role::Ours, setup)?;
        let send = to(&stock, Form::Outbox, &format!("short {number} "), 100, 1);
        sender.send(send.clone())?;
        let key = *sender.key();
        sender.stop()?;
        stock.received_from(&send, &key)?;
    }
    no_bans([&stock])
}

fn paced(world: &World) -> anyhow::Result<()> {
    let setup = Setup {
        user_agent: Some(format!("tari/interop/{}", world.version())),
        ..world.setup()
    };
    let (stock, ours) = (world.start(Role::Stock, setup)?, world.node(Role::Ours)?);
    ours.dial(&stock)?;
    for part in 0..PACED / AT_ONCE {
        let label = format!("part {part} ");
        let send = to(&stock, Form::Encrypted, &label, 100, AT_ONCE);
        ours.send(send.clone())?;
        stock.received(&send, &ours)?;
    }
    no_bans([&stock, &ours])
}

/// How long nodes talk, and how long a round of one message from each to each takes at least.
const SOAK: Duration = Duration::from_secs(600);
const ROUND: Duration = Duration::from_secs(1);

fn soak(world: &World) -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        for role in [Role::Stock, Role::Ours] {
            let node = world.node(role)?;
            for other in &nodes {
                node.dial(other)?;
            }
            nodes.push(node);
        }
    }
    let start = Instant::now();
    while start.elapsed() < SOAK {
        let round = Instant::now();
        let label = format!("{} ms ", start.elapsed().as_millis());
        for (at, sender) in nodes.iter().enumerate() {
            for recipient in nodes.iter().filter(|other| other.key() != sender.key()) {
                let label = format!("{label}from {at} ");
                let send = to(recipient, Form::Encrypted, &label, 200, 1);
                sender.send(send.clone())?;
                recipient.received(&send, sender)?;
            }
        }
        std::thread::sleep(ROUND.saturating_sub(round.elapsed()));
    }
    no_bans(&nodes)
}
