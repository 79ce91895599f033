//! Where costly arithmetic runs.

use std::{
    convert::Infallible,
    error::Error,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{NodeIdentity, OpenError, Opened, Sealed, Verified, VerifyError};
use pin_project_lite::pin_project;
use tower_service::Service;

/// Runs public-key work, so that it need not block the tasks that read sockets.
///
/// An implementation is bounded: [`run`](Self::run) may take its time to begin, and no more work waits than it has
/// promised to hold. It must not lose work: an error means the pool can never work again.
pub trait CryptoPool: Clone + Send + Sync + 'static {
    /// Why there will be no result: the pool has shut down.
    type Error: Error + Send + Sync + 'static;
    /// The result, later.
    type Future<T: Send + 'static>: Future<Output = Result<T, Self::Error>> + Send;

    /// Runs `work` and resolves to what it returns. Dropping the future may or may not stop the work.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Self::Future<T>;
}

/// Runs work at once, where it is asked for. For tests, simulations, and nodes whose inbound tasks do nothing
/// else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

/// Checks envelopes one by one on a pool. A service, so that one that checks many at once can stand in its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verifier<P> {
    pool: P,
}

/// Opens envelopes one by one on a pool. A service, so that one that opens many at once can stand in its place.
#[derive(Clone, Debug)]
pub struct Opener<P> {
    pool: P,
    identity: Arc<NodeIdentity>,
}

pin_project! {
    /// The outcome of work that may need arithmetic: what needs none is done at once.
    #[derive(Debug)]
    pub struct Work<T, F> {
        #[pin]
        state: State<T, F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<T, F> {
        Done { outcome: Option<T> },
        Running { #[pin] work: F },
    }
}

impl CryptoPool for Inline {
    type Error = Infallible;
    type Future<T: Send + 'static> = Ready<Result<T, Infallible>>;

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Self::Future<T> {
        ready(Ok(work()))
    }
}

// === impl Verifier ===

impl<P> Verifier<P> {
    /// Checks on `pool`.
    pub const fn new(pool: P) -> Self {
        Self { pool }
    }
}

impl<P: CryptoPool> Service<Sealed> for Verifier<P> {
    type Response = Result<Verified, VerifyError>;
    type Error = P::Error;
    type Future = Work<Self::Response, P::Future<Self::Response>>;

    // Always ready: the pool bounds its own queue, in `run`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, sealed: Sealed) -> Self::Future {
        if sealed.header().signature.is_empty() {
            return Work::done(sealed.verify());
        }
        Work::running(self.pool.run(move || sealed.verify()))
    }
}

// === impl Opener ===

impl<P> Opener<P> {
    /// Opens what is addressed to `identity`, on `pool`.
    pub const fn new(pool: P, identity: Arc<NodeIdentity>) -> Self {
        Self { pool, identity }
    }
}

impl<P: CryptoPool> Service<Verified> for Opener<P> {
    type Response = Result<Opened, OpenError>;
    type Error = P::Error;
    type Future = P::Future<Self::Response>;

    // Always ready: the pool bounds its own queue, in `run`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, verified: Verified) -> Self::Future {
        let identity = Arc::clone(&self.identity);
        self.pool.run(move || verified.open(&identity))
    }
}

// === impl Work ===

impl<T, F> Work<T, F> {
    pub(crate) const fn done(outcome: T) -> Self {
        Self {
            state: State::Done {
                outcome: Some(outcome),
            },
        }
    }

    pub(crate) const fn running(work: F) -> Self {
        Self {
            state: State::Running { work },
        }
    }
}

impl<T, F, E> Future for Work<T, F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            // Taken once: a future is not polled again after it is ready.
            StateProj::Done { outcome } => outcome
                .take()
                .map_or(Poll::Pending, |it| Poll::Ready(Ok(it))),
            StateProj::Running { work } => work.poll(cx),
        }
    }
}
