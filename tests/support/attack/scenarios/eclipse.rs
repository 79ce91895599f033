//! Attacks that surround a node.

use std::{collections::BTreeSet, time::Duration};

use dht_core::SecretKey;
use dht_transport::BoxFuture;
use tokio::time::sleep;

use super::super::stage::{Scenario, Stage, listening_at};
use crate::{loopback::ip, target::secret};

/// Ids around the node.
const GROUND: usize = 64;

/// Networks that the attacker has addresses in.
const NETWORKS: usize = 2;

/// Honest nodes around the node, each in a network of its own.
const HONEST: u8 = 8;

/// Honest peers that the node must have chosen: half of those that it chooses.
const LEAST_HONEST: usize = 6;

/// Seconds for the pools to change, and in a short run.
const REST: usize = 20;
const QUICK_REST: usize = 6;

/// Seed of the first key that is tried.
const TRIED: u64 = 1 << 44;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "ids-around-the-node",
    "64 peers of two networks, whose ids are the nearest to the node's of thousands of keys",
    around,
)];

/// Starts honest nodes that are connected to the node; the ids of all.
pub(super) async fn honest_around(stage: &mut Stage) -> anyhow::Result<BTreeSet<String>> {
    let to = stage.target().clone();
    let mut served = 0;
    for at in 0..HONEST {
        let honest = stage.honest(ip(20 + at, 0, 1), 0).await?;
        served += u8::from(honest.is_served(&to).await);
    }
    stage.check(format!("honest nodes {served}/{HONEST}"), served == HONEST);
    (0..usize::from(HONEST) + 2)
        .map(|at| {
            Ok(stage
                .honest_at(at)?
                .node()
                .public_key()
                .node_id()
                .to_string())
        })
        .collect()
}

/// Checks that the node is connected to honest peers, which it chose.
pub(super) fn keeps_honest_peers(
    stage: &mut Stage,
    honest: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let pools = stage.status()?.pools;
    let kept = pools.intersection(honest).count();
    stage.check(
        format!("{kept} honest of {} peers in the pools", pools.len()),
        kept >= LEAST_HONEST,
    );
    Ok(())
}

fn around(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let honest = honest_around(stage).await?;
        let me = stage.key().node_id();
        let tried = stage.scale(65_536, 4_096) as u64;
        let mut keys: Vec<(_, SecretKey)> = (TRIED..TRIED + tried)
            .map(|seed| {
                let key = secret(seed);
                (me.distance(&key.public_key().node_id()), key)
            })
            .collect();
        keys.sort_by_key(|(distance, _)| *distance);
        let mut peers = Vec::new();
        for (at, (_, key)) in keys.into_iter().take(GROUND).enumerate() {
            let [network, host] = [at % NETWORKS, at / NETWORKS].map(u8::try_from);
            let from = ip(66 + network?, host?, 1);
            peers.extend(
                stage
                    .hostile_as(key, listening_at(from), from, None)
                    .await
                    .ok(),
            );
        }
        sleep(Duration::from_secs(stage.scale(REST, QUICK_REST) as u64)).await;
        let held = peers.iter().filter(|peer| peer.is_connected()).count();
        stage.check(format!("{held}/{GROUND} around it"), held > GROUND / 2);
        keeps_honest_peers(stage, &honest)?;
        super::storage::reaches_offline_friend(stage).await?;
        stage.newcomers_are_served(2).await
    })
}
