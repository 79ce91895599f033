//! Room for messages that are being sent: where callers wait.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use dht_core::NodeId;
use dht_stack::{ByteBudget, BytePermit};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages sent at one time.
pub(super) const PLACES: usize = 1_024;
/// Of these for one recipient, so that one that does not read leaves room for the others.
const PLACES_A_RECIPIENT: usize = 256;
/// Recipients whose shares are searched for unused ones.
const SWEEP: usize = 1_024;

/// Bounds the messages and bytes that are being sent, in all and for one recipient.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    bytes: ByteBudget,
    recipients: Mutex<HashMap<NodeId, Weak<Semaphore>>>,
}

/// Held while a message is being sent.
#[derive(Debug)]
pub(super) struct Place {
    _recipient: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _bytes: BytePermit,
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
        let recipient = share.acquire_owned().await.ok()?;
        let bytes = self.bytes.acquire(bytes).await;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place {
            _recipient: recipient,
            _all: all,
            _bytes: bytes,
        })
    }

    pub(super) fn close(&self) {
        self.all.close();
        for share in self.recipients.lock().values() {
            if let Some(share) = share.upgrade() {
                share.close();
            }
        }
    }

    fn share(&self, recipient: &NodeId) -> Arc<Semaphore> {
        let mut recipients = self.recipients.lock();
        if let Some(share) = recipients.get(recipient).and_then(Weak::upgrade) {
            return share;
        }
        if recipients.len() >= SWEEP {
            recipients.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(PLACES_A_RECIPIENT));
        recipients.insert(*recipient, Arc::downgrade(&share));
        share
    }
}
