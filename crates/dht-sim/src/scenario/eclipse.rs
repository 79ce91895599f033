//! Somebody makes keys whose ids are nearest to one node.

use std::time::Duration;

use dht_core::SecretKey;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng as _;
use tokio::time::sleep;

use super::Run;

/// Ids around the victim.
const GROUND: usize = 64;
/// Networks that the attacker has addresses in.
const NETWORKS: usize = 4;
/// Honest nodes that the victim must be connected to.
const HONEST: usize = 4;
/// Time for the network to come together, and for the attack to work.
const GATHER: Duration = Duration::from_secs(60);
const ATTACK: Duration = Duration::from_secs(600);
const SHORT_ATTACK: Duration = Duration::from_secs(60);
/// Time for the last messages to arrive.
const LIMIT: Duration = Duration::from_secs(180);
/// Messages to and from the victim, and the time between two.
const MESSAGES: usize = 30;
const PACE: Duration = Duration::from_millis(500);

pub(super) async fn play(run: &mut Run) -> anyhow::Result<()> {
    let honest = run.nodes;
    run.grow(honest).await?;
    run.check_whole(GATHER, "pools_full_s", "of the last start")
        .await;
    let victim = honest - 1;
    let me = run.world.key(victim)?.node_id();
    let mut nearest = None;
    for node in 0..victim {
        let distance = me.distance(&run.world.key(node)?.node_id());
        nearest = nearest.into_iter().chain([distance]).min();
    }
    let mut rng = ChaCha12Rng::seed_from_u64(run.world.below(usize::MAX) as u64);
    let ground = if run.short { GROUND / 4 } else { GROUND };
    for number in 0..ground {
        let secret = loop {
            let secret = SecretKey::random(&mut rng);
            let distance = me.distance(&secret.public_key().node_id());
            if nearest.is_none_or(|nearest| distance < nearest) {
                break secret;
            }
        };
        let [low, high] = [number / NETWORKS, number % NETWORKS]
            .map(|part| u8::try_from(part).unwrap_or_default());
        let node = run.world.add_with(secret, [110, high, low, 1].into());
        let (seed, target) = (run.world.peer(0)?, run.world.peer(victim)?);
        // Passes nothing on and stores nothing.
        let mut config = dht_node::Config {
            forward: false,
            listen: Vec::new(),
            ..dht_node::Config::default()
        };
        config.saf.enabled = false;
        let set = |builder: dht_node::Builder| builder.config(config).peer(seed).peer(target);
        run.world.start(node, set).await?;
    }
    run.tell("attackers started");
    sleep(if run.short { SHORT_ATTACK } else { ATTACK }).await;
    let peers = run
        .world
        .node(victim)
        .map(|node| node.peers())
        .unwrap_or_default();
    let mut friends = 0;
    for node in 0..victim {
        let id = run.world.key(node)?.node_id();
        friends += usize::from(peers.iter().any(|peer| peer.node_id == id));
    }
    run.check(
        friends >= HONEST,
        format_args!("the victim is connected to {friends} honest nodes"),
    );
    run.number("victim_connections", super::as_number(peers.len()));
    run.number("victim_honest", super::as_number(friends));
    for number in 0..MESSAGES {
        let other = run.world.below(victim);
        let (from, to) = if number % 2 == 0 {
            (victim, other)
        } else {
            (other, victim)
        };
        run.world.send(from, to, 400, false)?;
        sleep(PACE).await;
    }
    run.check_arrived(LIMIT).await;
    Ok(())
}
