//! Outcome of a queued message.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

use dht_core::DeliveryError;

/// Resolves when the socket has taken the last byte of the message, or when it is certain that it will not.
///
/// Dropping it does not cancel the message.
#[derive(Debug)]
#[must_use = "dropping a delivery means not to care whether the message was sent"]
pub struct Queued(oneshot::Receiver<Result<(), DeliveryError>>);

/// Reports the outcome of one message, once; [`DeliveryError::Dropped`] if it is dropped without a report.
pub(crate) struct Reply(Option<Box<Report>>);

type Report = dyn FnOnce(Result<(), DeliveryError>) + Send;

impl Reply {
    pub(crate) fn new(report: impl FnOnce(Result<(), DeliveryError>) + Send + 'static) -> Self {
        Self(Some(Box::new(report)))
    }

    pub(crate) fn send(mut self, outcome: Result<(), DeliveryError>) {
        if let Some(report) = self.0.take() {
            report(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(report) = self.0.take() {
            report(Err(DeliveryError::Dropped));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

impl Queued {
    pub(crate) fn new() -> (Reply, Self) {
        let (reply, answer) = oneshot::channel();
        let reply = Reply::new(move |outcome| {
            let _nobody_waits = reply.send(outcome);
        });
        (reply, Self(answer))
    }
}

impl Future for Queued {
    type Output = Result<(), DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(DeliveryError::Dropped)))
    }
}
