//! File work of asynchronous code.

use dht_mailbox::StoreError;

use crate::metrics;

/// Runs work that reads or writes `file`, which `blocks` or is in memory; counts and logs its failure, and answers `None`.
pub(crate) async fn blocking<T: Send + 'static>(
    file: &'static str,
    blocks: bool,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Option<T> {
    match dht_stack::off_thread(blocks, work).await? {
        Ok(value) => Some(value),
        Err(error) => {
            metrics::failed(&error);
            tracing::warn!(%error, file, "store-and-forward cannot use its files");
            None
        }
    }
}
