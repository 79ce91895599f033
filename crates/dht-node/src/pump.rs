//! Runs a stack over what arrives, with a bound on what is under way.

use std::sync::Arc;

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{Mutex, mpsc};
use tower::Service;

/// Messages of one lane that may wait for something at a time: the application, a peer's queue. Their memory
/// is bounded by their permits; this bounds their number.
const MAX_WAITING: usize = 512;

/// Messages started together, so that their signatures are checked together.
const MAX_BURST: usize = dht_core::MAX_BATCH;

/// What several lanes take from.
pub(crate) type Requests<Request> = Arc<Mutex<mpsc::Receiver<Request>>>;

/// Takes requests and runs each through `service` until the channel closes and the last is done.
///
/// A request is run where it is taken and set aside only if it has to wait, so that one that waits holds up
/// nothing but its own place.
pub(crate) async fn run<S, Request>(mut service: S, requests: Requests<Request>)
where
    S: Service<Request> + Clone,
{
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        for _ in 0..MAX_BURST {
            if under_way.len() >= MAX_WAITING {
                break;
            }
            // Another lane has the receiver: it takes what comes.
            let Ok(mut queue) = requests.try_lock() else {
                break;
            };
            let Ok(request) = queue.try_recv() else { break };
            drop(queue);
            let Some(response) = start(&mut service, request).await else {
                return;
            };
            under_way.push(response);
        }
        tokio::select! {
            // Local work before new work from a peer.
            biased;
            Some(_) = under_way.next(), if !under_way.is_empty() => {}
            request = async { requests.lock().await.recv().await },
                if open && under_way.len() < MAX_WAITING =>
            {
                let Some(request) = request else {
                    open = false;
                    continue;
                };
                let Some(response) = start(&mut service, request).await else { return };
                under_way.push(response);
            }
        }
    }
}

/// `None` if the service can never work again.
async fn start<S: Service<Request>, Request>(
    service: &mut S,
    request: Request,
) -> Option<S::Future> {
    let ready = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
    ready.is_ok().then(|| service.call(request))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn a_request_that_waits_does_not_hold_up_the_next() {
        let (sender, receiver) = mpsc::channel(8);
        let done = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Notify::new());
        let service = service_fn({
            let (done, gate) = (Arc::clone(&done), Arc::clone(&gate));
            move |waits: bool| {
                let (done, gate) = (Arc::clone(&done), Arc::clone(&gate));
                async move {
                    if waits {
                        gate.notified().await;
                    } else {
                        gate.notify_one();
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(())
                }
            }
        });
        sender.send(true).await.unwrap();
        sender.send(false).await.unwrap();
        drop(sender);
        run(service, Arc::new(Mutex::new(receiver))).await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }
}
