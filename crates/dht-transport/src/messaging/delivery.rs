//! What becomes of a message that was queued.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

use crate::DeliveryError;

/// Resolves when the socket has taken the last byte of the message, or when it is certain that it will not.
///
/// Dropping it does not cancel the message.
#[derive(Debug)]
#[must_use = "dropping a delivery means not to care whether the message was sent"]
pub struct Delivery(oneshot::Receiver<Result<(), DeliveryError>>);

/// The other end of a [`Delivery`].
pub(crate) type Reply = oneshot::Sender<Result<(), DeliveryError>>;

impl Delivery {
    pub(crate) fn new() -> (Reply, Self) {
        let (reply, answer) = oneshot::channel();
        (reply, Self(answer))
    }
}

impl Future for Delivery {
    type Output = Result<(), DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(DeliveryError::Dropped)))
    }
}
