//! The two whole stacks on two worker threads, with 1 kB payloads.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use dht_core::{
    Deliverer, Destination, Disposition, Encryption, ManualClock, Message, NodeIdentity,
    OnDelivery, Payload, RemotePeer, SeededEntropy, SendParams, SendQueue, SendQueueError,
    SendRequest, SharedClock, SharedEntropy, test_util,
};
use dht_inbound::{Delivered, Inbound, InboundConfig, InboundRuntime, RateLimiter, RateLimits};
use dht_outbound::{Outbound, OutboundMessage, PipelineParts, pipeline};
use dht_peers::{
    Connections, Direction, Directory, InboundFrame, PeerRecord,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_spool::{Arrival, Inbox, InboxConfig, NewRow};
use dht_stack::BytePermit;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::runtime::Runtime;
use tower::{BoxError, Service, ServiceExt, service_fn};

use crate::{
    envelope::{Kind, frame_of},
    primitives::Floors,
    report::{Report, Row},
    sample::{Effort, median, now},
};

/// Worker threads of these rows, and lanes of the stacks.
pub(crate) const WORKERS: usize = 2;
/// Messages under way in a lane.
pub(crate) const BURST: usize = 64;
/// Messages of a lane that wait for the disk.
const DURABLE_OPEN: usize = 1_024;
pub(crate) const PAYLOAD: usize = 1_000;
pub(crate) const WIRE_BODY: usize = 6_016;

/// Takes what the inbound stack sends and counts it.
#[derive(Default)]
pub(crate) struct Count(pub(crate) AtomicUsize);

impl SendQueue for Count {
    fn try_send(&self, _: SendRequest) -> Result<(), SendQueueError> {
        self.0.fetch_add(1, Relaxed);
        Ok(())
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
    let per_second = |micros: f64| Some(WORKERS as f64 * 1e6 / micros);
    let verify = per_second(floors.verify(WIRE_BODY));
    let rows = [
        (
            "inbound.clear",
            "one clear 1 kB message, from the frame to the sink",
            Kind::Clear,
            None,
            None,
            Disposition::Delivered,
        ),
        (
            "inbound.signed",
            "one clear signed 1 kB message, from the frame to the sink",
            Kind::Signed,
            per_second(floors.verify(PAYLOAD)),
            Some(50_000.0),
            Disposition::Delivered,
        ),
        (
            "inbound.ours",
            "one encrypted 1 kB message for this node, from the frame to the sink",
            Kind::ToBob,
            per_second(floors.open(WIRE_BODY)),
            Some(18_000.0),
            Disposition::Delivered,
        ),
        (
            "inbound.relay",
            "one encrypted 1 kB message for another, verified and handed over for forwarding",
            Kind::ToCarol,
            verify,
            Some(50_000.0),
            Disposition::Forwarded,
        ),
    ];
    for (name, work, kind, floor, target, expected) in rows {
        if !report.wants(name) {
            continue;
        }
        let frames = frames(kind, effort.messages)?;
        let row = Row {
            floor,
            target,
            ..Row::new(name, "messages/s", work)
        };
        report.row(row, || {
            rate(effort, || {
                runtime.block_on(inbound(&frames, None, expected, None))
            })
        });
    }
    if report.wants("inbound.ours.durable") {
        durable(report, effort, &runtime)?;
    }
    if report.wants("inbound.duplicate") {
        let first = frames(Kind::ToBob, 1)?;
        let copies: Vec<Bytes> = first
            .iter()
            .cycle()
            .take(effort.messages * 20)
            .cloned()
            .collect();
        let duplicate = Disposition::Dropped(dht_core::DropReason::Duplicate);
        let row = Row::new(
            "inbound.duplicate",
            "messages/s",
            "an exact copy of a message already seen, dropped",
        );
        report.row(row.target(300_000.0), || {
            rate(effort, || {
                runtime.block_on(inbound(&copies, first.first(), duplicate, None))
            })
        });
    }
    let seal = WORKERS as f64 * 1e6 / floors.seal(WIRE_BODY);
    let rows = [
        (
            "outbound.direct",
            "one 1 kB message encrypted and queued for its recipient",
            1,
            22_000.0,
        ),
        (
            "outbound.broadcast8",
            "one 1 kB message encrypted and queued for eight peers",
            8,
            20_000.0,
        ),
    ];
    for (name, work, peers, target) in rows {
        let row = Row::new(name, "requests/s", work)
            .floor(seal)
            .target(target);
        report.row(row, || {
            rate(effort, || {
                runtime.block_on(send_out(effort.messages, peers))
            })
        });
    }
    Ok(())
}

/// The row of a node with a home: what is for it ends in an inbox on disk, in a file beside this program. The floor is the
/// same without the inbox.
fn durable(report: &mut Report, effort: Effort, runtime: &Runtime) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("no directory of the program")?;
    let frames = frames(Kind::ToBob, effort.messages)?;
    let delivered = Disposition::Delivered;
    let in_memory = rate(effort, || {
        runtime.block_on(inbound(&frames, None, delivered, None))
    });
    let mut samples = Vec::new();
    for _ in 0..effort.samples {
        let directory = tempfile::tempdir_in(beside)?;
        let inbox = Inbox::open(
            directory.path().join("inbox.redb"),
            InboxConfig::default(),
            dht_core::UnixSeconds(0),
        )?;
        samples.push(runtime.block_on(inbound(&frames, None, delivered, Some(inbox))));
    }
    let row = Row::new(
        "inbound.ours.durable",
        "messages/s",
        "one encrypted 1 kB message for this node, from the frame into its inbox on disk",
    );
    report.row(
        row.floor(in_memory).target((0.7 * in_memory).round()),
        || median(samples),
    );
    Ok(())
}

/// Median of samples, each a number of messages per second.
fn rate(effort: Effort, mut sample: impl FnMut() -> f64) -> f64 {
    median((0..effort.samples).map(|_| sample()).collect())
}

fn frames(kind: Kind, count: usize) -> anyhow::Result<Vec<Bytes>> {
    (0..count as u64)
        .map(|seed| frame_of(kind, PAYLOAD, seed))
        .collect()
}

/// A node without limits on what a deliverer sends.
pub(crate) fn runtime(
    identity: Arc<NodeIdentity>,
    directory: Directory,
    clock: SharedClock,
    entropy: SharedEntropy,
    send_queue: Arc<Count>,
) -> InboundRuntime {
    let bans = BanPolicy::new(
        AttributionProfile::Strict,
        BanTerms::default(),
        directory.clone(),
        Arc::clone(&clock),
    );
    InboundRuntime {
        limiter: RateLimiter::new(RateLimits::NONE, [3; 16]),
        directory,
        bans,
        send_queue,
        ..InboundRuntime::new(identity, clock, entropy)
    }
}

/// Runs frames through a fresh stack at Bob's, half of them in each of two lanes, and into an inbox if there is one.
async fn inbound(
    frames: &[Bytes],
    primed: Option<&Bytes>,
    expected: Disposition,
    inbox: Option<Inbox>,
) -> f64 {
    let clock: SharedClock = Arc::new(ManualClock::new(test_util::NOW));
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
    let identity = Arc::new(test_util::identity(2));
    let directory = Directory::new(*identity.node_id());
    let send_queue = Arc::new(Count(AtomicUsize::new(0)));
    let runtime = runtime(identity, directory, clock, entropy, send_queue);
    // As a node does: a queue of signatures for each worker.
    let stack = || {
        let inbox = inbox.clone();
        let deliver = service_fn(move |delivered: Delivered| {
            let insertion = inbox.as_ref().map(|inbox| inbox.insert(row(delivered)));
            async move {
                if let Some(insertion) = insertion {
                    insertion.await?;
                }
                Ok::<_, BoxError>(Disposition::Delivered)
            }
        });
        Inbound::new(InboundConfig::default(), runtime.clone(), deliver)
            .push_protocol()
            .push_forward()
            .push_crypto()
            .push_filters()
            .into_inner()
    };
    let alice = test_util::identity(1);
    let source = Arc::new(RemotePeer::new(*alice.public_key(), alice.features()));
    // A buffer of its own for each, as the transport hands them in.
    let received = |frame: &Bytes| InboundFrame {
        source: Arc::clone(&source),
        frame: Bytes::from(frame.to_vec()),
        permit: BytePermit::none(),
    };
    if let Some(first) = primed {
        let _delivered = stack().oneshot(received(first)).await;
    }
    let mut halves = [Vec::new(), Vec::new()];
    for (index, frame) in frames.iter().enumerate() {
        if let Some(half) = halves.get_mut(index % WORKERS) {
            half.push(received(frame));
        }
    }
    let start = now();
    let open = if inbox.is_some() { DURABLE_OPEN } else { 0 };
    let lanes = halves.map(|messages| tokio::spawn(lane(stack(), messages, expected, open)));
    let mut as_expected = 0;
    for lane in lanes {
        as_expected += lane.await.unwrap_or(0);
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(
        as_expected,
        frames.len(),
        "every message must end as {expected:?}"
    );
    frames.len() as f64 / seconds
}

/// Message that a node inserts into its inbox.
fn row(delivered: Delivered) -> NewRow {
    NewRow {
        received_at: test_util::NOW,
        origin: delivered.origin,
        origin_is_proven: true,
        message_type: 1,
        payload: delivered.parts.get(1).cloned().unwrap_or_default(),
        via: delivered.source.node_id,
        deliverer: Deliverer::from(&*delivered.source),
        arrival: Arrival::Live,
        hash: delivered.hash,
    }
}

/// Runs messages through a stack in bursts. As a worker of a node does, leaves up to `open` of them waiting when it goes
/// on to the next burst.
pub(crate) async fn lane<S>(
    mut stack: S,
    messages: Vec<InboundFrame>,
    expected: Disposition,
    open: usize,
) -> usize
where
    S: Service<InboundFrame, Response = Disposition, Error = BoxError>,
{
    let mut as_expected = 0;
    let mut waiting = FuturesUnordered::new();
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() || !waiting.is_empty() {
        // As a node's lane does: a burst is called first and polled then.
        for message in messages.by_ref().take(BURST) {
            if poll_fn(|cx| stack.poll_ready(cx)).await.is_ok() {
                waiting.push(stack.call(message));
            }
        }
        let open = if messages.peek().is_some() { open } else { 0 };
        let mut ended = Vec::new();
        while let Some(Some(disposition)) = waiting.next().now_or_never() {
            ended.push(disposition);
        }
        while waiting.len() > open
            && let Some(disposition) = waiting.next().await
        {
            ended.push(disposition);
        }
        as_expected += ended
            .into_iter()
            .filter(|d| matches!(d, Ok(d) if *d == expected))
            .count();
        // A lane of a node also lets others run now and then.
        tokio::task::yield_now().await;
    }
    as_expected
}

/// Sends encrypted messages from Alice to Bob, directly or through eight connected peers.
async fn send_out(messages: usize, peers: u32) -> f64 {
    let clock: SharedClock = Arc::new(ManualClock::new(test_util::NOW));
    let alice: Arc<NodeIdentity> = Arc::new(test_util::identity(1));
    let bob = test_util::public_key(2);
    let (connections, directory) = (Connections::new(), Directory::new(*alice.node_id()));
    for seed in 2..2 + u64::from(peers) {
        let peer = test_util::identity(seed);
        let (key, features) = (*peer.public_key(), peer.features());
        connections.insert(
            Arc::new(RemotePeer::new(key, features)),
            Direction::Outbound,
        );
        directory.add_or_update(
            PeerRecord::seed(key, features, [], test_util::NOW),
            test_util::NOW,
        );
    }
    let parts = PipelineParts {
        identity: alice,
        connections,
        directory,
        clock,
        entropy: Arc::new(SeededEntropy::new(3)),
        dedup: dht_dedup::DedupTable::new(dht_dedup::DEFAULT_CAPACITY, [2; 16]),
    };
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let config = dht_outbound::Config::default();
    let pipeline = pipeline(
        parts,
        &config,
        service_fn(move |message: OutboundMessage| {
            counter.fetch_add(1, Relaxed);
            message.reply.send(Ok(()));
            std::future::ready(Ok::<_, BoxError>(()))
        }),
    );
    let (outbound, _worker) = Outbound::new(&config, pipeline);
    let start = now();
    let callers = [(); WORKERS].map(|()| {
        let outbound = outbound.clone();
        tokio::spawn(async move {
            for _ in 0..messages / WORKERS {
                let builder = match peers {
                    1 => SendParams::builder().direct_public_key(bob),
                    _ => SendParams::builder().broadcast(Vec::new()),
                };
                let params = builder
                    .with_destination(Destination::PublicKey(bob))
                    .with_encryption(Encryption::EncryptFor(bob))
                    .finish();
                let message = Message::new(1, vec![7; PAYLOAD]);
                let request = SendRequest::new(params, Payload::Domain(message));
                let _queued = outbound.send(request).await;
            }
        })
    });
    for caller in callers {
        let _ended = caller.await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let sent = messages / WORKERS * WORKERS;
    assert_eq!(
        taken.load(Relaxed),
        sent * usize::try_from(peers).unwrap_or(0),
        "every message must be taken"
    );
    sent as f64 / seconds
}
