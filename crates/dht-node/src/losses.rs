//! Has messages that the inbox lost to damage forgotten wherever they were noted as received.

use std::{collections::HashSet, sync::Arc, time::Duration};

use dht_core::DedupHash;
use dht_dedup::{DedupTable, SnapshotFile};
use dht_spool::Inbox;
use tokio::time::{MissedTickBehavior, interval};

use crate::saf::SafHandle;

/// How often the inbox is asked for losses.
const INTERVAL: Duration = Duration::from_secs(10);

/// The inbox that loses messages, and who notes that they were received.
pub(crate) struct Losses {
    pub(crate) inbox: Inbox,
    pub(crate) saf: SafHandle,
    pub(crate) dedup: DedupTable,
    pub(crate) snapshot: Option<SnapshotFile>,
}

impl Losses {
    /// Has everything forgotten that the inbox has lost, durably, and tells the inbox so. What fails is tried again by the
    /// next call.
    pub(crate) async fn forget(&self) {
        let lost = self.inbox.lost();
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            messages = lost.hashes.len(),
            others = lost.others,
            "a damaged inbox has lost messages: nodes that store them are asked for them again"
        );
        let hashes: Arc<HashSet<_>> = Arc::new(lost.hashes.iter().copied().collect());
        let (inbox, others) = (self.inbox.clone(), lost.others);
        let is_lost =
            move |hash: &DedupHash| (others || hashes.contains(hash)) && !inbox.contains(hash);
        if !self.saf.forget_lost(is_lost.clone()).await {
            return;
        }
        self.dedup.forget(is_lost);
        if let Some(snapshot) = &self.snapshot
            && !snapshot.save().await
        {
            return;
        }
        // Hashes that it still names are forgotten once more.
        let _ = self.inbox.forget_lost(lost).await;
    }

    /// The same again and again, for rows that are found damaged later.
    pub(crate) async fn watch(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.forget().await;
        }
    }
}
