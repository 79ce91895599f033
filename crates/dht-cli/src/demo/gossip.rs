//! An application that counts what it gets and passes clear messages on.

use std::sync::Arc;

use dht_core::Destination;
use dht_node::{Inbox, Node, Received};

use super::tally::Tally;

/// Types below zero are messages to all; the network carries the number unchanged.
pub(super) const fn is_gossip(message_type: i32) -> bool {
    message_type < 0
}

/// Runs until the node stops.
pub(super) async fn application(
    index: usize,
    node: Arc<Node>,
    mut inbox: Inbox,
    tally: Arc<Tally>,
) {
    while let Some(Received {
        sender,
        via,
        message,
    }) = inbox.recv().await
    {
        let number = message.message_type;
        let first = tally.arrived(number, index, &message.payload, sender);
        if first && is_gossip(number) {
            // The network leaves passing on clear messages to the application (specification 03, section 3.7).
            // Nobody left to pass it to is no failure.
            let _ = node
                .propagate(Destination::Unknown, message, vec![via])
                .await;
        }
    }
}
