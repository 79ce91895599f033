//! Work that may block, out of asynchronous code.

/// Runs work that waits for a device on a thread where that is allowed; where nothing `blocks`, at once on this one, so that
/// what is in memory depends on no other thread. `None` if the runtime is shutting down or the work panicked.
///
/// # Cancel safety
/// Work that has begun goes on when the future is dropped.
pub async fn off_thread<T: Send + 'static>(
    blocks: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    match blocks {
        true => tokio::task::spawn_blocking(work).await.ok(),
        false => Some(work()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn only_what_blocks_leaves_the_thread() {
        let here = thread::current().id();
        let id = || thread::current().id();
        assert_eq!(off_thread(false, id).await, Some(here));
        assert!(
            off_thread(true, id)
                .await
                .is_some_and(|other| other != here)
        );
    }
}
