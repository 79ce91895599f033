//! The path of messages for an offline peer: verify, store, hand over for forwarding, with 6 kB bodies, on a real
//! file, with few peers known and with many.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use anyhow::Context as _;
use bytes::Bytes;
use dht_core::{
    Destination, Disposition, Encryption, Entropy as _, ManualClock, MessageTag, MessageType,
    NodeIdentity, OnDelivery, ProtocolVersion, PublicKey, RemotePeer, SealRequest, SealSecrets,
    SeededEntropy, SendQueue, SendQueueError, SendRequest, SharedClock, SharedEntropy, Signing,
    encode_envelope, encode_parts, seal, test_util,
};
use dht_dedup::DedupTable;
use dht_inbound::{Delivered, Inbound, InboundConfig};
use dht_mailbox::{Durability, Limits, Quota, Store, StoreConfig};
use dht_peers::{
    Connections, Directory, InboundFrame, PeerRecord,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_saf::{Config, Ledger, Saf, SafParts};
use dht_stack::BytePermit;
use tower::{BoxError, service_fn};

use crate::{
    primitives::Floors,
    report::{Report, Row},
    sample::{Effort, median, now},
    stacks::{Count, PAYLOAD, WIRE_BODY, WORKERS, lane, runtime},
};

/// Known peers of the two rows.
const ROWS: [(&str, u64); 2] = [
    ("inbound.relay_stored.12", 12),
    ("inbound.relay_stored.10k", 10_000),
];

/// Store-and-forward sends nothing and accepts nothing here.
struct Still;

impl SendQueue for Still {
    fn try_send(&self, _: SendRequest) -> Result<(), SendQueueError> {
        Err(SendQueueError::Full)
    }

    fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), SendQueueError> {
        Err(SendQueueError::Full)
    }
}

pub(crate) fn run(report: &mut Report, effort: Effort, floors: &Floors) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;
    let floor = WORKERS as f64 * 1e6 / floors.verify(WIRE_BODY);
    for (name, peers) in ROWS {
        if !report.wants(name) {
            continue;
        }
        let identity = Arc::new(test_util::identity(2));
        let directory = known(&identity, peers);
        let nearest = directory
            .closest(
                identity.node_id(),
                1,
                &dht_peers::PeerFilter::reachable(test_util::NOW),
            )
            .first()
            .map(|peer| *peer.public_key())
            .context("somebody is known")?
            .decode()?;
        let mut samples = Vec::new();
        for _ in 0..effort.samples {
            let frames = frames(&nearest, effort.messages)?;
            samples.push(runtime.block_on(relay(&identity, &directory, &frames))?);
        }
        let row = Row::new(
            name,
            "messages/s",
            "one encrypted message for an absent peer, verified, stored and handed over for forwarding",
        );
        report.row(row.floor(floor).target(20_000.0), || median(samples));
    }
    Ok(())
}

fn known(identity: &NodeIdentity, peers: u64) -> Directory {
    let directory = Directory::new(*identity.node_id());
    let mut rng = SeededEntropy::new(11).rng();
    for _ in 0..peers {
        let key = dht_core::SecretKey::random(&mut rng).public_key();
        let record = PeerRecord::seed(key, dht_core::Features::NODE, [], test_util::NOW);
        directory.add_or_update(record, test_util::NOW);
    }
    directory
}

/// Messages of Alice to a peer that is away.
fn frames(to: &PublicKey, count: usize) -> anyhow::Result<Vec<Bytes>> {
    let alice = test_util::identity(1);
    let mut rng = SeededEntropy::new(12).rng();
    let body = encode_parts(&[Bytes::from_static(b"\x08\x01"), vec![7; PAYLOAD].into()]);
    (0..count)
        .map(|_| {
            let request = SealRequest {
                body: body.clone(),
                message_type: MessageType::None,
                destination: Destination::PublicKey(*to),
                encryption: Encryption::EncryptFor(*to),
                sender: alice.secret_key(),
                signing: Signing::Anonymous,
                expires: Some(test_util::NOW.saturating_add(3_600)),
                tag: MessageTag(1),
                version: ProtocolVersion::V2,
            };
            let sealed = seal(request, SealSecrets::random(&mut rng))?;
            Ok(encode_envelope(&sealed.header, &sealed.body))
        })
        .collect()
}

/// Runs frames through a fresh stack with a fresh store, half of them in each of two lanes.
async fn relay(
    identity: &Arc<NodeIdentity>,
    directory: &Directory,
    frames: &[Bytes],
) -> anyhow::Result<f64> {
    let home = tempfile::tempdir_in(".").context("a folder for the store")?;
    let room = Quota {
        rows: 1_000_000,
        bytes: 8 << 30,
    };
    let store = Store::open(
        home.path(),
        StoreConfig {
            durability: Durability::Eventual,
            limits: Limits {
                capacity: room,
                per_recipient: room,
                per_deliverer: room,
                ..Limits::default()
            },
            ..StoreConfig::default()
        },
    )?;
    let clock: SharedClock = Arc::new(ManualClock::new(test_util::NOW));
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
    let bans = BanPolicy::new(
        AttributionProfile::Strict,
        BanTerms::default(),
        directory.clone(),
        Arc::clone(&clock),
    );
    let saf = Saf::new(
        &Config {
            // One deliverer brings all of it.
            deliverer_rate: 1_000_000,
            deliverer_burst: 1_000_000,
            ..Config::default()
        },
        SafParts {
            identity: Arc::clone(identity),
            directory: directory.clone(),
            connections: Connections::new(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            store: Some(store.clone()),
            ledger: Arc::new(Ledger::in_memory()),
            send_queue: Arc::new(Still),
            responses: dht_stack::ByteBudget::new(64 << 20),
            bans,
            dedup: DedupTable::new(1_000, [2; 16]),
        },
    );
    let send_queue = Arc::new(Count::default());
    let runtime = runtime(
        Arc::clone(identity),
        directory.clone(),
        clock,
        entropy,
        Arc::clone(&send_queue),
    );
    let stack = || {
        let deliver =
            service_fn(|_: Delivered| async { Ok::<_, BoxError>(Disposition::Delivered) });
        Inbound::new(InboundConfig::default(), runtime.clone(), deliver)
            .push_protocol()
            .push(saf.layer())
            .push_forward()
            .push_option(saf.store_layer())
            .push_crypto()
            .push_filters()
            .into_inner()
    };
    let alice = test_util::identity(1);
    let source = Arc::new(RemotePeer::new(*alice.public_key(), alice.features()));
    let mut halves = [Vec::new(), Vec::new()];
    for (index, frame) in frames.iter().enumerate() {
        if let Some(half) = halves.get_mut(index % WORKERS) {
            half.push(InboundFrame {
                source: Arc::clone(&source),
                frame: Bytes::from(frame.to_vec()),
                permit: BytePermit::none(),
            });
        }
    }
    let start = now();
    let lanes =
        halves.map(|messages| tokio::spawn(lane(stack(), messages, Disposition::Forwarded, 0)));
    let mut forwarded = 0;
    for lane in lanes {
        forwarded += lane.await.unwrap_or(0);
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(forwarded, frames.len(), "every message is handed over");
    assert_eq!(send_queue.0.load(Relaxed), frames.len());
    assert_eq!(store.stats().rows, frames.len() as u64, "and stored");
    tokio::task::block_in_place(|| store.close());
    Ok(frames.len() as f64 / seconds)
}
