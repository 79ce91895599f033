//! What the application does with store-and-forward.

use std::time::Duration;

use dht_core::{Destination, Encryption, PublicKey};
use dht_outbound::SendParams;
use dht_saf::{Round, SafEvent, StoreStats};
use futures::StreamExt as _;
use tokio::{sync::broadcast, time::timeout};

use crate::{Message, Node, SendError};

/// Longest time [`Node::fetch_stored`] waits: every peer has its time, and pages take longer.
const FETCH_LIMIT: Duration = Duration::from_secs(300);

/// What became of a message that was [posted](Node::post).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posted {
    /// The recipient itself is connected and was sent the message; else it went to nodes close to it.
    pub direct: bool,
    /// Peers whose sockets took the message.
    pub sent: usize,
    /// Peers that could not be reached.
    pub failed: usize,
}

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
    /// Sends a message that only `to` can read, whether or not it is there: directly if it is connected, else to
    /// the nodes closest to it, which keep it until it returns. Waits until the message has left, for some of them.
    ///
    /// It reaches the recipient's node at least once while one of those nodes survives and the message has not
    /// expired, three hours from now; its application gets it at most once.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodyConnected`] if nobody took it.
    pub async fn post(&self, to: &PublicKey, message: Message) -> Result<Posted, SendError> {
        let target = to.node_id();
        let direct = self.connections.contains(&target);
        let params = SendParams::builder();
        let params = if direct {
            params.direct_public_key(*to)
        } else {
            params.closest(target, vec![target])
        };
        let params = params
            .with_destination(Destination::PublicKey(*to))
            .with_encryption(Encryption::EncryptFor(*to));
        let mut deliveries = self.request(params.finish(), message).await?.into_stream();
        let mut posted = Posted {
            direct,
            ..Posted::default()
        };
        let mut last = None;
        while let Some(delivery) = deliveries.next().await {
            match delivery.result {
                Ok(()) => posted.sent = posted.sent.saturating_add(1),
                Err(failure) => {
                    posted.failed = posted.failed.saturating_add(1);
                    last = Some(failure);
                }
            }
        }
        match last {
            Some(failure) if posted.sent == 0 => Err(SendError::NotDelivered(failure)),
            _ => Ok(posted),
        }
    }

    /// Asks up to eight connected nodes for mail they keep for this node, and waits until each has said all it has
    /// or is given up. The messages come to the [inboxes](Node::subscribe); subscribe first.
    ///
    /// Peers are also asked without this when they connect.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_stored(&self) -> Result<Round, FetchError> {
        let saf = self.mail.saf().ok_or(FetchError::Disabled)?;
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
    pub async fn caught_up(&self) -> Result<Option<Round>, FetchError> {
        let saf = self.mail.saf().ok_or(FetchError::Disabled)?;
        let mut events = saf.subscribe();
        if !saf.is_asking() {
            return Ok(None);
        }
        caught_up(&mut events).await.map(Some)
    }

    /// Events of store-and-forward from now on; `None` if it is switched off.
    #[must_use]
    pub fn saf_events(&self) -> Option<broadcast::Receiver<SafEvent>> {
        self.mail.saf().map(dht_saf::Saf::subscribe)
    }

    /// What this node keeps for others; `None` if it keeps nothing.
    #[must_use]
    pub fn saf_stats(&self) -> Option<StoreStats> {
        Some(self.mail.saf()?.store()?.stats())
    }
}

async fn caught_up(events: &mut broadcast::Receiver<SafEvent>) -> Result<Round, FetchError> {
    let round = async {
        loop {
            match events.recv().await {
                Ok(SafEvent::CaughtUp(round)) => return Ok(round),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(FetchError::Unfinished),
            }
        }
    };
    timeout(FETCH_LIMIT, round)
        .await
        .unwrap_or(Err(FetchError::Unfinished))
}
