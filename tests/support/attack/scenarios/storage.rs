//! Attacks on the messages that a node stores for offline peers.

use std::{ops::Range, time::Duration};

use dht_core::PublicKey;
use dht_node::{Message, SendOptions, StateKind};
use dht_transport::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use super::super::stage::{Scenario, Stage, pump};
use crate::{
    frames,
    loopback::ip,
    target::{Setup, secret},
};

/// Messages of an honest node for its offline friend.
const MESSAGES: usize = 50;

/// Rows of the store, so that an attack fills it in seconds.
const ROWS: u64 = 1_000;

/// Rows of the inbox, of which strangers get a third through one relay, and the messages of honest nodes take some.
const INBOX_ROWS: u64 = 3_000;

/// Time for the messages to be stored, and to be read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages of strangers over one connection.
const POSTS: u64 = 250;

/// Seed of the friend's key. Those of keys that do not exist follow.
const FRIEND: u64 = 1 << 40;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "invented-mailboxes",
        "one network posts messages to keys that do not exist",
        invented,
    )
    .within_mib(96.0)
    .with_node(small)
    .that_stores_alone(),
    Scenario::new(
        "mailbox-stuffed",
        "one network posts messages to one offline recipient",
        stuffed,
    )
    .within_mib(96.0)
    .with_node(small)
    .that_stores_alone(),
    Scenario::new(
        "inbox-through-relay",
        "messages of keys that the node never met, through an honest relay, to an inbox that somebody does not read",
        through_relay,
    )
    .with_node(|setup| {
        setup.config.inbox.max_rows = INBOX_ROWS;
        setup.keeps_messages = true;
    }),
];

/// An honest node posts messages for a friend that is offline and then comes; all must arrive.
pub(super) async fn reaches_offline_friend(stage: &mut Stage) -> anyhow::Result<()> {
    let friend = secret(FRIEND).public_key();
    post(stage, &friend, 0..MESSAGES).await?;
    friend_reads(stage).await
}

/// The first honest node posts messages, which the node must store.
async fn post(stage: &mut Stage, to: &PublicKey, numbers: Range<usize>) -> anyhow::Result<()> {
    let count = numbers.len();
    let from = stage.honest_at(0)?.node();
    let mut deliveries = Vec::new();
    for number in numbers {
        let message = Message {
            message_type: 7,
            payload: format!("mail {number}").into(),
        };
        let options = SendOptions {
            replicas: Some(1),
            ..SendOptions::default()
        };
        deliveries.push(from.send(to, message, options).await?);
    }
    let mut stored = 0;
    let all = async {
        for delivery in &mut deliveries {
            stored += usize::from(delivery.wait(StateKind::Stored).await.is_ok());
        }
    };
    let in_time = timeout(PATIENCE, all).await.is_ok();
    stage.check(
        format!("stored {stored}/{count}"),
        in_time && stored == count,
    );
    Ok(())
}

async fn friend_reads(stage: &mut Stage) -> anyhow::Result<()> {
    let to = stage.target().clone();
    let friend = stage.honest_with(FRIEND, ip(11, 0, 1)).await?;
    friend.node().connect(&to).await?;
    let start = Instant::now();
    while friend.received(b"mail ") < MESSAGES && start.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    let read = friend.received(b"mail ");
    let seconds = start.elapsed().as_secs_f64();
    stage.check(
        format!("stored mail {read}/{MESSAGES} in {seconds:.1} s"),
        read == MESSAGES,
    );
    Ok(())
}

/// A store that an attack can fill in seconds.
fn small(setup: &mut Setup) {
    setup.config.saf.capacity_rows = ROWS;
}

fn invented(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move { attack(stage, |at| secret(FRIEND + 1 + at).public_key()).await })
}

fn stuffed(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let friend = secret(FRIEND).public_key();
        attack(stage, |_| friend).await
    })
}

/// Posts to the keys that `to` gives, between two halves of the honest messages.
async fn attack(stage: &mut Stage, to: impl Fn(u64) -> PublicKey) -> anyhow::Result<()> {
    let friend = secret(FRIEND).public_key();
    post(stage, &friend, 0..MESSAGES / 2).await?;
    let each = stage.scale(2_000, 700) as u64;
    for host in 1..=3 {
        let peer = stage.hostile(ip(66, 1, host)).await?;
        let sender = peer.identity().secret_key();
        let first = u64::from(host) * each;
        let posts = (first..first + each).map(|at| frames::post(sender, &to(at), vec![7; 300]));
        pump(&peer, posts.collect::<Result<Vec<_>, _>>()?).await?;
    }
    let rows = stage.status()?.rows;
    let is_attacked = rows > MESSAGES as u64 / 2;
    stage.check(
        format!("{rows} of {ROWS} rows"),
        is_attacked && rows <= ROWS,
    );
    post(stage, &friend, MESSAGES / 2..MESSAGES).await?;
    friend_reads(stage).await
}

fn through_relay(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let key = stage.key();
        // One of the nodes that talk to the node all the time, and must be heard.
        let relay = stage.honest_at(0)?.node().peer_address();
        let mut seed = FRIEND;
        let start = Instant::now();
        while stage.status()?.inbox.0 < POSTS && start.elapsed() < 2 * PATIENCE {
            let from = ip(66, u8::try_from(seed % 200)?, 1);
            let peer = stage.hostile_to(&relay, from, drop).await?;
            let first = seed;
            seed += POSTS;
            let posts = (first..seed).map(|at| frames::post(&secret(at), &key, "from a stranger"));
            pump(&peer, posts.collect::<Result<Vec<_>, _>>()?).await?;
        }
        let (refused, held) = stage.status()?.inbox;
        stage.check(format!("{refused} refused"), refused >= POSTS);
        let mut honest = 0;
        for at in 0..2 {
            honest += stage.honest_at(at)?.served().await.1;
        }
        let (strangers, most) = (held.saturating_sub(honest), INBOX_ROWS / 3);
        stage.check(
            format!("{strangers} of {most} rows of strangers"),
            (most / 2..=most).contains(&strangers),
        );
        Ok(())
    })
}
