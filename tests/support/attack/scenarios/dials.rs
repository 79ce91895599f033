//! Attacks that make a node dial.

use std::{net::Ipv4Addr, time::Duration};

use dht_core::Address;
use dht_transport::BoxFuture;
use tokio::time::sleep;

use super::super::stage::{Scenario, Stage, pump};
use crate::{
    frames,
    loopback::{closed, ip},
    target::{Status, secret},
};

/// Dials to one network that claims may cause in a scenario.
const MOST_DIALS: u64 = 32;

/// Look-ups at once that claims may cause.
const MOST_LOOKUPS: u64 = 8;

/// Time for the node to dial, after the last claim.
const REST: Duration = Duration::from_secs(3);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "claims-at-third-party",
        "discoveries of many keys that all claim one address of somebody else",
        claims_at_third_party,
    ),
    Scenario::new(
        "port-scan-by-claims",
        "discoveries whose claims name the ports of one host, and private hosts",
        port_scan,
    ),
    Scenario::new(
        "port-scan-by-proven-keys",
        "peers that authenticate, claim the ports of one host, and hang up",
        proven_port_scan,
    ),
    Scenario::new(
        "slow-dns",
        "discoveries whose claims name hosts that the name server never answers for",
        slow_dns,
    ),
];

/// Hands over a discovery for each list of addresses, and gives the node time to dial.
async fn discover(stage: &mut Stage, claims: Vec<Vec<Address>>) -> anyhow::Result<()> {
    let key = stage.key();
    let mut questions = Vec::new();
    for (nonce, addresses) in claims.into_iter().enumerate() {
        let seeker = stage.claimed(addresses);
        questions.push(frames::discovery(&seeker, &key, nonce as u64)?);
    }
    let peer = stage.hostile(ip(66, 1, 1)).await?;
    pump(&peer, questions).await?;
    sleep(REST).await;
    stage.newcomers_are_served(2).await
}

fn claims_at_third_party(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(1_500, 400);
        discover(stage, vec![vec![closed(1, 443)]; count]).await?;
        let dials = stage.status()?.dials.attempts;
        let dials: u64 = dials.get(&ip(254, 0, 1)).copied().unwrap_or_default();
        stage.check(
            format!("{dials} of {MOST_DIALS} dials to the third party"),
            (1..=MOST_DIALS).contains(&dials),
        );
        Ok(())
    })
}

fn port_scan(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = u16::try_from(stage.scale(300, 80))?;
        let mut claims = Vec::new();
        for at in 0..count {
            // Five addresses to a claim.
            let ports = (1..=5).map(|port| at * 5 + port);
            claims.push(ports.clone().map(|port| closed(2, port)).collect());
            let private = [10, 0, 0, 1];
            claims.push(
                ports
                    .map(|port| Address::tcp(private.into(), port))
                    .collect(),
            );
        }
        discover(stage, claims).await?;
        check_ports(stage, 2)?;
        let private = ports(&stage.status()?, [10, 0, 0, 1].into());
        stage.check(format!("{private} private ports dialled"), private == 0);
        Ok(())
    })
}

/// Ports of a host that the node dialled.
fn ports(status: &Status, host: Ipv4Addr) -> usize {
    let ports = status.dials.ports.get(&host);
    ports.map_or(0, std::collections::BTreeSet::len)
}

/// Few ports of this host were dialled, and some: the claims are believed that far.
fn check_ports(stage: &mut Stage, host: u8) -> anyhow::Result<()> {
    let dialled = ports(&stage.status()?, ip(254, 0, host));
    stage.check(
        format!("{dialled} of {MOST_DIALS} ports of one host dialled"),
        (1..=MOST_DIALS).contains(&(dialled as u64)),
    );
    Ok(())
}

fn proven_port_scan(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(200, 60);
        let (mut met, mut port) = (0, 1);
        for number in 0..count {
            let claimed = (port..port + 5).map(|port| closed(3, port)).collect();
            port += 5;
            let key = secret(stage.seed());
            // Networks of their own, so that each is wanted in the pools.
            let from = ip(20 + u8::try_from(number % 100)?, 1, 1);
            let peer = stage.hostile_as(key, claimed, from, None).await;
            met += usize::from(peer.is_ok());
        }
        stage.check(format!("{met}/{count} authenticated"), met > count / 2);
        sleep(REST * 3).await;
        stage.newcomers_are_served(2).await?;
        check_ports(stage, 3)
    })
}

fn slow_dns(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(1_000, 300);
        let mut claims = Vec::new();
        for at in 0..count {
            claims.push(vec![format!("/dns4/h{at}.example.com/tcp/18189").parse()?]);
        }
        discover(stage, claims).await?;
        let lookups = stage.status()?.dials.lookups;
        stage.check(
            format!("{lookups} of {MOST_LOOKUPS} look-ups begun"),
            lookups > 0 && lookups <= MOST_LOOKUPS,
        );
        Ok(())
    })
}
