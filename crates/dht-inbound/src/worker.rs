//! The worker loop: runs a stack over what arrives, with a bound on what is under way.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{Mutex, mpsc};
use tower_service::Service;

/// Messages started together, so that their signatures are checked together.
const MAX_BURST: usize = dht_core::MAX_BATCH;

/// Takes requests and runs each through `service` until the channel closes and the last is done.
///
/// A request is run where it is taken and set aside only if it has to wait, so that one that waits holds up
/// nothing but its own place. At most `most` wait. Several workers can share a receiver.
pub async fn run_worker<S, Request>(
    mut service: S,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    most: usize,
) where
    S: Service<Request> + Clone,
{
    tracing::debug!(most, bytes = size_of::<S::Future>(), "worker starts");
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    let mut since_yield = 0_usize;
    while open || !under_way.is_empty() {
        for _ in 0..MAX_BURST {
            if under_way.len() >= most {
                break;
            }
            // Another worker has the receiver: it takes what comes.
            let Ok(mut queue) = requests.try_lock() else {
                break;
            };
            let Ok(request) = queue.try_recv() else { break };
            drop(queue);
            let Some(response) = start(&mut service, request).await else {
                return;
            };
            under_way.push(response);
            since_yield = since_yield.saturating_add(1);
        }
        // Drain futures before accepting more; otherwise the set grows, and what comes last, a control message perhaps,
        // waits for all of it.
        while let Some(Some(_)) = under_way.next().now_or_never() {}
        if since_yield >= MAX_BURST {
            // The tasks that read and write sockets share this thread, and nothing above has to wait on a busy node.
            since_yield = 0;
            tokio::task::yield_now().await;
        }
        tokio::select! {
            biased;
            Some(_) = under_way.next(), if !under_way.is_empty() => {}
            request = async { requests.lock().await.recv().await },
                if open && under_way.len() < most =>
            {
                let Some(request) = request else {
                    open = false;
                    continue;
                };
                let Some(response) = start(&mut service, request).await else { return };
                under_way.push(response);
                since_yield = since_yield.saturating_add(1);
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
    async fn waiting_request_holds_up_nothing() {
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
        run_worker(service, Arc::new(Mutex::new(receiver)), 8).await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    /// Ready work is finished before more is taken, so that a steady stream does not pile up.
    #[tokio::test]
    async fn burst_is_finished_before_the_next() {
        const COUNT: usize = 10 * MAX_BURST;
        let (sender, receiver) = mpsc::channel(COUNT);
        let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let most = AtomicUsize::new(0);
        let (begun, done, most) = (&begun, &done, &most);
        let service = service_fn(|()| {
            let now = begun.fetch_add(1, Ordering::SeqCst) + 1 - done.load(Ordering::SeqCst);
            most.fetch_max(now, Ordering::SeqCst);
            async move {
                done.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(())
            }
        });
        for _ in 0..COUNT {
            sender.send(()).await.unwrap();
        }
        drop(sender);
        run_worker(service, Arc::new(Mutex::new(receiver)), usize::MAX).await;
        assert_eq!(done.load(Ordering::SeqCst), COUNT);
        assert!(most.load(Ordering::SeqCst) <= MAX_BURST + 1);
    }
}
