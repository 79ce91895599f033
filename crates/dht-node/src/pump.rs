//! Runs a stack over what arrives, with a bound on what is under way.

use std::sync::Arc;

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{Mutex, mpsc};
use tower::{Service, ServiceExt as _};

/// Messages of one lane that may wait for something at a time: the application, a peer's queue. Their memory
/// is bounded by their permits; this bounds their number.
const MAX_WAITING: usize = 512;

/// What several lanes take from, one request at a time.
pub(crate) type Requests<Request> = Arc<Mutex<mpsc::Receiver<Request>>>;

/// Takes requests from `requests` and runs each through `service` until the channel closes and the last is
/// done.
///
/// A request is started where it is taken and set aside only if it has to wait, so that one that waits holds
/// up nothing but its own place.
pub(crate) async fn run<S, Request>(mut service: S, requests: Requests<Request>)
where
    S: Service<Request> + Clone,
{
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            // Local work before new work from a peer.
            biased;
            Some(_) = waiting.next(), if !waiting.is_empty() => {}
            request = async { requests.lock().await.recv().await }, if open && waiting.len() < MAX_WAITING => match request {
                Some(request) => {
                    let Ok(ready) = service.ready().await else { return };
                    waiting.push(ready.call(request));
                }
                None => open = false,
            },
        }
    }
}
