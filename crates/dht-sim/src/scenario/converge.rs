//! A network grows from one seed.

use std::time::Duration;

use tokio::time::Instant;

use super::Run;

/// Time in which the pools fill and everybody finds everybody.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    let start = Instant::now();
    run.grow(run.nodes).await?;
    run.tell("all started");
    run.check_whole(LIMIT, "pools_full_s", "of the last start")
        .await;
    let (mut known, mut found, mut lost) = (0_u32, 0_u32, 0_u32);
    for from in 0..run.nodes {
        let Some(node) = run.world.node(from).cloned() else {
            continue;
        };
        for to in (0..run.nodes).filter(|to| *to != from) {
            let key = run.world.key(to)?;
            if node.directory().find(&key.node_id()).is_some() {
                known += 1;
            } else if node.dial_or_discover(&key).await.is_ok() {
                found += 1;
            } else {
                lost += 1;
            }
        }
    }
    run.check(
        lost == 0,
        format_args!("every node finds every other by key: {lost} pairs did not"),
    );
    run.number("pairs_known", known.into());
    run.number("pairs_searched", found.into());
    run.number("everybody_found_s", start.elapsed().as_secs_f64());
    run.chatter(run.nodes, Duration::from_millis(100)).await?;
    run.check_arrived(LIMIT).await;
    Ok(())
}
