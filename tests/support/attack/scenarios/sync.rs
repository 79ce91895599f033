//! Attacks on the service that tells peers of peers.

use std::time::Duration;

use dht_core::NodeId;
use dht_overlay::sync::{PEER_SYNC_PROTOCOL, PeerSyncClient};
use dht_transport::{BoxFuture, Substream};
use tokio::{io::AsyncWriteExt as _, task::JoinSet, time::timeout};

use super::super::stage::{Scenario, Stage};
use crate::{load::Peer, loopback::ip};

/// Streams that each hostile peer opens: more than a node serves one peer.
const STREAMS: usize = 16;

/// Peers that are asked for: the longest answer.
const MOST: u32 = 500;

/// Time in which an honest peer must have its answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "peer-sync-sessions",
    "sessions that stay open, ask for ever, read no answer or send no frames",
    sessions,
)];

fn sessions(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let node = stage.key().node_id();
        let mut hostile = Vec::new();
        let mut misuses = JoinSet::new();
        let mut opened = 0;
        for at in 0..u8::try_from(stage.scale(40, 12))? {
            let peer = stage.hostile(ip(66, at % 2, at + 1)).await?;
            for number in 0..STREAMS {
                if let Ok(stream) = open(&node, &peer).await {
                    opened += 1;
                    misuses.spawn(misuse(number, stream));
                }
            }
            hostile.push(peer);
        }
        stage.check(
            format!("{opened} streams opened"),
            opened >= hostile.len() * STREAMS / 2,
        );
        let count = 4;
        let mut answered = 0;
        for third in 0..count {
            let peer = stage.hostile(ip(90, third, 1)).await?;
            let stream = open(&node, &peer).await?;
            let told = timeout(PATIENCE, ask(stream)).await;
            answered += u8::from(matches!(told, Ok(Ok(()))));
        }
        stage.check(format!("answered {answered}/{count}"), answered == count);
        stage.newcomers_are_served(2).await
    })
}

async fn open(node: &NodeId, peer: &Peer) -> anyhow::Result<Substream> {
    let protocol = PEER_SYNC_PROTOCOL;
    let stream = peer.transport().open(node, &protocol);
    Ok(timeout(PATIENCE, stream).await??)
}

/// What an honest peer does.
async fn ask(stream: Substream) -> anyhow::Result<()> {
    let mut client = PeerSyncClient::connect(stream).await?;
    let mut peers = client.peers(10, false).await?;
    while peers.next().await?.is_some() {}
    Ok(())
}

/// Misuses a stream in one of four ways until the node ends it, or for ever.
async fn misuse(way: usize, mut stream: Substream) -> anyhow::Result<()> {
    match way % 4 {
        0 => loop {
            stream.write_all(&[0xff; 1_024]).await?;
        },
        1 => {
            let mut client = PeerSyncClient::connect(stream).await?;
            loop {
                let mut peers = client.peers(MOST, false).await?;
                while peers.next().await?.is_some() {}
            }
        }
        2 => {
            let mut client = PeerSyncClient::connect(stream).await?;
            let _unread = client.peers(MOST, false).await?;
            std::future::pending().await
        }
        _ => {
            let _idle = PeerSyncClient::connect(stream).await?;
            std::future::pending().await
        }
    }
}
