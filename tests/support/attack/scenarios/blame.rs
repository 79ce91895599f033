//! Attacks that try to make honest nodes ban each other, or refuse each other's messages.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{MessageType, RawEnvelope, Signing};
use dht_transport::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::super::stage::{Scenario, Stage, pump};
use crate::{frames, load::Peer, loopback::ip, target::Status};

/// Clocks of honest nodes, in seconds ahead of the node's.
const SKEWS: [i64; 10] = [1, -1, 30, -30, 300, -300, 3_600, -3_600, 86_400, -86_400];

/// Time for messages to come through.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two looks at what came.
const PERIOD: Duration = Duration::from_millis(50);

/// Difference of clocks up to which nodes serve each other, in seconds.
const TOLERATED: i64 = 300;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "ban-me",
        "messages of an honest node, altered, retyped and repeated, to the node and to others",
        ban_me,
    ),
    Scenario::new(
        "own-mail",
        "the node's own messages, handed to an honest relay that has not seen them",
        own_mail,
    ),
    Scenario::new(
        "retyped-gossip",
        "a copy of unsigned gossip under another type, before the original",
        retyped_gossip,
    ),
    Scenario::new(
        "clock-skew",
        "honest nodes with clocks from a day behind to a day ahead",
        clock_skew,
    ),
];

/// Frames that a hostile peer received.
type Captured = Arc<Mutex<Vec<Bytes>>>;

/// A hostile peer of the honest node number `at`, which keeps what it receives.
async fn listener(stage: &mut Stage, at: usize) -> anyhow::Result<(Peer, Captured)> {
    let captured = Captured::default();
    let keep = Arc::clone(&captured);
    let honest = stage.honest_at(at)?.node().peer_address();
    let on_message = move |message: dht_peers::InboundFrame| keep.lock().push(message.frame);
    let peer = stage.hostile_to(&honest, ip(66, 1, 1), on_message).await?;
    Ok((peer, captured))
}

fn ban_me(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let (at_alice, captured) = listener(stage, 0).await?;
        let alice = stage.honest_at(0)?;
        alice.gossip("genuine").await?;
        alice.node().join().await?;
        let start = Instant::now();
        while captured.lock().len() < 2 && start.elapsed() < PATIENCE {
            sleep(PERIOD).await;
        }
        let genuine = captured.lock().clone();
        stage.check(
            format!("{} messages captured", genuine.len()),
            genuine.len() >= 2,
        );
        let mut forged = Vec::new();
        for frame in &genuine {
            for message_type in TYPES {
                let retyped = frames::with_header(frame.clone(), |header| {
                    header.message_type = message_type;
                });
                forged.extend(retyped);
            }
            for at in [5, 40, frame.len() / 2, frame.len().saturating_sub(3)] {
                let mut altered = frame.to_vec();
                if let Some(byte) = altered.get_mut(at) {
                    *byte ^= 0x55;
                }
                forged.push(altered.into());
            }
            forged.extend(vec![frame.clone(); 100]);
        }
        // Messages that she cannot read, addressed to her, through the node; and such as claim to be hers.
        let alice = stage.honest_at(0)?.node();
        let (key, claim) = (*alice.public_key(), alice.claim());
        let hers = dht_core::NodeIdentity::with_claim(
            at_alice.identity().secret_key().clone(),
            (*claim).clone(),
        );
        forged.push(frames::join(&hers, 1, &[])?);
        for message_type in TYPES {
            let garbage = Bytes::from_static(&[0xff; 40]);
            let sender = at_alice.identity().secret_key();
            forged.push(frames::protocol(sender, &key, message_type, garbage)?);
        }
        let bob = stage.honest_at(1)?.node().peer_address();
        let target = stage.target().clone();
        let mut sent = 0;
        for (host, to) in [(1, target), (2, bob)] {
            // Connections for a few each: who signs a forgery with its own key is banned.
            for (at, some) in forged.chunks(8).enumerate() {
                let from = ip(67, host, u8::try_from(at % 200)?);
                let peer = stage.hostile_to(&to, from, drop).await?;
                sent += pump(&peer, some.iter().cloned()).await?;
            }
        }
        let all = 2 * forged.len();
        stage.check(format!("{sent} of {all} forgeries sent"), sent > all / 2);
        stage.newcomers_are_served(2).await
    })
}

/// Types of protocol messages.
const TYPES: [MessageType; 6] = [
    MessageType::None,
    MessageType::Join,
    MessageType::Discovery,
    MessageType::DiscoveryResponse,
    MessageType::SafRequestMessages,
    MessageType::SafStoredMessages,
];

fn own_mail(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let captured = Captured::default();
        let keep = Arc::clone(&captured);
        let on_message = move |message: dht_peers::InboundFrame| {
            if is_application(&message.frame) {
                keep.lock().push(message.frame);
            }
        };
        let _spy = stage.hostile_that(ip(66, 1, 1), on_message).await?;
        let count = stage.scale(200, 50);
        // The node's table of peers follows the handshake a moment later.
        let start = Instant::now();
        while captured.lock().is_empty() && start.elapsed() < PATIENCE {
            let text = format!("hello after {:?}", start.elapsed());
            let sent = tokio::task::block_in_place(|| stage.process().gossip(&text))?;
            anyhow::ensure!(sent.is_ok(), "gossip: {sent:?}");
            sleep(PERIOD).await;
        }
        captured.lock().clear();
        for number in 0..count {
            let text = format!("own {number}");
            let sent = tokio::task::block_in_place(|| stage.process().gossip(&text))?;
            anyhow::ensure!(sent.is_ok(), "gossip: {sent:?}");
        }
        let start = Instant::now();
        while captured.lock().len() < count && start.elapsed() < PATIENCE {
            sleep(PERIOD).await;
        }
        let own = captured.lock().clone();
        stage.check(
            format!("{} messages captured", own.len()),
            own.len() >= count,
        );
        let captured_count = own.len() as u64;
        let before = returned(&stage.status()?);
        let to = stage.target().clone();
        let relay = stage.honest(ip(13, 0, 1), 0).await?;
        let served = relay.is_served(&to).await;
        let relay = relay.node().peer_address();
        stage.check("the relay is served", served);
        let peer = stage.hostile_to(&relay, ip(66, 2, 1), drop).await?;
        pump(&peer, own).await?;
        let all = before + captured_count;
        stage
            .until(PATIENCE, |status| returned(status) >= all)
            .await?;
        let back = returned(&stage.status()?) - before;
        stage.check(format!("{back} came back"), back >= captured_count);
        stage.newcomers_are_served(2).await
    })
}

/// Whether a frame holds a message of an application, as gossip is, and none of the protocol's own.
fn is_application(frame: &Bytes) -> bool {
    let raw = RawEnvelope::parse(frame.clone()).ok();
    let header = raw.as_ref().and_then(RawEnvelope::header);
    header.is_some_and(|header| header.message_type == MessageType::None as i32)
}

/// Messages that the node dropped as its own: they are repeats from the moment it sends them.
fn returned(status: &Status) -> u64 {
    status.dropped("duplicate")
}

fn retyped_gossip(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = stage.scale(300, 100);
        let author = stage.hostile(ip(14, 0, 1)).await?;
        let censor = stage.hostile(ip(66, 1, 1)).await?;
        let before = stage.status()?.counted;
        for number in 0..count {
            let key = author.identity().secret_key();
            let text = format!("count {number}");
            let original = frames::gossip(key, Signing::Anonymous, text)?;
            let retyped = [MessageType::Join, MessageType::Discovery].map(|message_type| {
                frames::with_header(original.clone(), |header| {
                    header.message_type = message_type
                })
            });
            pump(&censor, retyped.into_iter().flatten()).await?;
            pump(&author, [original]).await?;
        }
        let all = before + count as u64;
        stage
            .until(Duration::from_secs(10), |now| now.counted >= all)
            .await?;
        let came = stage.status()?.counted - before;
        stage.check(format!("originals {came}/{count}"), came == count as u64);
        Ok(())
    })
}

fn clock_skew(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let to = stage.target().clone();
        let (mut refused, mut lasting) = (Vec::new(), Vec::new());
        for (at, skew) in SKEWS.into_iter().enumerate() {
            let host = 100 + u8::try_from(at)?;
            let skewed = stage.honest(ip(host, 0, 1), skew).await?;
            if !skewed.is_served(&to).await && skew.abs() <= TOLERATED {
                refused.push(skew);
            }
            // Its gossip and its joins pass through the others.
            let skewed = stage.honest_at(2 * at + 2)?;
            let _nobody = skewed.gossip(&format!("at {skew}")).await;
            let _nobody = skewed.node().join().await;
            // Whatever its clock said, the key is served once the clock is right.
            let seed = skewed.seed();
            skewed.node().shutdown().await;
            let corrected = stage.honest_with(seed, ip(host, 0, 2)).await?;
            if !corrected.is_served(&to).await {
                lasting.push(skew);
            }
        }
        stage.check(
            format!("served within {TOLERATED} s, but not {refused:?}"),
            refused.is_empty(),
        );
        stage.check(
            format!("served with the right clock, but not {lasting:?}"),
            lasting.is_empty(),
        );
        super::storage::reaches_offline_friend(stage).await
    })
}
