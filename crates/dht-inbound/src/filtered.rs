//! The future of layers that decide at once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use dht_core::{Disposition, DropReason};
use pin_project_lite::pin_project;

pin_project! {
    /// Response future of every layer that either passes a message on or ends its way.
    #[derive(Debug)]
    pub struct Filtered<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Passed { #[pin] inner: F },
        Ended { disposition: Disposition },
    }
}

impl<F> Filtered<F> {
    /// The inner service has it.
    pub const fn passed(inner: F) -> Self {
        Self {
            state: State::Passed { inner },
        }
    }

    /// It ends here.
    #[must_use]
    pub const fn ended(disposition: Disposition) -> Self {
        Self {
            state: State::Ended { disposition },
        }
    }

    /// It is let go.
    #[must_use]
    pub const fn dropped(reason: DropReason) -> Self {
        Self::ended(Disposition::Dropped(reason))
    }
}

impl<F, E> Future for Filtered<F>
where
    F: Future<Output = Result<Disposition, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Passed { inner } => inner.poll(cx),
            StateProj::Ended { disposition } => Poll::Ready(Ok(*disposition)),
        }
    }
}
