//! Public-key work off the tasks that drive the stack.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use dht_core::{
    Disposition, Entropy as _, OpenError, Opened, Sealed, SeededEntropy, Signing, Verified,
    VerifyError, encode_parts, verify_batch,
};
use dht_stack::{Batch, BatchWork};
use futures::future::join_all;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tower::Service;

use crate::stack::{Draft, ME, Node, OTHER, identity, tampered};

/// Tokio's threads for blocking work; a real pool is bounded by the cores.
#[derive(Clone, Debug, Default)]
struct Threads {
    runs: Arc<AtomicUsize>,
}

impl Threads {
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        spawn_blocking(work)
    }
}

impl Service<Sealed> for Threads {
    type Response = Result<Verified, VerifyError>;
    type Error = JoinError;
    type Future = JoinHandle<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), JoinError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, sealed: Sealed) -> Self::Future {
        self.run(move || sealed.verify())
    }
}

impl Service<Verified> for Threads {
    type Response = Result<Opened, OpenError>;
    type Error = JoinError;
    type Future = JoinHandle<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), JoinError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, verified: Verified) -> Self::Future {
        self.run(move || verified.open(&identity(ME)))
    }
}

fn on_threads(threads: &Threads) -> Node {
    Node::with_services(threads.clone(), threads.clone())
}

#[tokio::test]
async fn threads_are_asked_only_for_arithmetic() {
    let pool = Threads::default();
    let node = on_threads(&pool);
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

#[tokio::test]
async fn one_of_simultaneous_copies_takes_effect() {
    let node = on_threads(&Threads::default());
    for (draft, effect) in [
        (Draft::clear(Signing::Origin), Disposition::Delivered),
        (Draft::encrypted(OTHER), Disposition::Forwarded),
    ] {
        let copies = (0..50).map(|_| node.receive(draft.frame()));
        let mut outcomes = join_all(copies).await;
        outcomes.retain(|outcome| outcome.name() != "duplicate");
        assert_eq!(outcomes, [effect]);
    }
    assert_eq!((node.delivered().len(), node.forwarded().len()), (1, 1));
}

/// Checks what waits in one multiplication.
struct Together;

impl BatchWork<Sealed> for Together {
    type Response = Result<Verified, VerifyError>;

    fn run(&self, envelopes: Vec<Sealed>) -> Vec<Self::Response> {
        verify_batch(envelopes, &mut SeededEntropy::new(5).rng())
    }
}

#[tokio::test]
async fn batch_refuses_only_bad_messages() {
    let verifier = Batch::new(Together, 64, 1);
    let node = Node::with_services(verifier, Threads::default());
    let frames: Vec<_> = (0..20_u8)
        .map(|n| {
            let body = encode_parts(&[vec![n].into()]);
            let frame = Draft {
                body,
                ..Draft::clear(Signing::Origin)
            }
            .frame();
            match n % 5 {
                0 => tampered(frame, |header, _| header.expires = None),
                _ => frame,
            }
        })
        .collect();
    let outcomes = join_all(frames.into_iter().map(|frame| node.receive(frame))).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let expected = if n % 5 == 0 {
            "bad_signature"
        } else {
            "delivered"
        };
        assert_eq!(outcome.name(), expected);
    }
}

/// Whoever is given up while others do its work gives its memory back at once, and holds nobody up.
#[tokio::test]
async fn abandoned_message_gives_memory_back() {
    let verifier = Batch::new(Together, 4, 1);
    let node = Node::with_services(verifier, Threads::default());
    let frame = |n: u8| {
        let body = encode_parts(&[vec![n].into()]);
        let draft = Draft {
            body,
            ..Draft::clear(Signing::Origin)
        };
        draft.frame()
    };
    let mut under_way: Vec<_> = (0..20).map(|n| Box::pin(node.receive(frame(n)))).collect();
    // Polled from the back, the first is the worker, and the others wait for it or its successors.
    let mut done = 0;
    for message in under_way.iter_mut().rev().take(7) {
        done += usize::from(futures::poll!(message).is_ready());
    }
    assert!(node.held() > 0);
    under_way.truncate(0);
    assert_eq!(node.delivered().len(), done);
    assert_eq!(node.held(), 0);
    // Those that were let go left no trace: their copies are no duplicates.
    let again = join_all((0..13).map(|n| node.receive(frame(n)))).await;
    assert!(again.iter().all(|outcome| outcome.name() == "delivered"));
    drop(node.delivered());
    assert_eq!(node.held(), 0);
}
