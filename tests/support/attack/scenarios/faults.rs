//! Attacks on what a node is made of: its application, its open files, what it fetches.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dht_core::{Host, Signing};
use dht_transport::BoxFuture;
use tokio::{
    net::TcpSocket,
    time::{Instant, timeout},
};

use super::super::stage::{Scenario, Stage, pump};
use crate::{frames, loopback::ip, target::PANIC};

/// Open files of a node that is to run out of them.
const DESCRIPTORS: u32 = 96;

/// Open files of a node that has as many connections as they allow.
const FEW_DESCRIPTORS: u32 = 256;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "panicking-judge",
        "gossip on which the application's validator panics",
        panicking_judge,
    )
    .with_node(|setup| setup.validates = true),
    Scenario::new(
        "full-descriptors",
        "more sockets than the node may have open files, for some seconds",
        full_descriptors,
    )
    .with_descriptors(DESCRIPTORS),
    Scenario::new(
        "descriptors-by-peers",
        "more authenticated peers, each of another network, than the node may have open files",
        descriptors_by_peers,
    )
    .that_fits(FEW_DESCRIPTORS),
];

fn panicking_judge(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(300, 60);
        let before = stage.status()?;
        let peer = stage.hostile(ip(66, 1, 1)).await?;
        for number in 0..count {
            let key = peer.identity().secret_key();
            pump(&peer, [frames::gossip(key, Signing::Origin, PANIC)?]).await?;
            let honest = stage.honest_at(0)?;
            honest.gossip(&format!("count {number}")).await?;
        }
        let all = before.counted + count as u64;
        stage
            .until(Duration::from_secs(10), |now| now.counted >= all)
            .await?;
        let now = stage.status()?;
        let (came, lost) = (
            now.counted - before.counted,
            now.dropped("panicked") - before.dropped("panicked"),
        );
        stage.check(format!("gossip {came}/{count}"), came == count as u64);
        stage.check(
            format!("{lost}/{count} panics counted"),
            lost == count as u64,
        );
        stage.newcomers_are_served(2).await
    })
}

fn full_descriptors(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let Some(Host::Ip(_, port)) = stage.target().addresses.first().and_then(|a| a.host())
        else {
            anyhow::bail!("the node has no address");
        };
        let mut sockets = Vec::new();
        for at in 0..u8::try_from(DESCRIPTORS + 60)? {
            let socket = TcpSocket::new_v4()?;
            // Each from another network, so that no limit for one source applies.
            socket.bind(SocketAddr::from(([127, 66, at, 1], 0)))?;
            let [_, a, b, c] = ip(1, 0, 1).octets();
            let to = SocketAddr::from((Ipv4Addr::new(127, a, b, c), port));
            let connected = timeout(Duration::from_secs(2), socket.connect(to)).await;
            sockets.extend(connected.ok().and_then(Result::ok));
        }
        let (start, mut most) = (Instant::now(), 0);
        while most + 4 < DESCRIPTORS as usize && start.elapsed() < Duration::from_secs(10) {
            most = stage.process().descriptors().max(most);
            tokio::task::yield_now().await;
        }
        stage.check(
            format!("{most} of {DESCRIPTORS} descriptors"),
            most + 4 >= DESCRIPTORS as usize,
        );
        drop(sockets);
        stage.newcomers_are_served(4).await
    })
}

fn descriptors_by_peers(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = FEW_DESCRIPTORS + 44;
        let mut peers = Vec::new();
        let mut most = 0;
        for at in 0..count {
            let from = ip(66, u8::try_from(at % 150)?, u8::try_from(at / 150 + 1)?);
            peers.extend(stage.hostile(from).await.ok());
            most = stage.process().descriptors().max(most);
        }
        stage.check(
            format!("{}/{count} peers let in", peers.len()),
            peers.len() > FEW_DESCRIPTORS as usize / 2,
        );
        // While they hold on.
        stage.newcomers_are_served(4).await?;
        most = stage.process().descriptors().max(most);
        stage.check(
            format!("{most} of {FEW_DESCRIPTORS} descriptors"),
            most > 100 && most < FEW_DESCRIPTORS as usize,
        );
        Ok(())
    })
}
