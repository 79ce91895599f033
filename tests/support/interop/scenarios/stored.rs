//! Messages for nodes that are offline, stored by a third.

use super::{
    super::{
        control::{Command, Form, Setup},
        world::{Role, Scenario, World, no_bans},
    },
    messages::to,
};

const fn scenario(
    name: &'static str,
    about: &'static str,
    play: fn(&World) -> anyhow::Result<()>,
) -> Scenario {
    Scenario {
        name,
        about,
        only_v1: true,
        quick: true,
        play,
    }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "stored-by-ours-for-stock",
        "a stock node sends, ours stores, a stock node returns: each message once",
        |world| stored(world, [Role::Stock, Role::Ours, Role::Stock]),
    ),
    scenario(
        "stored-by-ours-ours-to-stock",
        "our node sends, ours stores, a stock node returns: each message once",
        |world| stored(world, [Role::Ours, Role::Ours, Role::Stock]),
    ),
    scenario(
        "stored-by-ours-stock-to-ours",
        "a stock node sends, ours stores, ours returns: each message once",
        |world| stored(world, [Role::Stock, Role::Ours, Role::Ours]),
    ),
    scenario(
        "stored-by-stock-for-ours",
        "our node sends, a stock node stores, ours returns: each message once",
        |world| stored(world, [Role::Ours, Role::Stock, Role::Ours]),
    ),
    scenario(
        "stored-by-stock-ours-to-stock",
        "our node sends, a stock node stores, a stock node returns: each message once",
        |world| stored(world, [Role::Ours, Role::Stock, Role::Stock]),
    ),
    scenario(
        "stored-by-stock-stock-to-ours",
        "a stock node sends, a stock node stores, ours returns: each message once",
        |world| stored(world, [Role::Stock, Role::Stock, Role::Ours]),
    ),
];

/// Lengths of what is stored, and how many there are of each.
const STORED: [(usize, u64); 2] = [(100, 20), (100_000, 2)];

fn stored(world: &World, [sender, holder, recipient]: [Role; 3]) -> anyhow::Result<()> {
    let (sender, holder) = (world.node(sender)?, world.node(holder)?);
    let setup = world.setup();
    let away = world.start(recipient, setup.clone())?;
    away.dial(&holder)?;
    sender.dial(&holder)?;
    sender.ask(Command::Add(away.known()))?;
    let sends = STORED.map(|(bytes, count)| to(&away, Form::Closest, "stored ", bytes, count));
    let id = away.id().to_string();
    away.stop()?;
    holder.wait_disconnected(&id)?;
    for send in &sends {
        sender.send(send.clone())?;
    }
    // It goes to the holder only, whose store answers.
    let back = world.start(
        recipient,
        Setup {
            listen: None,
            claims: setup.listen.clone().map(|address| vec![address]),
            ..setup
        },
    )?;
    back.dial(&holder)?;
    for send in &sends {
        back.received(send, &sender)?;
    }
    no_bans([&sender, &holder, &back])
}
