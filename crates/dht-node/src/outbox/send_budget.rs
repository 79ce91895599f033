//! Bounds on messages that are being sent: callers wait for a permit.

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

/// Messages sent at one time to recipients of one reachability.
pub(super) const MESSAGES: usize = 1_024;
/// Of these for one recipient, so that one that does not read leaves room for the others.
const MESSAGES_PER_RECIPIENT: usize = 256;
/// One recipient may have one part in this many of the bytes.
const RECIPIENT_SHARE: usize = 4;
/// Recipients from which on unused shares are removed.
const SWEEP_ABOVE: usize = 1_024;

/// Bounds the messages and bytes that are being sent to recipients of one reachability, in all and for one recipient.
#[derive(Debug)]
pub(super) struct SendBudget {
    all: Arc<Semaphore>,
    bytes: ByteBudget,
    recipients: Mutex<BTreeMap<NodeId, Weak<Share>>>,
}

/// Part of the budget that one recipient may use.
#[derive(Debug)]
struct Share {
    messages: Arc<Semaphore>,
    bytes: ByteBudget,
    /// Held by the caller that tries again first, of those for whose messages the spool had no room.
    retry: Arc<Semaphore>,
}

/// Held while a message is being sent.
#[derive(Debug, Default)]
pub(super) struct SendPermit {
    /// Of a message that a caller sent; one that is tried again has none.
    _messages: Option<[OwnedSemaphorePermit; 2]>,
    _bytes: BytePermit,
    _share: Option<Arc<Share>>,
}

/// Turn of a message for which the spool had no room.
#[derive(Debug)]
pub(super) struct RetryPermit {
    _turn: OwnedSemaphorePermit,
    _share: Arc<Share>,
}

impl SendBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(MESSAGES)),
            bytes: ByteBudget::new(bytes),
            recipients: Mutex::default(),
        }
    }

    /// Waits for a permit; `None` once the budget is closed.
    pub(super) async fn acquire(&self, recipient: &NodeId, bytes: usize) -> Option<SendPermit> {
        let share = self.share(recipient);
        // The recipient's share first: who waits for a slow one takes nothing from the others.
        let recipient = Arc::clone(&share.messages).acquire_owned().await.ok()?;
        let permit = self.acquire_share(share, bytes).await;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(SendPermit {
            _messages: Some([recipient, all]),
            ..permit
        })
    }

    /// Waits for the turn of a message for which the spool had no room; `None` if that lasts longer. Turns come in the order
    /// of arrival.
    pub(super) async fn acquire_retry(
        &self,
        recipient: &NodeId,
        until: Instant,
    ) -> Option<RetryPermit> {
        let share = self.share(recipient);
        let turn = Arc::clone(&share.retry).acquire_owned();
        Some(RetryPermit {
            _turn: timeout_at(until, turn).await.ok()?.ok()?,
            _share: share,
        })
    }

    /// Waits for room for a message that is tried again. It counts against the bytes only.
    ///
    /// # Cancel safety
    /// Dropping the future acquires nothing.
    pub(super) async fn acquire_bytes(&self, recipient: &NodeId, bytes: usize) -> SendPermit {
        self.acquire_share(self.share(recipient), bytes).await
    }

    async fn acquire_share(&self, share: Arc<Share>, bytes: usize) -> SendPermit {
        let own = share.bytes.acquire(bytes).await;
        SendPermit {
            _messages: None,
            _bytes: self.bytes.acquire(bytes).await.along_with(own),
            _share: Some(share),
        }
    }

    pub(super) fn close(&self) {
        self.all.close();
        for share in self.recipients.lock().values() {
            if let Some(share) = share.upgrade() {
                share.messages.close();
            }
        }
    }

    fn share(&self, recipient: &NodeId) -> Arc<Share> {
        let mut recipients = self.recipients.lock();
        if let Some(share) = recipients.get(recipient).and_then(Weak::upgrade) {
            return share;
        }
        if recipients.len() >= SWEEP_ABOVE {
            recipients.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share {
            messages: Arc::new(Semaphore::new(MESSAGES_PER_RECIPIENT)),
            retry: Arc::new(Semaphore::new(1)),
            bytes: ByteBudget::new(self.bytes.total() / RECIPIENT_SHARE),
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
        let budget = SendBudget::new(TOTAL);
        let (slow, other) = (id(1), id(2));
        // A message of more than the share takes all of the share.
        let large = budget.acquire(&slow, TOTAL / 2).await;
        let waiting: Vec<_> = (0..4).map(|_| budget.acquire(&slow, TOTAL / 4)).collect();
        let mut waiting: Vec<_> = waiting.into_iter().map(Box::pin).collect();
        for waiting in &mut waiting {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(budget.acquire(&other, TOTAL / 4).now_or_never().is_some());
        drop(large);
        let next = waiting.remove(0).now_or_never();
        assert!(next.is_some());
        // Messages that are tried again share the bytes with those that callers send.
        drop(waiting);
        assert!(budget.acquire_bytes(&slow, 1).now_or_never().is_none());
        drop(next);
        assert!(budget.acquire_bytes(&slow, 1).now_or_never().is_some());
    }
}
