//! Starting and stopping.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dht_core::{Clock as _, Features, NodeId, PublicKey, RemotePeer};
use dht_dedup::DedupEntry;
use dht_mailbox::{MemoryDisk, Store, StoreConfig, StoreError};
use dht_saf::{
    Ledger, RECEIPT_PROTOCOL, Saf, SafEvent, SafLayer, SafParts, StoreLayer, serve_receipts,
};
use dht_transport::{Builder, InboundStream};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, mpsc},
    time::{MissedTickBehavior, interval},
};

use super::MailParts;
use crate::{Config, Event, StartError, channels, events::Events, tasks::Tasks};

/// How often silent peers are given up and what came is written down.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two times at which old mail is deleted: ten minutes (specification 05, section 4).
const TICKS_A_CLEAN_UP: u32 = 600;

/// The folder of the store, within a node's home.
const FOLDER: &str = "saf";
/// The file of received messages, within that.
const LEDGER: &str = "ledger.redb";

/// Store-and-forward of a node, if it is enabled.
#[derive(Clone)]
pub(crate) struct SafHandle {
    saf: Option<Saf>,
    /// Who asks for receipts; taken once, by the task that answers.
    receipts: Receipts,
}

/// The streams of peers that ask for receipts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipts(Arc<Mutex<Option<mpsc::Receiver<InboundStream>>>>);

impl Receipts {
    /// Has the transport offer receipts, on a node that has any to give.
    pub(crate) fn offer(
        transport: Builder,
        config: &Config,
        features: Features,
    ) -> (Builder, Self) {
        if !config.saf.enabled || !features.contains(Features::DHT_STORE_FORWARD) {
            return (transport, Self::default());
        }
        let (sender, streams) = channels::RECEIPT_STREAMS.open();
        let transport = transport.serve(RECEIPT_PROTOCOL, sender);
        (transport, Self(Arc::new(Mutex::new(Some(streams)))))
    }
}

/// Opens the files and puts store-and-forward together: the handle, and the two layers of the inbound stack.
pub(crate) async fn start(
    home: Option<&Path>,
    config: &Config,
    parts: MailParts,
) -> Result<(SafHandle, Option<StoreLayer>, Option<SafLayer>), StartError> {
    if !config.saf.enabled {
        let mail = SafHandle {
            saf: None,
            receipts: parts.receipts,
        };
        return Ok((mail, None, None));
    }
    let stores = parts
        .identity
        .features()
        .contains(Features::DHT_STORE_FORWARD);
    let folder = home.map(saf_folder);
    let store_config = stores.then(|| match home {
        Some(_) => config.saf.store(),
        None => config.saf.store_in_memory(config.memory_mib),
    });
    let path = folder.clone().unwrap_or_default();
    let opened = tokio::task::spawn_blocking(move || open(folder.as_deref(), store_config)).await;
    let opened = opened.unwrap_or(Err(StoreError::Closed));
    let (store, ledger) = opened.map_err(|source| StartError::Store { path, source })?;
    let now = parts.clock.now();
    // What came before this run is known to the stack from its first message on.
    let known = ledger
        .snapshot()
        .into_iter()
        .map(|(key, until)| DedupEntry {
            key,
            occurrences: 1,
            until,
            signed: true,
        });
    parts.dedup.restore(known, now);
    let saf = Saf::new(
        &config.saf,
        SafParts {
            identity: parts.identity,
            directory: parts.directory,
            connections: parts.connections,
            clock: parts.clock,
            entropy: parts.entropy,
            store,
            ledger,
            outbox: parts.outbox,
            bans: parts.bans,
            dedup: parts.dedup,
        },
    );
    let (store, serve) = (saf.store_layer(), saf.layer());
    let mail = SafHandle {
        saf: Some(saf),
        receipts: parts.receipts,
    };
    Ok((mail, store, Some(serve)))
}

fn open(
    folder: Option<&Path>,
    config: Option<StoreConfig>,
) -> Result<(Option<Store>, Ledger), StoreError> {
    let Some(folder) = folder else {
        let store = config.map(|config| Store::open_on(MemoryDisk::new(), config));
        return Ok((store.transpose()?, Ledger::in_memory()?));
    };
    // The store first: it makes the folder, and its lock guards the ledger too.
    let store = match config {
        Some(config) => Some(Store::open(folder, config)?),
        None => {
            std::fs::create_dir_all(folder)?;
            None
        }
    };
    Ok((store, Ledger::open(folder.join(LEDGER))?))
}

/// Tells whoever watches the node.
async fn pass_on(mut from: broadcast::Receiver<SafEvent>, to: Events) {
    loop {
        match from.recv().await {
            Ok(event) => to.publish(|| Event::Saf(event)),
            Err(broadcast::error::RecvError::Lagged(events)) => {
                to.publish(|| Event::Missed { events });
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Where a node with this home keeps mail for others.
#[must_use]
pub fn saf_folder(home: &Path) -> PathBuf {
    home.join(FOLDER)
}

/// Where it notes what it has received.
#[must_use]
pub fn ledger_file(home: &Path) -> PathBuf {
    saf_folder(home).join(LEDGER)
}

/// What to do about an error, for people.
pub(crate) const fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Locked => "; stop the node that runs with this home, or use another --home",
        StoreError::NewerFormat { .. } => "; use the newer version, or another --home",
        StoreError::DiskFull => "; make room on the disk",
        StoreError::Io(io::ErrorKind::InvalidData) => {
            "; if it stays so, move ledger.redb away, without which a message may be delivered twice"
        }
        _ => "",
    }
}

impl SafHandle {
    pub(crate) const fn saf(&self) -> Option<&Saf> {
        self.saf.as_ref()
    }

    pub(crate) fn spawn_upkeep(&self, tasks: &Tasks, events: &Events) {
        let Some(saf) = self.saf.clone() else { return };
        tasks.spawn(pass_on(saf.subscribe(), events.clone()));
        if let Some(mut streams) = self.receipts.0.lock().take() {
            let streams = futures::stream::poll_fn(move |cx| streams.poll_recv(cx));
            let streams = streams.map(|inbound| inbound.stream);
            tasks.spawn(serve_receipts(saf.clone(), streams));
        }
        tasks.spawn(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                saf.clean_up().await;
                for _ in 0..TICKS_A_CLEAN_UP {
                    ticks.tick().await;
                    saf.tick().await;
                }
            }
        });
    }

    pub(crate) fn connected(&self, peer: &RemotePeer) {
        if let Some(saf) = &self.saf {
            saf.connected(peer);
        }
    }

    pub(crate) fn disconnected(&self, peer: &NodeId, key: Option<&PublicKey>) {
        if let Some(saf) = &self.saf {
            saf.disconnected(peer, key);
        }
    }

    pub(crate) fn listen(&self) {
        if let Some(saf) = &self.saf {
            saf.listen();
        }
    }

    /// Writes everything down and closes the files, so that they can be opened again.
    pub(crate) async fn close(&self) {
        let Some(saf) = self.saf.clone() else { return };
        let closed = tokio::task::spawn_blocking(move || {
            if let Err(error) = saf.ledger().close() {
                tracing::warn!(%error, "received messages may be forgotten");
            }
            if let Some(store) = saf.store() {
                store.close();
            }
        });
        // It fails only if the runtime goes down, with all files.
        let _ = closed.await;
    }
}

impl fmt::Debug for SafHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SafHandle").field(&self.saf).finish()
    }
}
