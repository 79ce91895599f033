//! Passes on what this node cannot read: specification 03, section 3.10.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use dht_core::{Clock, Disposition, DropReason, Outbox, OutboxError, SendRequest, Strategy};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_stack::BoxError;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Message, outbox::settle};

/// Hands unreadable messages to the [`Outbox`], byte for byte as received, and passes every message on.
///
/// Only push it on a node that forwards: its features contain `DHT_STORE_FORWARD`, and the setting allows it (F-16).
///
/// Specification 03, section 3.10.
#[derive(Debug)]
pub struct ForwardLayer<O, C> {
    shared: Arc<Shared<O, C>>,
}

/// Service produced by [`ForwardLayer`].
#[derive(Debug)]
pub struct Forward<O, C, S> {
    shared: Arc<Shared<O, C>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<O, C> {
    outbox: O,
    bans: BanPolicy,
    clock: C,
}

pin_project! {
    /// Response future of [`Forward`].
    #[derive(Debug)]
    pub struct ForwardFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Inner { #[pin] inner: F, instead: Option<Disposition> },
        Failed { error: OutboxError },
    }
}

// === impl ForwardLayer ===

impl<O, C> ForwardLayer<O, C> {
    /// Sends through `outbox`.
    pub fn new(outbox: O, bans: BanPolicy, clock: C) -> Self {
        Self {
            shared: Arc::new(Shared {
                outbox,
                bans,
                clock,
            }),
        }
    }
}

impl<O, C> Clone for ForwardLayer<O, C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<O, C, S> Layer<S> for ForwardLayer<O, C> {
    type Service = Forward<O, C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Forward {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Forward ===

impl<O, C, S: Clone> Clone for Forward<O, C, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<O, C, S> Service<Message> for Forward<O, C, S>
where
    O: Outbox,
    C: Clock,
    S: Service<Message, Response = Disposition>,
    S::Error: Into<BoxError>,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = ForwardFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        let state = match self.shared.forward(&message) {
            Ok(forwarded) => {
                let stored = (message.stored == Some(true)).then_some(Disposition::Stored);
                State::Inner {
                    inner: self.inner.call(message),
                    instead: forwarded.or(stored),
                }
            }
            Err(error) => State::Failed { error },
        };
        ForwardFuture { state }
    }
}

impl<O: Outbox, C: Clock> Shared<O, C> {
    /// What became of the message, if it is one to forward.
    fn forward(&self, message: &Message) -> Result<Option<Disposition>, OutboxError> {
        let header = &message.opened.header;
        if message.is_readable() || !header.message_type.is_forwardable() {
            return Ok(None);
        }
        let source = &message.source;
        let destination = header.destination.public_key();
        if destination == Some(&source.public_key) {
            let deliverer = Parties::deliverer(source.node_id);
            self.bans.report(Offence::OwnMail, deliverer);
            return Ok(None);
        }
        if message.already_forwarded || header.is_expired(self.clock.now()) {
            return Ok(None);
        }
        let exclude = vec![source.node_id];
        let strategy = match destination {
            Some(key) if message.stored == Some(true) => Strategy::DirectOrClosestNodes {
                target: key.node_id(),
                exclude,
                connected_only: true,
            },
            _ => Strategy::Propagate {
                destination: header.destination,
                exclude,
            },
        };
        let request = SendRequest::forward(message.opened.frame.clone(), strategy, header.tag);
        let sent = settle("forward", self.outbox.try_send(request))?;
        Ok(Some(match sent {
            true => Disposition::Forwarded,
            false => Disposition::Dropped(DropReason::Overload),
        }))
    }
}

impl<F, E> Future for ForwardFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Disposition, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Failed { error } => Poll::Ready(Err((*error).into())),
            StateProj::Inner { inner, instead } => {
                let answer = ready!(inner.poll(cx)).map_err(Into::into)?;
                // Nobody further in can read it either; what was done here is what became of it.
                Poll::Ready(Ok(match (answer, *instead) {
                    (Disposition::Dropped(DropReason::NotForUs), Some(instead)) => instead,
                    (answer, _) => answer,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
