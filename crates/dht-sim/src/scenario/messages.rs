//! Messages between nodes that know each other, while the network fails.

use std::time::Duration;

use tokio::time::sleep;

use super::Run;

/// Peers that each node stays connected to, besides those that stay connected to it.
const PEERS: usize = 3;
/// Time between two messages.
const PACE: Duration = Duration::from_millis(100);
/// Bytes of a message.
const BYTES: usize = 400;
/// Time for the last messages to arrive.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    let nodes = run.nodes;
    for _ in 0..nodes {
        run.world.add();
    }
    for node in 0..nodes {
        let mut peers = vec![run.world.peer((node + 1) % nodes)?];
        for _ in 1..PEERS {
            let other = run.world.below(nodes);
            if other != node {
                peers.push(run.world.peer(other)?);
            }
        }
        let set = |builder| peers.into_iter().fold(builder, dht_node::Builder::peer);
        run.world.start(node, set).await?;
    }
    let connected = run
        .until(Duration::from_secs(30), |world| {
            world.nodes().all(|(_, node)| !node.peers().is_empty())
        })
        .await;
    run.check(connected.is_some(), "every node is connected within 30 s");
    run.tell("connected");

    let seconds = if run.short { 10 } else { 30 };
    let count = seconds * 10;
    for number in 0..count {
        if let Some((from, to)) = run.world.pair() {
            run.world.send(from, to, BYTES, true)?;
        }
        let (cut, heal, reset) = (count / 4, count / 2, count * 3 / 4);
        if number == cut {
            run.world
                .fabric
                .cut(|host| u8::from(host.0.is_multiple_of(2)));
            run.tell("cut in two halves");
        } else if number == heal {
            run.world.fabric.cut(|_| 0);
            run.tell("whole again");
        } else if number == reset {
            for node in 0..nodes / 4 {
                let host = run.world.identity(node)?.host;
                run.world.fabric.reset(host);
            }
            run.tell("a quarter of the nodes lost all connections");
        }
        sleep(PACE).await;
    }
    run.tell("all messages sent");
    let arrived = run.until(LIMIT, |world| world.missing().is_empty()).await;
    run.number(
        "last_arrival_s",
        arrived.map_or(f64::NAN, |took| took.as_secs_f64()),
    );
    run.check_mail();
    Ok(())
}
