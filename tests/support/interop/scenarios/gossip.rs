//! Messages that nodes pass on.

use super::{
    super::{
        control::{Form, Role, Setup},
        peer::Peer,
        world::{Scenario, World, no_bans},
    },
    messages::to,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "gossip-chain",
        about: "gossip runs through stock - ours - stock - ours and back, and reaches each once",
        only_v1: false,
        quick: true,
        play: gossip_chain,
    },
    Scenario {
        name: "carried-chain",
        about: "encrypted messages run through the chain: nobody but the recipient reads them",
        only_v1: false,
        quick: true,
        play: carried_chain,
    },
];

/// Messages in each direction.
const MESSAGES: u64 = 10;

/// stock - ours - stock - ours, each connected to the next, and relaying.
fn chain(world: &World) -> anyhow::Result<[Peer; 4]> {
    let start = |role| {
        world.start(
            role,
            Setup {
                relay: true,
                ..world.passive_setup()
            },
        )
    };
    let chain = [
        start(Role::Stock)?,
        start(Role::Ours)?,
        start(Role::Stock)?,
        start(Role::Ours)?,
    ];
    let [first, second, third, fourth] = &chain;
    first.dial(second)?;
    second.dial(third)?;
    fourth.dial(third)?;
    Ok(chain)
}

fn gossip_chain(world: &World) -> anyhow::Result<()> {
    let chain = chain(world)?;
    let [first, second, third, fourth] = &chain;
    for (sender, others, label) in [
        (first, [second, third, fourth], "there "),
        (fourth, [third, second, first], "back "),
    ] {
        for bytes in [100, 6_000] {
            let mut send = to(sender, Form::Broadcast, label, bytes, MESSAGES);
            send.to = None;
            sender.send(send.clone())?;
            for other in others {
                other.received(&send, sender)?;
            }
        }
    }
    no_bans(&chain)
}

fn carried_chain(world: &World) -> anyhow::Result<()> {
    let chain = chain(world)?;
    let [first, second, third, fourth] = &chain;
    for (sender, recipient) in [(first, fourth), (fourth, first)] {
        for bytes in [100, 6_000] {
            let send = to(recipient, Form::Carried, "carried ", bytes, MESSAGES);
            sender.send(send.clone())?;
            recipient.received(&send, sender)?;
        }
    }
    for between in [second, third] {
        between.received_nothing()?;
    }
    no_bans(&chain)
}
