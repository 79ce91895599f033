//! Every node is restarted once while messages are sent.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Run;

/// Time between two messages.
const PACE: Duration = Duration::from_secs(1);
/// Time between the first restart and the last.
const SECONDS: usize = 600;
const SHORT_SECONDS: usize = 60;
/// Most seconds that a node is gone.
const GONE_SECONDS: usize = 10;
/// Time for the network to come together first.
const GATHER: Duration = Duration::from_secs(60);
/// Time for the last messages to arrive.
const LIMIT: Duration = Duration::from_secs(300);
/// Bytes of a message.
const BYTES: usize = 400;

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    run.grow(run.nodes).await?;
    run.check_whole(GATHER, "pools_full_s", "of the last start")
        .await;
    let seconds = if run.short { SHORT_SECONDS } else { SECONDS };
    // The seed is one of them.
    let order = run.world.shuffled();
    let mut back: Vec<(usize, usize)> = Vec::new();
    let mut next = order.iter().enumerate().peekable();
    let start = Instant::now();
    for second in 0..seconds {
        while let Some((_, node)) = next.next_if(|(at, _)| at * seconds / order.len() <= second) {
            // Half of them crash.
            match run.world.below(2) {
                0 => run.world.stop(*node).await,
                _ => run.world.kill(*node).await,
            }
            back.push((second + 1 + run.world.below(GONE_SECONDS), *node));
        }
        for (_, node) in back
            .extract_if(.., |(at, _)| *at <= second)
            .collect::<Vec<_>>()
        {
            run.join(node).await?;
        }
        let to = run.world.below(run.nodes);
        if let Some((from, _)) = run.world.pair().filter(|(from, _)| *from != to) {
            run.world.send(from, to, BYTES, false)?;
        }
        if second % 60 == 59 {
            run.tell(format_args!(
                "{} messages have not arrived",
                run.world.missing().len()
            ));
        }
        sleep_until(start + PACE * u32::try_from(second + 1)?).await;
    }
    for (_, node) in back {
        run.join(node).await?;
    }
    run.tell("all restarted");
    run.check_arrived(LIMIT).await;
    run.check_whole(LIMIT, "pools_full_again_s", "of the last restart")
        .await;
    Ok(())
}
