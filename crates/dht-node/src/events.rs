//! Events of a node for the application: connections, dropped messages, bans, stored messages, failures.

use std::{collections::BTreeMap, sync::Arc};

use dht_core::DeliveryError;
use dht_core::{DropReason, NodeId, Priority, RemotePeer};
use dht_peers::Ban;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::channels;

/// Something happened to a message or a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected.
    Connected(Arc<RemotePeer>),
    /// A peer is no longer connected.
    Disconnected {
        /// Peer that was connected.
        peer: NodeId,
    },
    /// The node claims other addresses; see [`Node::claim`](crate::Node::claim).
    AddressesChanged,
    /// The overlay: the node got online or offline, or learned of peers.
    #[cfg(feature = "overlay")]
    Overlay(dht_overlay::Notice),
    /// A received message was dropped.
    Dropped {
        /// Connected peer that delivered it.
        from: NodeId,
        /// Reason of the drop.
        reason: DropReason,
    },
    /// A message for a peer was dropped before it was written to the peer's socket.
    Unsent {
        /// Peer that should have received it.
        to: NodeId,
        /// Priority of the message.
        priority: Priority,
        /// Reason of the failure.
        reason: DeliveryError,
    },
    /// A peer was banned, or banned again.
    Banned(Arc<Ban>),
    /// Store-and-forward received messages or finished a fetch.
    #[cfg(feature = "saf")]
    Saf(dht_saf::SafEvent),
    /// The durable inbox refuses messages: it is full, or the device fails. Published at most every ten seconds while
    /// that lasts. Refused messages are neither recorded nor confirmed, so the nodes that store them keep them.
    #[cfg(feature = "spool")]
    InboxRefused(dht_spool::SpoolError),
    /// A part of the node has stopped for good; the rest goes on until the application ends the node.
    Failed {
        /// Name of the part, as in `store-and-forward`.
        part: &'static str,
        /// Cause of the failure, in words.
        reason: String,
    },
    /// The subscriber was too slow, and earlier events were lost.
    Missed {
        /// Number of events lost.
        events: u64,
    },
}

/// The events of one subscriber; see [`Node::events`](crate::Node::events).
#[derive(Debug)]
pub struct EventStream(broadcast::Receiver<Event>);

/// Publishes events to all subscribers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    /// Parts that have stopped, with the reason.
    failures: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl EventStream {
    /// The next event; `None` once the node is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Event::Missed { events }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            sender: channels::EVENTS.open_to_many(),
            failures: Arc::default(),
        }
    }

    pub(crate) fn subscribe(&self) -> EventStream {
        EventStream(self.sender.subscribe())
    }

    /// Sends an event to every subscriber. Never waits; without a subscriber the event is not built.
    pub(crate) fn publish(&self, event: impl FnOnce() -> Event) {
        if self.sender.receiver_count() > 0 {
            // The last subscriber may have left since.
            let _nobody = self.sender.send(event());
        }
    }

    /// Reports that a part of the node has stopped for good: no node goes on in silence without one (law 11).
    pub(crate) fn fail(&self, part: &'static str, reason: &str) {
        tracing::error!(
            part,
            reason,
            "a part of the node has stopped; restart the node"
        );
        self.failures.lock().insert(part, reason.to_owned());
        self.publish(|| Event::Failed {
            part,
            reason: reason.to_owned(),
        });
    }

    pub(crate) fn failures(&self) -> BTreeMap<&'static str, String> {
        self.failures.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EVENT_CAPACITY;

    fn event(number: usize) -> Event {
        Event::Missed {
            events: number as u64,
        }
    }

    #[tokio::test]
    async fn slow_subscriber_counts_missed_events() {
        let events = Events::new();
        let mut slow = events.subscribe();
        for number in 0..EVENT_CAPACITY + 3 {
            events.publish(|| event(number));
        }
        assert_eq!(slow.recv().await, Some(Event::Missed { events: 3 }));
        assert_eq!(slow.recv().await, Some(event(3)));
    }

    #[tokio::test]
    async fn streams_end_with_the_node() {
        let events = Events::new();
        events.publish(|| unreachable!("nobody listens"));
        let mut stream = events.subscribe();
        drop(events);
        assert_eq!(stream.recv().await, None);
    }
}
