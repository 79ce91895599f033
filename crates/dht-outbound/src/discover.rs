//! Finding a peer before a message is sent to it.

use dht_core::PublicKey;
use futures::future::BoxFuture;
use tower::BoxError;

/// Finds a peer by its key. A closure that returns a future is one.
///
/// Implementations bound and join searches for the same key: a remote party can choose which keys are sent to.
pub trait Discover: Send + Sync + 'static {
    /// Searches. On success the peer is in the [`Directory`](dht_peers::Directory), where the message then finds it.
    ///
    /// Dropping the future ends the search.
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>>;
}

impl<F, R> Discover for F
where
    F: Fn(PublicKey) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(self(key))
    }
}
