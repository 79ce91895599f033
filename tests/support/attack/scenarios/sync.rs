//! Attacks on the service that tells peers of peers, from both sides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, NodeId};
use dht_overlay::sync::{PEER_SYNC_PROTOCOL, PeerSyncClient};
use dht_proto::dht_rpc::{
    GetCloserPeersRequest, GetPeersRequest, GetPeersResponse, PeerIdentityClaim, PeerInfo,
};
use dht_rpc::{Caller, Router, Server, ServerConfig, Status};
use dht_transport::{BoxFuture, InboundStream, Substream};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    super::stage::{Scenario, Stage, claiming, listening_at},
    eclipse::{honest_around, keeps_honest_peers},
};
use crate::{load::Peer, loopback::ip, target::secret};

/// Streams that each hostile peer opens: more than a node serves one peer.
const STREAMS: usize = 16;

/// Peers that are asked for: the longest answer.
const MOST: u32 = 500;

/// Time in which an honest peer must have its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers of the methods that tell of peers.
const METHODS: [u32; 2] = [1, 10];

/// Time in which the node must ask a hostile peer for peers.
const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// Seeds of the keys that hostile peers tell of; each has a range of its own.
const TOLD: u64 = 1 << 45;

/// Keys in such a range.
const RANGE: u64 = 1 << 30;

/// Peers that a hostile peer may add to the directory with its answers.
const MOST_TOLD: usize = 8_000;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "peer-sync-sessions",
        "sessions that stay open, ask for ever, read no answer or send no frames",
        sessions,
    ),
    Scenario::new(
        "peer-sync-answers",
        "peers that tell of peers without end, of one again and again, of keys that signed nothing, or stall",
        answers,
    ),
    Scenario::new(
        "peer-sync-own-only",
        "three peers that tell of invented peers only, as many as they are asked for",
        own_only,
    ),
];

/// A hostile peer that the node asks for peers.
struct Source {
    _peer: Peer,
    asked: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// Answer to a request for peers.
type Told = BoxStream<'static, Result<GetPeersResponse, Status>>;

/// Answer of a hostile peer.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Other peers without end.
    ForEver,
    /// One peer without end.
    Repeats,
    /// Keys whose claims another key signed.
    Lies,
    /// Nothing, once it has begun.
    Stalls,
    /// Other peers, as many as were asked for.
    Own,
}

impl Way {
    /// The answer to a request for `count` peers; `first` is the seed of the first key.
    fn answer(self, first: u64, count: u32) -> Told {
        let count = count as usize;
        let others = move || stream::iter(first..).map(|seed| Ok(told(seed, seed)));
        match self {
            Self::ForEver => others().boxed(),
            Self::Repeats => {
                stream::iter(std::iter::repeat_with(move || Ok(told(first, first)))).boxed()
            }
            Self::Lies => stream::iter(first..)
                .map(move |seed| Ok(told(seed, first)))
                .take(count)
                .boxed(),
            Self::Stalls => others().take(1).chain(stream::pending()).boxed(),
            Self::Own => others().take(count).boxed(),
        }
    }
}

/// The key of seed `seed`, with a claim that the key of seed `signer` signed.
fn told(seed: u64, signer: u64) -> GetPeersResponse {
    let [.., a, b, c] = seed.wrapping_mul(0x9e37_79b9).to_be_bytes();
    let address = Address::tcp(ip(a, b, c).into(), 18_189);
    let claim = claiming(secret(signer), vec![address], 0).claim();
    let addresses = claim.addresses.iter();
    let claim = PeerIdentityClaim {
        addresses: addresses
            .map(|address| Bytes::copy_from_slice(address.as_bytes()))
            .collect(),
        peer_features: claim.features.bits(),
        identity_signature: Some((&claim.signature).into()),
    };
    GetPeersResponse {
        peer: Some(PeerInfo {
            public_key: Bytes::copy_from_slice(secret(seed).public_key().as_bytes()),
            claims: vec![claim],
        }),
    }
}

impl Source {
    /// Connects from network `network`.
    async fn connect(stage: &mut Stage, network: u8, way: Way) -> anyhow::Result<Self> {
        let (streams, mut opened) = mpsc::channel(STREAMS);
        let asked = Arc::<AtomicU64>::default();
        let next = AtomicU64::new(TOLD + RANGE * u64::from(network));
        let counter = Arc::clone(&asked);
        let answer = Arc::new(move |count: u32| {
            counter.fetch_add(1, Relaxed);
            way.answer(next.fetch_add(1_000, Relaxed), count)
        });
        let closer = Arc::clone(&answer);
        let [closer_peers, peers] = METHODS;
        let router = Router::new()
            .streaming(closer_peers, move |_, request: GetCloserPeersRequest| {
                std::future::ready(Ok(closer(request.n)))
            })
            .streaming(peers, move |_, request: GetPeersRequest| {
                std::future::ready(Ok(answer(request.n)))
            });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let streams = stream::poll_fn(|cx| opened.poll_recv(cx));
            let callers = streams.map(|inbound: InboundStream| {
                let caller = Caller {
                    peer: inbound.peer.node_id,
                    source: (),
                };
                (caller, inbound.stream)
            });
            Server::new(router, ServerConfig::default())
                .serve(callers)
                .await;
        });
        let key = secret(stage.seed());
        let service = Some((PEER_SYNC_PROTOCOL, streams));
        let from = ip(network, 1, 1);
        let peer = stage
            .hostile_as(key, listening_at(from), from, service)
            .await?;
        Ok(Self {
            _peer: peer,
            asked,
            _tasks: tasks,
        })
    }

    /// Waits until the node has asked for peers; whether it has.
    async fn is_asked(&self) -> bool {
        let start = Instant::now();
        while self.asked.load(Relaxed) == 0 && start.elapsed() < ASKED_WITHIN {
            sleep(Duration::from_millis(50)).await;
        }
        self.asked.load(Relaxed) > 0
    }
}

fn answers(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let ways = [Way::ForEver, Way::Repeats, Way::Lies, Way::Stalls];
        let mut sources = Vec::new();
        for (network, way) in (66..).zip(ways) {
            let before = stage.status()?.known;
            let source = Source::connect(stage, network, way).await?;
            let is_asked = source.is_asked().await;
            sleep(Duration::from_secs(1)).await;
            let known = stage.status()?.known.saturating_sub(before);
            stage.check(
                format!("{way:?}: asked, {known} of 1000 peers more known"),
                is_asked && known <= 1_000,
            );
            sources.push(source);
        }
        let lies = TOLD + RANGE * 68;
        // The first key of an answer did sign its claim.
        let mut believed = 0;
        for seed in lies + 1..lies + 20 {
            let key = secret(seed).public_key();
            believed += usize::from(stage.process().knows(&key)?);
        }
        stage.check(format!("{believed} lies believed"), believed == 0);
        stage.newcomers_are_served(2).await
    })
}

fn own_only(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let before = stage.status()?.known;
        let mut sources = Vec::new();
        for network in 66..69 {
            sources.push(Source::connect(stage, network, Way::Own).await?);
        }
        let mut asked = 0;
        for source in &sources {
            asked += usize::from(source.is_asked().await);
        }
        stage.check(format!("{asked} of 3 asked"), asked == 3);
        let honest = honest_around(stage).await?;
        sleep(Duration::from_secs(stage.scale(20, 5) as u64)).await;
        let known = stage.status()?.known - before;
        stage.check(
            format!("{known} of {MOST_TOLD} peers more known"),
            (100..=MOST_TOLD).contains(&known),
        );
        keeps_honest_peers(stage, &honest)?;
        stage.newcomers_are_served(2).await
    })
}

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

/// Behaviour of an honest peer.
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
