//! What the application does with store-and-forward.

use std::time::Duration;

use dht_mailbox::StoreStats;
use dht_saf::{FetchSummary, SafEvent};
use tokio::{sync::broadcast, time::timeout};

use crate::Node;

/// Longest time [`Node::fetch_stored`] waits: every peer has its time, and pages take longer.
const FETCH_LIMIT: Duration = Duration::from_secs(300);

/// Why stored mail was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Store-and-forward is switched off.
    #[error("store-and-forward is switched off; set saf.enabled in the configuration")]
    Disabled,
    /// No node is connected.
    #[error("no node is connected that could have mail; connect to one first")]
    NobodyToAsk,
    /// The node is stopping, or takes far too long.
    #[error("nobody finished answering")]
    Unfinished,
}

impl Node {
    /// Asks up to eight connected nodes for mail they keep for this node, and waits until each has said all it has
    /// or is given up. The messages come to the [inboxes](Node::subscribe); subscribe first.
    ///
    /// Peers are also asked without this when they connect.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_stored(&self) -> Result<FetchSummary, FetchError> {
        let saf = self.saf.saf().ok_or(FetchError::Disabled)?;
        let mut events = saf.subscribe();
        if saf.request_from_neighbours() == 0 {
            return Err(FetchError::NobodyToAsk);
        }
        caught_up(&mut events).await
    }

    /// Waits until everybody who is being asked for stored mail has answered; returns at once if nobody is.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn caught_up(&self) -> Result<Option<FetchSummary>, FetchError> {
        let saf = self.saf.saf().ok_or(FetchError::Disabled)?;
        let mut events = saf.subscribe();
        if !saf.is_fetching() {
            return Ok(None);
        }
        caught_up(&mut events).await.map(Some)
    }

    /// Events of store-and-forward from now on; `None` if it is switched off.
    #[must_use]
    pub fn saf_events(&self) -> Option<broadcast::Receiver<SafEvent>> {
        self.saf.saf().map(dht_saf::Saf::subscribe)
    }

    /// What this node keeps for others; `None` if it keeps nothing.
    #[must_use]
    pub fn saf_stats(&self) -> Option<StoreStats> {
        Some(self.saf.saf()?.store()?.stats())
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
