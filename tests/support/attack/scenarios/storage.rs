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

/// Time for the messages to be stored, and to be read.
const PATIENCE: Duration = Duration::from_secs(30);

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
