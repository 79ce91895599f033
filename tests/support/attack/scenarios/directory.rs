//! Attacks on what a node knows of its peers.

use bytes::Bytes;
use dht_core::Address;
use dht_transport::BoxFuture;

use tokio::task::JoinSet;

use super::super::stage::{Scenario, Stage, claiming, pump};
use crate::{
    frames,
    loopback::{ip, silent},
    target::{Setup, secret},
};

/// Networks from which invented peers are handed over.
const NETWORKS: u8 = 8;

/// Networks from which joins around an offline recipient are handed over: more than nodes make up a region.
const SOURCES: u8 = 12;

/// Seed of the first invented key.
const INVENTED: u64 = 1 << 42;

/// Most peers that a node with a [`small`] directory may know.
const MOST_KNOWN: usize = 1_500;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "directory-flush",
        "three peers hand over joins of keys that nobody can reach",
        flush,
    )
    .with_node(small),
    Scenario::new(
        "directory-memory",
        "eight peers hand over joins with as many and as long addresses as fit",
        memory,
    )
    .within_mib(48.0)
    .with_node(small),
    Scenario::new(
        "invented-peers",
        "eight networks hand over joins of a million keys, each at another address",
        invented,
    )
    .with_node(small),
    Scenario::new(
        "region-by-joins",
        "joins of unreachable keys from twelve networks, some closer to an offline recipient than the node",
        region,
    )
    .that_stores_alone(),
];

/// A directory of 2 MiB, so that an attack fills it in seconds.
fn small(setup: &mut Setup) {
    setup.config.memory_mib = 32;
}

/// Joins of new keys with these addresses.
fn joins(
    stage: &mut Stage,
    count: usize,
    addresses: impl Fn(usize) -> anyhow::Result<Vec<Address>>,
) -> anyhow::Result<Vec<Bytes>> {
    let mut joins = Vec::with_capacity(count);
    for at in 0..count {
        let peer = stage.claimed(addresses(at)?);
        joins.push(frames::join(&peer, at as u64, &[])?);
    }
    Ok(joins)
}

fn flush(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        // A peer that was connected once and is away while the directory is flooded.
        let to = stage.target().clone();
        let friend = stage.honest(ip(10, 0, 1), 0).await?;
        let served = friend.is_served(&to).await;
        let address = friend.node().peer_address();
        friend.node().shutdown().await;
        stage.check("the friend is known", served);
        for group in 0..3 {
            let count = stage.scale(1_900, 600);
            let frames = joins(stage, count, |at| {
                Ok(vec![silent(
                    u16::try_from(at + 2_000 * usize::from(group))?,
                    18_189,
                )])
            })?;
            let peer = stage.hostile(ip(66 + group, 1, 1)).await?;
            pump(&peer, frames).await?;
        }
        let known = stage.process().knows(&address.public_key)?;
        stage.check("and is still known", known);
        stage.newcomers_are_served(2).await
    })
}

fn memory(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        for group in 0..8 {
            let count = stage.scale(1_900, 500);
            let frames = joins(stage, count, |at| {
                let name = "a".repeat(60);
                let address = |n| format!("/dns4/{name}.{name}.{name}.x{n}-{at}.com/tcp/1").parse();
                Ok((0..5).map(address).collect::<Result<_, _>>()?)
            })?;
            let peer = stage.hostile(ip(66 + group, 1, 1)).await?;
            pump(&peer, frames).await?;
        }
        let known = stage.status()?.known;
        stage.check(
            format!("{known} of {MOST_KNOWN} peers known"),
            (100..=MOST_KNOWN).contains(&known),
        );
        stage.newcomers_are_served(2).await
    })
}

fn invented(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let to = stage.target().clone();
        let friend = stage.honest(ip(10, 0, 1), 0).await?;
        let served = friend.is_served(&to).await;
        let address = friend.node().peer_address();
        friend.node().shutdown().await;
        stage.check("the friend is known", served);
        let count = stage.scale(1_000_000, 4_000);
        let mut floods = JoinSet::new();
        for group in 0..NETWORKS {
            let peer = stage.hostile(ip(66 + group, 1, 1)).await?;
            let each = count as u64 / u64::from(NETWORKS);
            floods.spawn(async move {
                let joins = (0..each).map_while(|at| {
                    let [.., a, b, c] = at.to_be_bytes();
                    let address = Address::tcp(ip(a ^ group, b, c).into(), 18_189);
                    let key = secret(INVENTED + u64::from(group) * each + at);
                    frames::join(&claiming(key, vec![address], 0), at, &[]).ok()
                });
                pump(&peer, joins).await
            });
        }
        let mut sent = 0;
        while let Some(flood) = floods.join_next().await {
            sent += flood??;
        }
        stage.check(format!("{sent}/{count} joins sent"), sent == count);
        let known = stage.status()?.known;
        stage.check(
            format!("{known} of {MOST_KNOWN} peers known"),
            (100..=MOST_KNOWN).contains(&known),
        );
        let known = stage.process().knows(&address.public_key)?;
        stage.check("and is still known", known);
        stage.newcomers_are_served(2).await
    })
}

fn region(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(200, 80);
        for source in 0..SOURCES {
            // The closest to the recipient's key are closer than any honest node.
            let frames = joins(stage, count, |at| {
                // In as many networks as there are, where nobody listens.
                let network = u8::try_from(at % 250)?;
                Ok(vec![Address::tcp(ip(network, 7, source).into(), 18_189)])
            })?;
            let peer = stage.hostile(ip(66 + source, 1, 1)).await?;
            pump(&peer, frames).await?;
        }
        super::storage::reaches_offline_friend(stage).await
    })
}
