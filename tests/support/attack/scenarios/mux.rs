//! Attacks below the messages.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{Address, Network, OsEntropy};
use dht_stack::Rate;
use dht_transport::{
    BoxFuture, MESSAGING_PROTOCOL, Medium as _, Socket, encode_identity,
    limits::CONTROL_FRAMES,
    noise::{self, NoiseStream},
};
use futures::future;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use super::super::stage::{Scenario, Stage};
use crate::loopback::{Loopback, SOCKET_BUFFER, ip};

/// A yamux ping, which asks for an answer.
const PING: [u8; 12] = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];

/// Type of a yamux frame that has a body.
const DATA: u8 = 0;

/// Frames that ask for nothing: answers to a ping that was not sent, one with the largest number there is, and as much
/// window as there can be for a stream that does not exist.
const UNASKED: [[u8; 12]; 3] = [
    [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9],
    [0, 2, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    [0, 1, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff],
];

/// Frames of one write.
const FRAMES: usize = 5_000;

/// Frames that wait for the node to read them: in the buffers of the two sockets, which Linux makes twice as large as asked, and
/// in a Noise message on either side.
const BUFFERED: usize = (2 * 2 * SOCKET_BUFFER as usize + 2 * 64 * 1024) / 12;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "control-frame-flood",
    "multiplexer frames without content, as fast as the socket takes them",
    control_frames,
)];

fn control_frames(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let time = Duration::from_secs(stage.scale(6, 2) as u64);
        for (host, frame) in (1..).zip([PING].into_iter().chain(UNASKED)) {
            let (mut answers, mut channel) = tokio::io::split(identified(stage, host).await?);
            let start = Instant::now();
            let (mut taken, mut answered) = (0, 0);
            let writes = async {
                let flood = frame.repeat(FRAMES);
                while channel.write_all(&flood).await.is_ok() {
                    taken += FRAMES;
                }
            };
            let reads = async {
                let mut head = [0; 12];
                while answers.read_exact(&mut head).await.is_ok() {
                    answered += usize::from(head.starts_with(&[0, 2, 0, 2]));
                    // The node opens streams of its own, whose data frames have a body.
                    if let [_, DATA, .., a, b, c, d] = head {
                        let length = u32::from_be_bytes([a, b, c, d]);
                        let mut body = (&mut answers).take(length.into());
                        if tokio::io::copy(&mut body, &mut tokio::io::sink())
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                }
            };
            // Held back, or hung up on, are both good.
            let _time_is_up = timeout(time, future::join(writes, reads)).await;
            let seconds = usize::try_from(start.elapsed().as_secs())? + 2;
            let Rate { per_second, burst } = CONTROL_FRAMES;
            let most = burst as usize + seconds * per_second as usize;
            if frame == PING {
                let held = (1..=most).contains(&answered);
                stage.check(format!("{answered} of {most} pings answered"), held);
            } else {
                let most = most + BUFFERED;
                let held = (1..=most).contains(&taken);
                stage.check(format!("{taken} of {most} frames taken"), held);
            }
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
