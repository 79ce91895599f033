//! Attacks by volume.

use std::time::Duration;

use bytes::Bytes;
use dht_core::{Address, MessageType, Network, NodeIdentity};
use dht_proto::store_forward::StoredMessagesRequest;
use dht_transport::BoxFuture;
use prost::Message as _;
use tokio::time::{Instant, sleep};

use super::super::stage::{Scenario, Stage, pump};
use crate::{
    frames,
    load::Peer,
    loopback::{Loopback, ip},
    target::Status,
};

/// Bytes of unknown fields, less than the longest message.
const UNKNOWN_BYTES: usize = 7 << 20;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "flood-through-relay",
        "three peers send an honest relay messages for the node",
        through_relay,
    )
    .within_mib(96.0),
    Scenario::new(
        "unread-answers",
        "peers ask for stored messages and addresses, and read no answer",
        unread,
    )
    .within_mib(128.0),
    Scenario::new(
        "unknown-fields",
        "joins with megabytes of unknown fields",
        unknown_fields,
    )
    .within_mib(48.0),
];

fn through_relay(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let key = stage.key();
        let to = stage.target().clone();
        let relay = stage.honest(ip(12, 0, 1), 0).await?;
        let relay_is_served = relay.is_served(&to).await;
        let relay = relay.node().peer_address();
        stage.check("the relay is served", relay_is_served);
        let each = stage.scale(4_000, 1_200);
        let before = stage.status()?.received;
        for host in 1..=3 {
            let peer = stage.hostile_to(&relay, ip(66, host, 1), drop).await?;
            let sender = peer.identity().secret_key();
            let flood = (0..each).map(|_| frames::post(sender, &key, vec![7; 100]));
            pump(&peer, flood.collect::<Result<Vec<_>, _>>()?).await?;
        }
        let all = before + each as u64;
        let came = stage.until(Duration::from_secs(30), |now| now.received > all);
        let came = came.await?;
        stage.check("a flood came through", came);
        // It is not cut off for what it passed on.
        let relay_is_served = stage.honest_at(2)?.is_served(&to).await;
        stage.check("the relay is served after it", relay_is_served);
        stage.newcomers_are_served(2).await
    })
}

fn unread(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let key = stage.key();
        let accomplice = stage.hostile(ip(67, 1, 1)).await?;
        let count = stage.scale(8, 4);
        let mut readers = Vec::new();
        for host in 0..count {
            let from = ip(66, u8::try_from(host)?, 1);
            let medium = Loopback::new(from);
            let network = (Network::Esmeralda, medium.clone());
            let address = Address::tcp(from.into(), 18_189);
            let (seed, to) = (stage.seed(), stage.target().clone());
            let reader = Peer::connect_on(network, seed, address, &to, drop).await?;
            // Large answers to come: a mailbox of 60 messages of 60 kB.
            let sender = accomplice.identity().secret_key();
            let me = *reader.identity().public_key();
            let mail = (0..60).map(|_| frames::post(sender, &me, vec![7; 60_000]));
            pump(&accomplice, mail.collect::<Result<Vec<_>, _>>()?).await?;
            readers.push((reader, medium));
        }
        for (reader, medium) in &readers {
            medium.turn_deaf();
            for question in questions(reader.identity(), &key, 40)? {
                // A peer without room is not asked.
                let _full = reader.send(question);
            }
        }
        stage.newcomers_are_served(2).await?;
        // An eighth of 32 MiB for each.
        let (queued, most) = (stage.status()?.queued_bytes >> 20, 4 * count);
        stage.check(format!("{queued} of {most} MiB queued"), queued <= most);
        if !stage.is_quick() {
            let start = Instant::now();
            let limit = Duration::from_secs(90);
            while readers.iter().any(|(reader, _)| reader.is_connected()) && start.elapsed() < limit
            {
                sleep(Duration::from_millis(100)).await;
            }
            let cut = readers.iter().filter(|(reader, _)| !reader.is_connected());
            let cut = cut.count();
            stage.check(format!("cut off {cut}/{count}"), cut == count);
        }
        Ok(())
    })
}

/// Requests for stored messages, and discoveries.
fn questions(
    from: &NodeIdentity,
    to: &dht_core::PublicKey,
    count: u32,
) -> anyhow::Result<Vec<Bytes>> {
    let mut questions = Vec::new();
    for number in 0..count {
        let request = StoredMessagesRequest {
            since: 0,
            request_id: number,
            limit: 0,
            continued: false,
        };
        let part = request.encode_to_vec().into();
        let kind = MessageType::SafRequestMessages;
        questions.push(frames::protocol(from.secret_key(), to, kind, part)?);
        for nonce in 0..10 {
            let nonce = u64::from(number) * 10 + nonce;
            questions.push(frames::discovery(from, to, nonce)?);
        }
    }
    Ok(questions)
}

fn unknown_fields(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let many_small = [0xf8, 0x07, 0x01].repeat(UNKNOWN_BYTES / 3);
        let mut one_large = vec![0xfa, 0x07];
        prost::encoding::encode_varint(UNKNOWN_BYTES as u64 - 16, &mut one_large);
        one_large.resize(UNKNOWN_BYTES, 0);
        let each = stage.scale(20, 6);
        let before = stage.status()?;
        for (host, fields) in [(1, many_small), (2, one_large)] {
            let peer = stage.hostile(ip(66, host, 1)).await?;
            let joins = (0..each).map(|nonce| {
                let identity = peer.identity();
                frames::join(identity, nonce as u64, &fields)
            });
            pump(&peer, joins.collect::<Result<Vec<_>, _>>()?).await?;
        }
        stage.newcomers_are_served(2).await?;
        let of = |status: &Status| {
            status.dropped("undecodable") + status.dropped("bad_protocol_message")
        };
        let refused = of(&stage.status()?) - of(&before);
        // The first of a peer ends its connection.
        stage.check(format!("{refused} of 2 joins refused"), refused >= 2);
        Ok(())
    })
}
