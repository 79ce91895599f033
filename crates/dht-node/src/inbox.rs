//! Queues of received messages for the application.

use std::sync::Arc;

use dht_core::{Message, NodeId, PublicKey};
use dht_stack::BytePermit;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::channels;

/// Longest payload of one message, in bytes: what fits the messaging frame with header, padding and tag.
pub const MAX_PAYLOAD_BYTES: usize = dht_proto::limits::MAX_MESSAGING_FRAME_BYTES - 16 * 1024;

/// A received message and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Authenticated origin; `None` if the message is clear and unsigned.
    pub sender: Option<PublicKey>,
    /// Connected peer that delivered the message to this node.
    pub via: NodeId,
    /// Type and content.
    pub message: Message,
}

/// One subscriber's queue of received messages.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Queued>);

/// Holds the memory of a message until every subscriber has taken it.
#[derive(Clone, Debug)]
struct Queued {
    received: Received,
    _permit: Arc<BytePermit>,
}

/// The inboxes of a node.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// `None` once the node has stopped.
    inboxes: Mutex<Option<Vec<mpsc::Sender<Queued>>>>,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self {
            inboxes: Mutex::new(Some(Vec::new())),
        }
    }
}

impl Inbox {
    /// The next message; `None` once the node has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn recv(&mut self) -> Option<Received> {
        self.0.recv().await.map(|queued| queued.received)
    }
}

impl Subscribers {
    pub(crate) fn subscribe(&self) -> Inbox {
        let (sender, receiver) = channels::INBOX.open();
        // On a stopped node the sender is dropped here, and the inbox ends at once.
        if let Some(inboxes) = &mut *self.inboxes.lock() {
            inboxes.retain(|inbox| !inbox.is_closed());
            inboxes.push(sender);
        }
        Inbox(receiver)
    }

    /// Queues a message for every subscriber and waits for full queues; false if there is no subscriber.
    pub(crate) async fn deliver(&self, received: Received, permit: BytePermit) -> bool {
        let queued = Queued {
            received,
            _permit: Arc::new(permit),
        };
        let inboxes = self.inboxes.lock().clone().unwrap_or_default();
        let mut taken = false;
        for inbox in inboxes {
            // An inbox that was dropped is removed by the next subscription.
            taken |= inbox.send(queued.clone()).await.is_ok();
        }
        taken
    }

    /// Ends every inbox once it is empty, and every later one at once.
    pub(crate) fn close(&self) {
        *self.inboxes.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_stack::ByteBudget;

    use super::*;
    use crate::INBOX_CAPACITY;

    fn received() -> Received {
        let message = Message {
            message_type: 1,
            payload: Bytes::from_static(b"x"),
        };
        Received {
            sender: None,
            via: NodeId::default(),
            message,
        }
    }

    #[tokio::test]
    async fn memory_is_held_until_taken() {
        let budget = ByteBudget::new(4096);
        let subscribers = Subscribers::default();
        let mut inbox = subscribers.subscribe();
        let permit = budget.acquire(4096).await;
        assert!(subscribers.deliver(received(), permit).await);
        assert_eq!(budget.available(), 0);
        assert_eq!(inbox.recv().await, Some(received()));
        assert_eq!(budget.available(), 4096);
    }

    #[tokio::test]
    async fn delivery_without_subscriber_fails() {
        let subscribers = Subscribers::default();
        drop(subscribers.subscribe());
        assert!(!subscribers.deliver(received(), BytePermit::none()).await);
    }

    #[tokio::test]
    async fn full_inbox_holds_back_the_sender() {
        let subscribers = Subscribers::default();
        let mut inbox = subscribers.subscribe();
        for _ in 0..INBOX_CAPACITY {
            assert!(subscribers.deliver(received(), BytePermit::none()).await);
        }
        let mut waiting = Box::pin(subscribers.deliver(received(), BytePermit::none()));
        let now = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(now, &mut waiting).await.is_err());
        inbox.recv().await;
        assert!(waiting.await);
    }
}
