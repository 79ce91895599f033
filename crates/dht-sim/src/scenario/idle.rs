//! Cost of a network in which nothing happens.

use std::time::Duration;

use tokio::time::sleep;

use super::{Run, as_number};

/// Time for the network to come together first.
const GATHER: Duration = Duration::from_secs(60);
/// Time until it is at rest.
const SETTLE: Duration = Duration::from_secs(300);
/// Minutes of rest.
const MINUTES: u32 = 60;
const SHORT_MINUTES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Most bytes that a node sends in a second of rest.
const MOST_BYTES: f64 = 200.0;
/// Most dials that a node begins in a minute of rest.
const MOST_DIALS: u64 = 60;

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    run.grow(run.nodes).await?;
    run.check_whole(GATHER, "pools_full_s", "of the last start")
        .await;
    sleep(SETTLE).await;
    run.tell("at rest");
    let minutes = if run.short { SHORT_MINUTES } else { MINUTES };
    let begun = run.traffic_of_nodes()?;
    let (mut before, mut most_dials) = (begun.clone(), 0);
    for _ in 0..minutes {
        sleep(MINUTE).await;
        let now = run.traffic_of_nodes()?;
        let dials = now
            .iter()
            .zip(&before)
            .map(|(now, then)| (*now - *then).dials);
        most_dials = dials.fold(most_dials, u64::max);
        before = now;
    }
    let seconds = (MINUTE * minutes).as_secs_f64();
    let passed = before.iter().zip(&begun).map(|(now, then)| *now - *then);
    let passed: Vec<_> = passed.collect();
    let most_bytes = passed.iter().map(|one| one.bytes).max().unwrap_or_default();
    let per_second = most_bytes as f64 / seconds;
    run.check(
        per_second < MOST_BYTES,
        format_args!("an idle node sends at most {MOST_BYTES} bytes a second: {per_second:.0}"),
    );
    run.check(
        most_dials <= MOST_DIALS,
        format_args!("a node dials at most {MOST_DIALS} times a minute: {most_dials}"),
    );
    let dials: u64 = passed.iter().map(|one| one.dials).sum();
    let node_hours = as_number(passed.len()) * seconds / 3_600.0;
    run.number("idle_bytes_most_s", per_second);
    run.number("idle_dials_node_hour", dials as f64 / node_hours);
    Ok(())
}
