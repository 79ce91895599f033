//! Half of what nodes heard of is gone.

use std::time::Duration;

use tokio::time::sleep;

use super::Run;

/// Time for the network to come together first, and for the pools to be full at the end.
const GATHER: Duration = Duration::from_secs(60);
/// Time between the moment at which nodes hear of those that are gone and the end.
const LASTS: Duration = Duration::from_secs(60 * 60);
const SHORT_LASTS: Duration = Duration::from_secs(20 * 60);
/// Least share of dials that connect.
const WANTED_PERCENT: f64 = 80.0;

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    let nodes = run.nodes;
    run.grow(nodes).await?;
    run.check_whole(GATHER, "pools_full_s", "of the last start")
        .await;
    let mut gone = Vec::new();
    for place in 0..nodes {
        let record = run.world.add_gone()?;
        // Half of their hosts are there and refuse, the others are silent.
        if place % 2 == 0 {
            let host = run.world.identity(nodes + place)?.host;
            run.world.fabric.take_down(host);
        }
        gone.push(record);
    }
    let now = run.world.now();
    for (number, node) in run.world.nodes() {
        let deliverer = run.world.key(usize::from(number == 0))?.node_id();
        for record in &gone {
            node.directory().hear(record.clone(), &deliverer, now);
        }
    }
    run.tell("everybody heard of as many that are gone");

    let before = run.world.fabric.traffic();
    let lasts = if run.short { SHORT_LASTS } else { LASTS };
    let mut order = run.world.shuffled();
    order.retain(|node| *node < nodes);
    let pause = lasts / 2 / u32::try_from(nodes)?;
    for node in order {
        let host = run.world.identity(node)?.host;
        run.world.fabric.reset(host);
        sleep(pause).await;
    }
    run.tell("every node lost its connections once");
    sleep(lasts / 2).await;
    let passed = run.world.fabric.traffic() - before;
    let percent = 100.0 * passed.connected as f64 / passed.dials.max(1) as f64;
    run.check(
        percent >= WANTED_PERCENT,
        format_args!("{WANTED_PERCENT} of 100 dials connect at least: {percent:.1}"),
    );
    run.number("dials_connect_percent", percent);
    run.check_whole(GATHER, "pools_full_again_s", "of the end")
        .await;
    Ok(())
}
