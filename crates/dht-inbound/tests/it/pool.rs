//! Public-key work off the tasks that drive the stack.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use dht_core::{Disposition, Signing};
use dht_inbound::{CryptoPool, InboundConfig};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::stack::{Draft, ME, Node, OTHER};

/// Tokio's threads for blocking work; a real one is bounded by the cores.
#[derive(Clone, Debug, Default)]
struct Threads {
    runs: Arc<AtomicUsize>,
}

struct Running<T>(JoinHandle<T>);

impl CryptoPool for Threads {
    type Error = JoinError;
    type Future<T: Send + 'static> = Running<T>;

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        Running(spawn_blocking(work))
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[tokio::test]
async fn a_pool_of_threads_gives_the_same_answers_and_is_asked_only_for_arithmetic() {
    let pool = Threads::default();
    let node = Node::on_pool(InboundConfig::default(), pool.clone());
    let runs = || pool.runs.swap(0, Ordering::Relaxed);
    for (draft, expected, costs) in [
        (Draft::clear(Signing::Anonymous), Disposition::Delivered, 0),
        (Draft::clear(Signing::Origin), Disposition::Delivered, 1),
        (Draft::encrypted(OTHER), Disposition::Forwarded, 1),
        (Draft::encrypted(ME), Disposition::Delivered, 2),
    ] {
        assert_eq!(node.receive(draft.frame()).await, expected);
        assert_eq!(runs(), costs);
        let repeat = node.receive(draft.frame()).await;
        assert_eq!((repeat.name(), runs()), ("duplicate", 0));
    }
}
