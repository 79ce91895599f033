//! Attacks on what a node is made of: its application, its open files, what it fetches.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dht_core::Host;
use dht_transport::BoxFuture;
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

use super::super::stage::{Scenario, Stage};
use crate::loopback::ip;

/// Open files of a node that is to run out of them.
const DESCRIPTORS: u32 = 96;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "full-descriptors",
    "more sockets than the node may have open files, for some seconds",
    full_descriptors,
)
.with_descriptors(DESCRIPTORS)];

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
        sleep(Duration::from_secs(3)).await;
        let most = stage.process().descriptors();
        stage.check(
            format!("{most} of {DESCRIPTORS} descriptors"),
            most + 4 >= DESCRIPTORS as usize,
        );
        drop(sockets);
        stage.newcomers_are_served(4).await
    })
}
