//! The application of each node: records arrivals and passes clear messages on.

use std::sync::Arc;

use dht_core::Destination;
use dht_node::{Node, Received, Subscription};

use super::tally::Tally;

/// Clear messages to all nodes have negative types.
pub(super) const fn is_gossip(message_type: i32) -> bool {
    message_type < 0
}

/// Runs until the node stops.
pub(super) async fn application(
    index: usize,
    node: Arc<Node>,
    mut inbox: Subscription,
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
            // The protocol leaves passing on clear messages to the application (03 section 3.7). An error means
            // that no further node is connected.
            let _ = node
                .propagate(Destination::Unknown, message, vec![via])
                .await;
        }
    }
}
