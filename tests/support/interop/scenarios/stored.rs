//! Messages for nodes that are offline, stored by a third.

use std::time::Duration;

use anyhow::ensure;
use dht_core::{Clock as _, PublicKey, SystemClock};

use super::{
    super::{
        control::{Command, Event, Form, Role, Setup, fingerprint},
        exchange::stranger,
        peer::{Peer, messages},
        tap::Tap,
        world::{Scenario, World, no_bans},
    },
    messages::{greet, to},
};
use crate::frames;

/// Time between looks at the clock.
const AGAIN: Duration = Duration::from_millis(100);

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
        |world| {
            stored(
                world,
                &STORED,
                false,
                [Role::Stock, Role::Ours, Role::Stock],
            )
        },
    ),
    scenario(
        "stored-by-ours-ours-to-stock",
        "our node sends, ours stores, a stock node returns: each message once",
        |world| stored(world, &STORED, false, [Role::Ours, Role::Ours, Role::Stock]),
    ),
    scenario(
        "stored-by-ours-stock-to-ours",
        "a stock node sends, ours stores, ours returns: each message once",
        |world| stored(world, &STORED, false, [Role::Stock, Role::Ours, Role::Ours]),
    ),
    scenario(
        "stored-by-stock-for-ours",
        "our node sends, a stock node stores, ours returns: each message once",
        |world| stored(world, &STORED, false, [Role::Ours, Role::Stock, Role::Ours]),
    ),
    scenario(
        "stored-by-stock-ours-to-stock",
        "our node sends, a stock node stores, a stock node returns: each message once",
        |world| {
            stored(
                world,
                &STORED,
                false,
                [Role::Ours, Role::Stock, Role::Stock],
            )
        },
    ),
    scenario(
        "stored-by-stock-stock-to-ours",
        "a stock node sends, a stock node stores, ours returns: each message once",
        |world| {
            stored(
                world,
                &STORED,
                false,
                [Role::Stock, Role::Stock, Role::Ours],
            )
        },
    ),
    scenario(
        "stored-for-clients",
        "a node sends, another stores, a client of either kind returns: each message once",
        |world| {
            use Role::{Ours, Stock};
            for roles in [
                [Stock, Ours, Stock],
                [Stock, Ours, Ours],
                [Ours, Stock, Ours],
            ] {
                stored(world, &STORED, true, roles)?;
            }
            Ok(())
        },
    ),
    scenario(
        "stored-expired",
        "a message expires while it is stored: ours serves only the one after it, a stock node both",
        expired,
    ),
    Scenario {
        quick: false,
        ..scenario(
            "stored-many",
            "a node sends 500 messages in one second, ours stores, a node returns: each message once",
            |world| {
                use Role::{Ours, Stock};
                for roles in [
                    [Stock, Ours, Stock],
                    [Stock, Ours, Ours],
                    [Ours, Ours, Stock],
                ] {
                    stored(world, &MANY, false, roles)?;
                }
                Ok(())
            },
        )
    },
];

/// As many as may be stored in one second.
const MANY: [(usize, u64); 1] = [(100, 500)];

/// Lengths of what is stored, and how many there are of each.
const STORED: [(usize, u64); 2] = [(100, 20), (100_000, 2)];

/// As a node that returns, at an address that nobody knows: it goes to the holder only, whose store answers.
fn elsewhere(world: &World, setup: Setup) -> Setup {
    Setup {
        listen: world.setup().listen,
        claims: setup.listen.clone().map(|address| vec![address]),
        ..setup
    }
}

fn stored(
    world: &World,
    stored: &[(usize, u64)],
    client: bool,
    [sender, holder, recipient]: [Role; 3],
) -> anyhow::Result<()> {
    let (sender, holder) = (world.node(sender)?, world.node(holder)?);
    let setup = Setup {
        client,
        ..world.setup()
    };
    let away = world.start(recipient, setup.clone())?;
    away.dial(&holder)?;
    sender.dial(&holder)?;
    sender.ask(Command::Add(away.known()))?;
    let sends = stored.iter();
    let sends = sends.map(|(bytes, count)| to(&away, Form::Closest, "stored ", *bytes, *count));
    let sends: Vec<_> = sends.collect();
    let id = away.id().to_string();
    away.stop()?;
    holder.wait_disconnected(&id)?;
    for send in &sends {
        sender.send(send.clone())?;
    }
    let back = world.start(recipient, elsewhere(world, setup))?;
    back.dial(&holder)?;
    if recipient == Role::Stock {
        fetch_pages(&back, sends.iter().map(|send| send.count).sum())?;
    }
    for send in &sends {
        back.received(send, &sender)?;
    }
    no_bans([&sender, &holder, &back])
}

/// Messages of one response.
const PAGE: u64 = 50;

/// A stock node asks once whoever connects; its application asks for what is left.
fn fetch_pages(back: &Peer, total: u64) -> anyhow::Result<()> {
    for got in (PAGE..total).step_by(usize::try_from(PAGE)?) {
        let has = |events: &[Event]| messages(events).count() as u64 >= got;
        back.wait("to receive a page", has)?;
        back.ask(Command::Fetch)?;
    }
    Ok(())
}

/// Seconds for which the first message that expires is valid; each further one is twice as long.
const SHORT_SECONDS: u64 = 2;

/// Posts a message for an offline node, and one that the holder takes itself, which shows that it has the first.
fn store(
    sender: &Tap,
    holder: &Peer,
    to: &PublicKey,
    payload: &str,
    seconds: u64,
) -> anyhow::Result<()> {
    let secret = sender.identity().secret_key();
    sender.send(
        holder,
        frames::post_for(secret, to, payload.to_owned(), seconds)?,
    )?;
    let after = format!("after {payload}");
    sender.send(holder, frames::post(secret, holder.key(), after.clone())?)?;
    takes(holder, &after)
}

/// Waits until a node has taken a message.
fn takes(node: &Peer, payload: &str) -> anyhow::Result<()> {
    let hash = fingerprint(payload.as_bytes());
    node.wait("to take the message that is valid", |events| {
        messages(events).any(|message| message.hash == hash)
    })
}

fn expired(world: &World) -> anyhow::Result<()> {
    use Role::{Ours, Stock};
    for [stores, recipient] in [[Ours, Stock], [Stock, Ours], [Ours, Ours]] {
        let holder = world.node(stores)?;
        let setup = world.setup();
        let away = world.start(recipient, setup.clone())?;
        away.dial(&holder)?;
        let (id, key) = (away.id().to_string(), *away.key());
        away.stop()?;
        holder.wait_disconnected(&id)?;
        let sender = Tap::start(stranger().secret_key().clone())?;
        sender.dial(&holder)?;
        // On a slow machine a message may expire on its way; then the next one is valid for longer.
        let mut seconds = SHORT_SECONDS;
        let (expires, until) = loop {
            let expires = format!("expires after {seconds} s");
            let until = SystemClock.now().saturating_add(seconds);
            store(&sender, &holder, &key, &expires, seconds)?;
            if SystemClock.now() < until {
                break (expires, until);
            }
            seconds *= 2;
        };
        store(&sender, &holder, &key, "stays", 3_600)?;
        while SystemClock.now() <= until.saturating_add(1) {
            std::thread::sleep(AGAIN);
        }
        let back = world.start(recipient, elsewhere(world, setup))?;
        back.dial(&holder)?;
        takes(&back, "stays")?;
        if stores == Stock {
            // It does not look at the time, and the recipient believes it.
            takes(&back, &expires)?;
        } else {
            // The next message of the holder comes after all that it served.
            greet(&holder, &back, "after")?;
            let of_sender = Some(sender.identity().public_key().to_string());
            let taken = back.events(|events| {
                let stored = messages(events).filter(|message| message.from == of_sender);
                stored.count()
            });
            ensure!(taken == 1, "{taken} messages instead of one");
        }
        no_bans([&holder, &back])?;
    }
    Ok(())
}
