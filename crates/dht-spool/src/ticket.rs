//! The answer to a request that waits for its commit.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::sync::oneshot;

use crate::error::SpoolError;

/// Resolves once what was asked for is durable, or was refused.
///
/// A future for any runtime; [`Ticket::wait`] blocks instead. Dropping it gives up the answer, not the request,
/// except while the writer's queue has no room: the request is queued when the ticket is polled and there is room.
#[must_use = "the request is durable only once the ticket resolves"]
pub struct Ticket<T>(Inner<T>);

enum Inner<T> {
    /// The request is queued.
    Queued(oneshot::Receiver<Result<T, SpoolError>>),
    /// The request waits for room in the queue.
    Waiting(Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send>>),
    /// The answer is there: the request was refused, or is one in memory.
    Ready(Option<Result<T, SpoolError>>),
}

// === impl Ticket ===

impl<T> Ticket<T> {
    pub(crate) const fn queued(answer: oneshot::Receiver<Result<T, SpoolError>>) -> Self {
        Self(Inner::Queued(answer))
    }

    pub(crate) fn waiting(
        future: impl Future<Output = Result<T, SpoolError>> + Send + 'static,
    ) -> Self {
        Self(Inner::Waiting(Box::pin(future)))
    }

    pub(crate) const fn ready(answer: Result<T, SpoolError>) -> Self {
        Self(Inner::Ready(Some(answer)))
    }

    /// Blocks this thread until the answer is there.
    ///
    /// # Errors
    /// As the request; [`SpoolError::Closed`] if the writer ended first.
    pub fn wait(self) -> Result<T, SpoolError> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut ticket = pin!(self);
        loop {
            match ticket.as_mut().poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => thread::park(),
            }
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, SpoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Queued(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(SpoolError::Closed))),
            Inner::Waiting(future) => future.as_mut().poll(cx),
            Inner::Ready(answer) => Poll::Ready(answer.take().unwrap_or(Err(SpoolError::Closed))),
        }
    }
}

// Nothing in a ticket is pinned in place.
impl<T> Unpin for Ticket<T> {}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Inner::Queued(_) => "Ticket(queued)",
            Inner::Waiting(_) => "Ticket(waiting for room)",
            Inner::Ready(_) => "Ticket(ready)",
        })
    }
}

/// Wakes a blocked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
