//! Attacks on the connections that a node may have.

use dht_transport::{
    BoxFuture,
    limits::{MAX_CONNECTIONS_PER_SOURCE, MAX_PEER_DIALS},
};

use super::super::stage::{Scenario, Stage, pump};
use crate::{
    frames,
    loopback::{ip, silent},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "slots-by-idle-peers",
        "more idle peers than there are slots, all from one network",
        by_idle_peers,
    ),
    Scenario::new(
        "slots-by-discovery",
        "one peer hands over discoveries of keys whose addresses take a dial and never end it",
        by_discovery,
    ),
];

/// Dials of the node's own that may be under way beside those that peers cause.
const OWN_DIALS: usize = 16;

fn by_discovery(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let key = stage.key();
        let mut discoveries = Vec::new();
        for at in 0..stage.scale(2_000, 700) {
            let host = u16::try_from(at)?;
            let seeker = stage.claimed(vec![silent(host.rotate_left(8), 18_189)]);
            discoveries.push(frames::discovery(&seeker, &key, host.into())?);
        }
        let attacker = stage.hostile(ip(66, 1, 1)).await?;
        pump(&attacker, discoveries).await?;
        stage.newcomers_are_served(5).await?;
        let configured = stage.honest(ip(180, 0, 1), 0).await?.node().peer_address();
        let dialled = tokio::task::block_in_place(|| stage.process().connect(&configured))?;
        stage.check("the operator dials", dialled.is_ok());
        let most = stage.status()?.dials.most_pending;
        stage.check(
            format!("dials at once {most}"),
            (1..=MAX_PEER_DIALS + OWN_DIALS).contains(&most),
        );
        Ok(())
    })
}

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
            format!("{held} of {count} idle peers connected, {MAX_CONNECTIONS_PER_SOURCE} at most"),
            (1..=MAX_CONNECTIONS_PER_SOURCE).contains(&held),
        );
        Ok(())
    })
}
