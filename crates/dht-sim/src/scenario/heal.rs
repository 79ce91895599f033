//! Large parts of the network fail, and return.

use std::time::Duration;

use tokio::time::sleep;

use super::Run;
use crate::world::address;

/// Time for the network to come together first.
const GATHER: Duration = Duration::from_secs(60);
/// Time in which pools are full again and all mail has arrived.
const LIMIT: Duration = Duration::from_secs(180);
/// Time for which the network is in two parts.
const CUT: Duration = Duration::from_secs(600);
const SHORT_CUT: Duration = Duration::from_secs(120);
/// Time for which one node has no network.
const UNPLUGGED: Duration = Duration::from_secs(120);
/// Time between two messages, and their number in each part.
const PACE: Duration = Duration::from_millis(500);
const MESSAGES: usize = 30;

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    let nodes = run.nodes;
    run.grow(nodes).await?;
    run.check_whole(GATHER, "pools_full_s", "of the last start")
        .await;

    // The seed stays for now.
    let mut order = run.world.shuffled();
    order.retain(|node| *node != 0);
    let dead: Vec<_> = order.iter().take(nodes / 3).copied().collect();
    for node in &dead {
        run.world.fabric.take_down(run.world.identity(*node)?.host);
        run.world.kill(*node).await;
    }
    run.chatter(MESSAGES, PACE).await?;
    run.check_whole(LIMIT, "third_killed_s", "of the silent death of a third")
        .await;
    run.check_arrived(LIMIT).await;

    for (place, node) in dead.iter().enumerate() {
        let host = run.world.identity(*node)?.host;
        if place % 2 == 0 {
            run.world.fabric.move_to(host, address(nodes + place));
        }
        run.world.fabric.restart(host);
        run.join(*node).await?;
    }
    run.chatter(MESSAGES, PACE).await?;
    run.check_whole(
        LIMIT,
        "returned_s",
        "of the return of the third, half of it with new addresses",
    )
    .await;
    run.check_arrived(LIMIT).await;

    run.world
        .fabric
        .cut(|host| u8::from(host.0.is_multiple_of(2)));
    run.chatter(MESSAGES, PACE).await?;
    sleep(if run.short { SHORT_CUT } else { CUT }).await;
    run.world.fabric.cut(|_| 0);
    run.check_whole(LIMIT, "partition_s", "of the end of a partition")
        .await;
    run.check_arrived(LIMIT).await;

    let unplugged = run.world.identity(1)?.host;
    run.world.fabric.take_down(unplugged);
    for to in [1, 2, 1, 2] {
        run.world.send(3 - to, to, 400, false)?;
        sleep(UNPLUGGED / 4).await;
    }
    run.world.fabric.bring_up(unplugged);
    run.check_whole(LIMIT, "unplugged_s", "of the return of an interface")
        .await;
    run.check_arrived(LIMIT).await;

    run.world.fabric.take_down(run.world.identity(0)?.host);
    run.world.kill(0).await;
    run.world.kill(1).await;
    run.join(1).await?;
    run.chatter(MESSAGES, PACE).await?;
    run.check_whole(
        LIMIT,
        "seed_gone_s",
        "of the end of the seed and a restart without it",
    )
    .await;
    run.check_arrived(LIMIT).await;
    Ok(())
}
