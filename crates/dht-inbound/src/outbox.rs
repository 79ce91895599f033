//! Counting what the stack sends.

use dht_core::OutboxError;

use crate::metrics;

/// Counts what became of something handed over. `Ok(false)` if it was shed.
pub(crate) fn settle(
    kind: &'static str,
    outcome: Result<(), OutboxError>,
) -> Result<bool, OutboxError> {
    match outcome {
        Ok(()) => {
            metrics::sent(kind, "sent");
            Ok(true)
        }
        Err(OutboxError::Full) => {
            metrics::sent(kind, "shed");
            Ok(false)
        }
        Err(closed) => Err(closed),
    }
}
