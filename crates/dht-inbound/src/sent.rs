//! Counting what the stack sends.

use dht_core::{DropReason, SendQueueError};

use crate::metrics;

/// Counts what became of a request. `Ok(false)` if it was shed, an error if the node sends nothing any more.
pub(crate) fn count_sent(
    kind: &'static str,
    outcome: Result<(), SendQueueError>,
) -> Result<bool, DropReason> {
    match outcome {
        Ok(()) => {
            metrics::sent(kind, "sent");
            Ok(true)
        }
        Err(SendQueueError::Full) => {
            metrics::sent(kind, "shed");
            Ok(false)
        }
        Err(_) => Err(DropReason::Internal),
    }
}
