//! Fetching the messages that other nodes store for this node.

use std::time::Duration;

use dht_mailbox::{Store, StoreStats};
use dht_saf::{FetchSummary, SafEvent};
use tokio::{sync::broadcast, time::timeout};

use super::Node;

/// Longest wait of [`Node::fetch_stored`]: each peer has its own limit, and several pages take longer.
const FETCH_LIMIT: Duration = Duration::from_secs(300);

/// Why stored messages were not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Store-and-forward is disabled on this node.
    #[error("store-and-forward is disabled; set saf.enabled in the configuration")]
    Disabled,
    /// No node is connected that could be asked.
    #[error("no node is connected that could store messages; connect to one first")]
    NobodyToAsk,
    /// The node is stopping, or peers did not finish in time.
    #[error("no peer finished answering")]
    Unfinished,
}

impl Node {
    /// Requests stored messages from up to eight connected nodes, and waits until each has sent all or is given up. The
    /// messages arrive in the [inboxes](Node::subscribe): subscribe first.
    ///
    /// A node also requests its messages from every peer that connects.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_stored(&self) -> Result<FetchSummary, FetchError> {
        let saf = self.saf.get().ok_or(FetchError::Disabled)?;
        let mut events = saf.subscribe();
        if saf.request_from_random_peers() == 0 {
            return Err(FetchError::NobodyToAsk);
        }
        caught_up(&mut events).await
    }

    /// Waits until every request for stored messages is answered or given up; returns `None` at once if there is none.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn caught_up(&self) -> Result<Option<FetchSummary>, FetchError> {
        let saf = self.saf.get().ok_or(FetchError::Disabled)?;
        let mut events = saf.subscribe();
        if !saf.is_fetching() {
            return Ok(None);
        }
        caught_up(&mut events).await.map(Some)
    }

    /// Events of store-and-forward from now on; `None` if it is disabled.
    #[must_use]
    pub fn saf_events(&self) -> Option<broadcast::Receiver<SafEvent>> {
        self.saf.get().map(dht_saf::Saf::subscribe)
    }

    /// Sizes of the store of messages for offline peers; `None` if this node stores none.
    #[must_use]
    pub fn saf_stats(&self) -> Option<StoreStats> {
        self.mailboxes().map(Store::stats)
    }

    /// The store of messages for offline peers; `None` if this node stores none.
    #[must_use]
    pub fn mailboxes(&self) -> Option<&Store> {
        self.saf.get()?.store()
    }

    /// Number of messages remembered as received; `None` if store-and-forward is disabled.
    #[must_use]
    pub fn remembered(&self) -> Option<usize> {
        Some(self.saf.get()?.ledger().received())
    }
}

async fn caught_up(events: &mut broadcast::Receiver<SafEvent>) -> Result<FetchSummary, FetchError> {
    let summary = async {
        loop {
            match events.recv().await {
                Ok(SafEvent::CaughtUp(summary)) => return Ok(summary),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(FetchError::Unfinished),
            }
        }
    };
    timeout(FETCH_LIMIT, summary)
        .await
        .unwrap_or(Err(FetchError::Unfinished))
}
