//! Bob as a node that keeps mail for absent peers.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use dht_core::{
    DedupHash, Entropy as _, Features, ManualClock, MessageType, RemotePeer, SecretKey,
    SeededEntropy, Severity, UnixSeconds, test_util,
};
use dht_peers::{Connections, Directory, PeerRecord};
use dht_saf::{
    BanSink, Done, Duplicates, Durability, Ledger, Limits, Outbox, OutboxFull, Rate, Room, Saf,
    SafConfig, SafParts, Store, StoreConfig,
};
use tempfile::TempDir;

/// Nodes nearest to Bob that make up his region.
const REGION: usize = 8;

/// Whom Bob knows, and his store if he keeps one.
pub(crate) struct Keeper {
    pub(crate) directory: Directory,
    pub(crate) saf: Option<Saf>,
    _files: Option<TempDir>,
}

/// Sends nothing, bans nobody, has seen nothing.
struct Nobody;

impl Outbox for Nobody {
    fn send(&self, _: &RemotePeer, _: MessageType, _: Bytes, _: Done) -> Result<(), OutboxFull> {
        Ok(())
    }
}

impl BanSink for Nobody {
    fn ban(&self, _: &RemotePeer, _: Severity, _: &'static str) {}
}

impl Duplicates for Nobody {
    fn record(&self, _: &DedupHash, _: bool, _: Option<UnixSeconds>, _: UnixSeconds) -> u32 {
        1
    }
}

/// Bob's directory with so many peers, nodes and clients by turns, of whom few enough are nearer to him than
/// Carol is: she is of his region without his knowing her.
pub(crate) fn directory(peers: usize) -> Directory {
    let me = *test_util::identity(2).node_id();
    let carol = me.distance(&test_util::public_key(3).node_id());
    let directory = Directory::new(me);
    let mut rng = SeededEntropy::new(21).rng();
    let mut nearer = 0;
    while directory.len() < peers {
        let key = SecretKey::random(&mut rng).public_key();
        if me.distance(&key.node_id()) < carol {
            nearer += 1;
            if nearer >= REGION {
                continue;
            }
        }
        let features = if directory.len().is_multiple_of(2) {
            Features::NODE
        } else {
            Features::CLIENT
        };
        let record = PeerRecord::new(key, features, test_util::NOW);
        directory.add_or_update(record, test_util::NOW);
    }
    directory
}

impl Keeper {
    /// Bob knows nobody and keeps nothing.
    pub(crate) fn nobody() -> Self {
        Self {
            directory: Directory::new(*test_util::identity(2).node_id()),
            saf: None,
            _files: None,
        }
    }

    /// An empty store on a real file, beside this program.
    pub(crate) fn open(directory: &Directory) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let beside = program.parent().context("no directory of the program")?;
        let files = tempfile::tempdir_in(beside)?;
        // One neighbour delivers everything.
        let room = Room {
            rows: 1_000_000,
            bytes: 1 << 40,
        };
        let settings = StoreConfig {
            durability: Durability::Eventual,
            limits: Limits {
                capacity: room,
                per_recipient: room,
                per_neighbour: room,
                ..Limits::default()
            },
            ..StoreConfig::default()
        };
        let config = SafConfig {
            region_size: REGION,
            neighbour_rate: Rate {
                per_second: 1_000_000,
                burst: 1_000_000,
            },
            ..SafConfig::default()
        };
        let saf = Saf::new(
            config,
            SafParts {
                identity: Arc::new(test_util::identity(2)),
                directory: directory.clone(),
                connections: Connections::new(),
                clock: Arc::new(ManualClock::new(test_util::NOW)),
                entropy: Arc::new(SeededEntropy::new(5)),
                store: Some(Store::open(files.path(), settings)?),
                ledger: Ledger::in_memory()?,
                outbox: Arc::new(Nobody),
                bans: Arc::new(Nobody),
                duplicates: Arc::new(Nobody),
            },
        );
        Ok(Self {
            directory: directory.clone(),
            saf: Some(saf),
            _files: Some(files),
        })
    }

    /// Rows in the store.
    pub(crate) fn rows(&self) -> u64 {
        let store = self.saf.as_ref().and_then(Saf::store);
        store.map_or(0, |store| store.stats().rows)
    }
}
