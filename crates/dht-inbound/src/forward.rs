//! Passes on what this node cannot read: specification 03, section 3.10.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use dht_core::{Clock, Disposition, DropReason, Outbox, OutboxError, SendRequest, Strategy};
use dht_stack::BoxError;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{BanSink, Bans, Message, Offence, Parties, outbox::settle};

/// Hands unreadable messages to the [`Outbox`], byte for byte as received, and passes every message on.
///
/// Only push it on a node that forwards: its features contain `DHT_STORE_FORWARD`, and the setting allows it (F-16).
///
/// Specification 03, section 3.10.
#[derive(Debug)]
pub struct ForwardLayer<O, B, C> {
    shared: Arc<Shared<O, B, C>>,
}

/// Service produced by [`ForwardLayer`].
#[derive(Debug)]
pub struct Forward<O, B, C, S> {
    shared: Arc<Shared<O, B, C>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<O, B, C> {
    outbox: O,
    bans: Bans<B>,
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

impl<O, B, C> ForwardLayer<O, B, C> {
    /// Sends through `outbox`.
    pub fn new(outbox: O, bans: Bans<B>, clock: C) -> Self {
        Self {
            shared: Arc::new(Shared {
                outbox,
                bans,
                clock,
            }),
        }
    }
}

impl<O, B, C> Clone for ForwardLayer<O, B, C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<O, B, C, S> Layer<S> for ForwardLayer<O, B, C> {
    type Service = Forward<O, B, C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Forward {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Forward ===

impl<O, B, C, S: Clone> Clone for Forward<O, B, C, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<O, B, C, S> Service<Message> for Forward<O, B, C, S>
where
    O: Outbox,
    B: BanSink,
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

impl<O: Outbox, B: BanSink, C: Clock> Shared<O, B, C> {
    /// What became of the message, if it is one to forward.
    fn forward(&self, message: &Message) -> Result<Option<Disposition>, OutboxError> {
        let header = &message.opened.header;
        if message.is_readable() || !header.message_type.is_forwardable() {
            return Ok(None);
        }
        let source = &message.source;
        let destination = header.destination.public_key();
        if destination == Some(&source.public_key) {
            let parties = Parties {
                source: Some(source.node_id),
                ..Parties::default()
            };
            self.bans.report(Offence::OwnMail, parties);
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
