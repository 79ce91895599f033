//! Starts store-and-forward, runs it, and closes its files.

use std::{fmt, sync::Arc, time::Duration};

use dht_core::{Clock as _, CompressedKey, NodeId, RemotePeer, SendQueue};
use dht_dedup::DedupEntry;
use dht_mailbox::{Store, StoreConfig, StoreError};
use dht_saf::{Saf, SafEvent, SafLayer, SafParts, StoreLayer};
use dht_stack::{ByteBudget, off_thread};
use tokio::{
    sync::broadcast,
    time::{MissedTickBehavior, interval},
};

use super::files;
use crate::{
    config::Config,
    context::NodeContext,
    events::{Event, Events},
    expiry_clock::ExpiryClock,
    home::Home,
    tasks::Tasks,
};

/// How often overdue requests end and received messages are recorded.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two deletions of expired messages: ten minutes (05 section 4).
const TICKS_PER_CLEAN_UP: u32 = 600;

/// Store-and-forward of a node, if the configuration enables it. Clones share it.
#[derive(Clone)]
pub(crate) struct SafHandle(Option<Saf>);

/// Opens the files in `home`, or in memory without one, and starts the tasks of store-and-forward. Messages are stored for
/// others if there are settings of the `store`.
///
/// # Errors
/// [`StoreError`] if the store or the ledger cannot be opened.
pub(crate) async fn start(
    home: Option<&Home>,
    config: &Config,
    store: Option<StoreConfig>,
    shared: &NodeContext,
    send_queue: Arc<dyn SendQueue>,
    responses: ByteBudget,
    tasks: &Tasks,
) -> Result<SafHandle, StoreError> {
    if !config.saf.enabled {
        return Ok(SafHandle(None));
    }
    let (store, ledger) = match home.and_then(Home::folder) {
        Some(folder) => {
            let folder = files::saf_folder(folder);
            let opened = off_thread(true, move || files::open(&folder, store)).await;
            opened.unwrap_or(Err(StoreError::Closed))?
        }
        None => files::open_in_memory(home.and_then(Home::memory), store)?,
    };
    // Messages received before this start are duplicates from the first message on.
    let received = ledger.snapshot().into_iter();
    let received = received.map(|(key, until)| DedupEntry {
        key,
        occurrences: 1,
        until,
        signed: true,
    });
    shared.dedup.restore(received, shared.clock.now());
    let parts = SafParts {
        identity: Arc::clone(&shared.identity),
        directory: shared.directory.clone(),
        connections: shared.connections.clone(),
        clock: Arc::clone(&shared.clock),
        entropy: Arc::clone(&shared.entropy),
        store,
        ledger,
        send_queue,
        responses,
        bans: shared.bans.clone(),
        dedup: shared.dedup.clone(),
    };
    let saf = Saf::new(&config.saf, parts);
    tasks.spawn(
        "store-and-forward events",
        forward_events(saf.subscribe(), shared.events.clone()),
    );
    tasks.spawn(
        "store-and-forward upkeep",
        upkeep(
            saf.clone(),
            Arc::clone(&shared.expiry),
            shared.events.clone(),
        ),
    );
    Ok(SafHandle(Some(saf)))
}

impl SafHandle {
    pub(crate) const fn get(&self) -> Option<&Saf> {
        self.0.as_ref()
    }

    /// The layer that stores messages for others, and the layer that serves and fetches.
    pub(crate) fn layers(&self) -> (Option<StoreLayer>, Option<SafLayer>) {
        match &self.0 {
            Some(saf) => (saf.store_layer(), Some(saf.layer())),
            None => (None, None),
        }
    }

    pub(crate) fn connected(&self, peer: &RemotePeer) {
        if let Some(saf) = &self.0 {
            saf.connected(peer);
        }
    }

    pub(crate) fn disconnected(&self, peer: &NodeId, key: Option<&CompressedKey>) {
        if let Some(saf) = &self.0 {
            saf.disconnected(peer, key);
        }
    }

    /// An application listens: messages stored for this node can be requested.
    pub(crate) fn listen(&self) {
        if let Some(saf) = &self.0 {
            saf.listen();
        }
    }

    /// Bytes of the messages received that are remembered; 0 without store-and-forward.
    pub(crate) fn ledger_bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |saf| saf.ledger().allocated_bytes())
    }

    /// Messages have left the inbox, or a subscription.
    pub(crate) fn room_made(&self) {
        if let Some(saf) = &self.0 {
            saf.room_made();
        }
    }

    /// The inbox has lost messages; false if it could not be written that they are to come again.
    #[cfg(feature = "spool")]
    pub(crate) async fn forget_lost(
        &self,
        is_lost: impl Fn(&dht_core::DedupHash) -> bool + Clone + Send + 'static,
    ) -> bool {
        match &self.0 {
            Some(saf) => saf.forget_lost(is_lost).await,
            None => true,
        }
    }

    /// Writes what is pending and closes the files, so that they can be opened again.
    pub(crate) async fn close(&self) {
        let Some(saf) = self.0.clone() else { return };
        let blocks = saf.ledger().blocks() || saf.store().is_some_and(Store::blocks);
        let closed = off_thread(blocks, move || {
            if let Err(error) = saf.ledger().close() {
                tracing::warn!(%error, "received messages may be forgotten");
            }
            if let Some(store) = saf.store() {
                store.close();
            }
        });
        // It fails only if the runtime shuts down, which closes the files too.
        let _ = closed.await;
    }
}

impl fmt::Debug for SafHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SafHandle").field(&self.0).finish()
    }
}

async fn upkeep(saf: Saf, expiry: Arc<ExpiryClock>, events: Events) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        if expiry.is_believed() {
            saf.clean_up().await;
        }
        for _ in 0..TICKS_PER_CLEAN_UP {
            ticks.tick().await;
            saf.tick().await;
            failed = failed || saf.store().is_some_and(|store| report_dead(store, &events));
        }
    }
}

/// Tells the operator and the application that the store's writer has died, if it has. The store refuses every message
/// and request from then on.
fn report_dead(store: &Store, events: &Events) -> bool {
    let Err(error @ StoreError::WriterDied) = store.health() else {
        return false;
    };
    events.fail("store-and-forward", &error.to_string());
    true
}

async fn forward_events(mut from: broadcast::Receiver<SafEvent>, to: Events) {
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

#[cfg(test)]
mod tests {
    use dht_core::{DedupHash, Deliverer, UnixSeconds};
    use dht_mailbox::{
        NewRecord, Recipient, Retention, StoreConfig,
        test_util::{Faults, FaultyDisk},
    };

    use super::*;

    #[tokio::test]
    async fn dead_store_is_reported() {
        let disk = FaultyDisk::new();
        let store = Store::open_on(disk.clone(), StoreConfig::default()).unwrap();
        let events = Events::new();
        let mut stream = events.subscribe();
        assert!(!report_dead(&store, &events));
        let record = NewRecord {
            recipient: Recipient::from_bytes([1; 32]),
            deliverer: Deliverer::from_bytes([2; 32]),
            hash: DedupHash([3; 32]),
            retention: Retention::High,
            expires: None,
            header: "header".into(),
            body: "body".into(),
        };
        disk.set_faults(Faults {
            fail_at: Some(disk.operations()),
            panics: true,
            ..Faults::default()
        });
        store
            .submit(record, UnixSeconds(0))
            .unwrap()
            .await
            .unwrap_err();
        // The answer may come before the thread has ended.
        while store.health().is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(report_dead(&store, &events));
        let event = stream.recv().await.unwrap();
        assert!(
            matches!(
                event,
                Event::Failed {
                    part: "store-and-forward",
                    ..
                }
            ),
            "{event:?}"
        );
    }
}
