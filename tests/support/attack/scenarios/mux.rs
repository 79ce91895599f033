//! Attacks below the messages.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{Address, Network, OsEntropy};
use dht_transport::{
    BoxFuture, MESSAGING_PROTOCOL, Medium as _, Socket, encode_identity,
    noise::{self, NoiseStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use super::super::stage::{Scenario, Stage};
use crate::loopback::{Loopback, ip};

/// A yamux ping, which asks for an answer.
const PING: [u8; 12] = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];

/// A yamux answer to a ping that nobody sent.
const PONG: [u8; 12] = [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9];

/// Frames of one write.
const FRAMES: usize = 5_000;

/// Frames that a connection may get taken in the time of the attack.
const MOST_FRAMES: usize = 1_000_000;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "control-frame-flood",
    "multiplexer frames without content, as fast as the socket takes them",
    control_frames,
)];

fn control_frames(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let seconds = stage.scale(10, 3) as u64;
        for (host, frame) in [(1, PING), (2, PONG)] {
            let mut channel = identified(stage, host).await?;
            let flood = frame.repeat(FRAMES);
            let start = Instant::now();
            let mut taken = 0;
            let mut ended = false;
            while start.elapsed() < Duration::from_secs(seconds) && !ended {
                // Held back, or hung up on, are both good.
                match timeout(Duration::from_secs(1), channel.write_all(&flood)).await {
                    Ok(Ok(())) => taken += FRAMES,
                    Ok(Err(_)) => ended = true,
                    Err(_) => break,
                }
            }
            let end = if ended { ", then hung up" } else { "" };
            stage.check(
                format!("{taken} of {MOST_FRAMES} frames taken{end}"),
                taken <= MOST_FRAMES,
            );
        }
        stage.newcomers_are_served(2).await
    })
}

/// A connection of which everything up to the exchange of identities is done.
async fn identified(stage: &mut Stage, host: u8) -> anyhow::Result<NoiseStream<Socket>> {
    let from = ip(66, host, 1);
    let identity = stage.claimed(vec![Address::tcp(from.into(), 18_189)]);
    let address = stage.target().addresses.first().cloned();
    let address = address.ok_or_else(|| anyhow::anyhow!("the node has no address"))?;
    let socket = Loopback::new(from).dial(&address).await?;
    let byte = Network::Esmeralda.wire_byte();
    let secret = identity.secret_key();
    let (mut channel, _key) = noise::initiate(socket, secret, Arc::new(OsEntropy), byte).await?;
    let protocols: [Bytes; 1] = [MESSAGING_PROTOCOL];
    let frame = encode_identity(0, &identity.claim(), "hostile/1", &protocols)?;
    channel.write_all(&frame).await?;
    channel.flush().await?;
    let mut head = [0; 3];
    channel.read_exact(&mut head).await?;
    let [_, low, high] = head;
    let length = usize::from(u16::from_le_bytes([low, high]));
    channel.read_exact(&mut vec![0; length]).await?;
    Ok(channel)
}
