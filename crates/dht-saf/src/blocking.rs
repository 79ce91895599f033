//! File work of asynchronous code.

use dht_mailbox::StoreError;

use crate::metrics;

/// Runs work that reads or writes `file` on a thread where blocking is allowed; counts and logs its failure, and
/// answers `None`.
pub(crate) async fn blocking<T: Send + 'static>(
    file: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            metrics::failed(&error);
            tracing::warn!(%error, file, "store-and-forward cannot use its files");
            None
        }
        // The runtime is shutting down.
        Err(_) => None,
    }
}
