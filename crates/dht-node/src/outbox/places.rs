//! Room for messages that are being sent: where callers wait.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use dht_core::NodeId;
use dht_stack::{ByteBudget, BytePermit};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Messages sent at one time to recipients of one standing.
pub(super) const PLACES: usize = 1_024;
/// Of these for one recipient, so that one that does not read leaves room for the others.
const PLACES_A_RECIPIENT: usize = 256;
/// One recipient may take one part in this many of the bytes.
const BYTES_A_RECIPIENT: usize = 4;
/// Recipients whose shares are searched for unused ones.
const SWEEP: usize = 1_024;

/// Bounds the messages and bytes that are being sent to recipients of one standing, in all and for one recipient.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    bytes: ByteBudget,
    recipients: Mutex<BTreeMap<NodeId, Weak<Share>>>,
}

/// What one recipient may take.
#[derive(Debug)]
struct Share {
    places: Arc<Semaphore>,
    bytes: ByteBudget,
    /// Held by the caller that tries again first, of those for whose messages the spool had no room.
    refused: Arc<Semaphore>,
}

/// Held while a message is being sent.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Of a message that a caller sent; one that is tried again has none.
    _places: Option<[OwnedSemaphorePermit; 2]>,
    _bytes: BytePermit,
    _share: Option<Arc<Share>>,
}

/// Turn of a message for which the spool had no room.
#[derive(Debug)]
pub(super) struct Refused {
    _turn: OwnedSemaphorePermit,
    _share: Arc<Share>,
}

impl Places {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(PLACES)),
            bytes: ByteBudget::new(bytes),
            recipients: Mutex::default(),
        }
    }

    /// Waits for a place; `None` once they are closed.
    pub(super) async fn take(&self, recipient: &NodeId, bytes: usize) -> Option<Place> {
        let share = self.share(recipient);
        // The recipient's share first: who waits for a slow one takes nothing from the others.
        let recipient = Arc::clone(&share.places).acquire_owned().await.ok()?;
        let place = self.bytes_of(share, bytes).await;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place {
            _places: Some([recipient, all]),
            ..place
        })
    }

    /// Waits for the turn of a message for which the spool had no room; `None` if that lasts longer. Turns come in the order
    /// of arrival.
    pub(super) async fn try_again(&self, recipient: &NodeId, until: Instant) -> Option<Refused> {
        let share = self.share(recipient);
        let turn = Arc::clone(&share.refused).acquire_owned();
        Some(Refused {
            _turn: timeout_at(until, turn).await.ok()?.ok()?,
            _share: share,
        })
    }

    /// Waits for room for a message that is tried again. The callers' places are not taken.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub(super) async fn take_bytes(&self, recipient: &NodeId, bytes: usize) -> Place {
        self.bytes_of(self.share(recipient), bytes).await
    }

    async fn bytes_of(&self, share: Arc<Share>, bytes: usize) -> Place {
        let own = share.bytes.acquire(bytes).await;
        Place {
            _places: None,
            _bytes: self.bytes.acquire(bytes).await.along_with(own),
            _share: Some(share),
        }
    }

    pub(super) fn close(&self) {
        self.all.close();
        for share in self.recipients.lock().values() {
            if let Some(share) = share.upgrade() {
                share.places.close();
            }
        }
    }

    fn share(&self, recipient: &NodeId) -> Arc<Share> {
        let mut recipients = self.recipients.lock();
        if let Some(share) = recipients.get(recipient).and_then(Weak::upgrade) {
            return share;
        }
        if recipients.len() >= SWEEP {
            recipients.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share {
            places: Arc::new(Semaphore::new(PLACES_A_RECIPIENT)),
            refused: Arc::new(Semaphore::new(1)),
            bytes: ByteBudget::new(self.bytes.total() / BYTES_A_RECIPIENT),
        });
        recipients.insert(*recipient, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const TOTAL: usize = 1 << 20;

    fn id(seed: u8) -> NodeId {
        NodeId::from_bytes(&[seed; 13]).unwrap()
    }

    #[tokio::test]
    async fn one_recipient_leaves_bytes_to_others() {
        let places = Places::new(TOTAL);
        let (slow, other) = (id(1), id(2));
        // A message of more than the share takes all of the share.
        let large = places.take(&slow, TOTAL / 2).await;
        let waiting: Vec<_> = (0..4).map(|_| places.take(&slow, TOTAL / 4)).collect();
        let mut waiting: Vec<_> = waiting.into_iter().map(Box::pin).collect();
        for waiting in &mut waiting {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(places.take(&other, TOTAL / 4).now_or_never().is_some());
        drop(large);
        let next = waiting.remove(0).now_or_never();
        assert!(next.is_some());
        // Messages that are tried again share the bytes with those that callers send.
        drop(waiting);
        assert!(places.take_bytes(&slow, 1).now_or_never().is_none());
        drop(next);
        assert!(places.take_bytes(&slow, 1).now_or_never().is_some());
    }
}
