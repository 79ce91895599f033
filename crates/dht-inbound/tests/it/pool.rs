//! Public-key work off the tasks that drive the stack.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use dht_core::{
    Disposition, Entropy as _, Sealed, SeededEntropy, Signing, Verified, VerifyError, encode_parts,
    verify_batch,
};
use dht_inbound::{CryptoPool, InboundConfig};
use dht_stack::{Batch, BatchWork};
use futures::future::join_all;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::stack::{Draft, ME, Node, OTHER, tampered};

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

#[tokio::test]
async fn of_copies_under_way_at_once_one_takes_effect() {
    let node = Node::on_pool(InboundConfig::default(), Threads::default());
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
async fn a_batch_refuses_only_the_guilty() {
    let verifier = Batch::new(Together, 64, 1);
    let node = Node::with_verifier(InboundConfig::default(), verifier);
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
async fn a_message_given_up_gives_its_memory_back() {
    let verifier = Batch::new(Together, 4, 1);
    let node = Node::with_verifier(InboundConfig::default(), verifier);
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
