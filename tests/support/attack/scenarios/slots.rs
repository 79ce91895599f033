//! Attacks on the connections that a node may have.

use dht_transport::BoxFuture;

use super::super::stage::{Scenario, Stage};
use crate::loopback::ip;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "slots-by-idle-peers",
    "more idle peers than there are slots, all from one network",
    by_idle_peers,
)];

fn by_idle_peers(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(600, 540);
        let mut idle = Vec::new();
        for at in 0..count {
            // One network has 254 addresses.
            let host = u8::try_from(at % 254 + 1)?;
            if let Ok(peer) = stage.hostile(ip(66, 1, host)).await {
                idle.push(peer);
            }
        }
        stage.newcomers_are_served(5).await?;
        let held = idle.iter().filter(|peer| peer.is_connected()).count();
        stage.check(
            format!("{held} of {count} idle peers connected"),
            held < count,
        );
        Ok(())
    })
}
