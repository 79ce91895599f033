//! A network grows from one seed.

use std::time::Duration;

use anyhow::Context as _;
use tokio::{task::JoinSet, time::Instant};

use super::Run;
use crate::world::World;

/// Time from the first start in which the pools fill and everybody finds everybody.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    let start = Instant::now();
    run.grow(run.nodes).await?;
    run.tell("all started");
    run.check_whole(LIMIT, "pools_full_s", "of the last start")
        .await;
    let found = find_all(&run.world).await?;
    let took = start.elapsed();
    run.tell("everybody found");
    run.check(
        found.lost == 0,
        format_args!(
            "every node finds every other by key: {} pairs did not",
            found.lost
        ),
    );
    let limit = LIMIT.as_secs();
    run.check(
        took <= LIMIT,
        format_args!("pools full and everybody found within {limit} s of the first start"),
    );
    run.number("pairs_known", found.known.into());
    run.number("pairs_searched", found.searched.into());
    run.number("longest_search_s", found.longest.as_secs_f64());
    run.number("everybody_found_s", took.as_secs_f64());
    run.chatter(run.nodes, Duration::from_millis(100)).await?;
    run.check_arrived(LIMIT).await;
    Ok(())
}

/// Outcome of looking for nodes by key.
#[derive(Default)]
struct Found {
    /// Pairs in which one knew the other.
    known: u32,
    /// Pairs in which one was found.
    searched: u32,
    /// Pairs in which one was not found.
    lost: u32,
    /// Time that the longest search took.
    longest: Duration,
}

/// Every node looks for all that it does not know, one after the other, all nodes at once.
async fn find_all(world: &World) -> anyhow::Result<Found> {
    let keys: Result<Vec<_>, _> = (0..world.len()).map(|node| world.key(node)).collect();
    let keys = keys?;
    let mut nodes = JoinSet::new();
    for (_, node) in world.nodes() {
        let (node, keys) = (node.clone(), keys.clone());
        nodes.spawn(async move {
            let mut found = Found::default();
            for key in keys.iter().filter(|key| *key != node.public_key()) {
                if node.directory().find(&key.node_id()).is_some() {
                    found.known += 1;
                    continue;
                }
                let start = Instant::now();
                match node.dial_or_discover(key).await {
                    Ok(_) => found.searched += 1,
                    Err(_not_found) => found.lost += 1,
                }
                found.longest = found.longest.max(start.elapsed());
            }
            found
        });
    }
    let mut all = Found::default();
    while let Some(found) = nodes.join_next().await {
        let found = found.context("a search panicked")?;
        all.known += found.known;
        all.searched += found.searched;
        all.lost += found.lost;
        all.longest = all.longest.max(found.longest);
    }
    Ok(all)
}
