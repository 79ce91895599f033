//! Reads what is readable here: specification 03, section 3.5, steps B and C.

use std::{
    mem,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll, ready},
};

use dht_core::{Disposition, DropReason, NodeIdentity, OpenError, Opened, Verified};
use dht_stack::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Counted, Inbound, Message, Next, Step, Work};

/// Has messages that are encrypted for this node opened by an opener service, [`Opener`](crate::Opener) or another
/// `Service<Verified, Response = Result<Opened, OpenError>>`.
///
/// Clear messages need no arithmetic and are read here. What is encrypted for others passes on unread. What is for this
/// node but does not open is dropped, and nobody is told why or blamed: only this node can tell, so no relay could have
/// known.
///
/// Specification 03, section 3.5, steps B and C.
#[derive(Clone, Debug)]
pub struct OpenLayer<O> {
    opener: O,
    identity: Arc<NodeIdentity>,
}

/// Service produced by [`OpenLayer`].
#[derive(Clone, Debug)]
pub struct Open<O, S> {
    opener: O,
    identity: Arc<NodeIdentity>,
    inner: S,
}

/// What [`Open`] does with the opener's answer.
#[derive(Debug)]
pub struct AfterOpen<S> {
    message: Inbound<()>,
    hash: dht_core::DedupHash,
    hits: u32,
    inner: S,
}

impl<O> OpenLayer<O> {
    /// Asks `opener` about what is addressed to `identity`.
    pub const fn new(opener: O, identity: Arc<NodeIdentity>) -> Self {
        Self { opener, identity }
    }
}

impl<O: Clone, S> Layer<S> for OpenLayer<O> {
    type Service = Open<O, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Open {
            opener: self.opener.clone(),
            identity: Arc::clone(&self.identity),
            inner,
        }
    }
}

impl<O, S> Service<Inbound<Counted>> for Open<O, S>
where
    O: Service<Verified, Response = Result<Opened, OpenError>>,
    O::Error: Into<BoxError>,
    S: Service<Message, Response = Disposition> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = Step<Work<O::Response, O::Future>, AfterOpen<S>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
        self.opener.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, message: Inbound<Counted>) -> Self::Future {
        // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
        let unready = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unready);
        let (
            Counted {
                verified,
                hash,
                hits,
            },
            message,
        ) = message.split();
        let header = verified.header();
        let for_us = header.destination.public_key() == Some(self.identity.public_key());
        let work = if header.is_encrypted() && for_us {
            Work::running(self.opener.call(verified))
        } else {
            Work::done(verified.open(&self.identity))
        };
        Step::new(
            work,
            AfterOpen {
                message,
                hash,
                hits,
                inner,
            },
        )
    }
}

impl<S> Next<Result<Opened, OpenError>> for AfterOpen<S>
where
    S: Service<Message, Response = Disposition>,
{
    type Future = S::Future;

    fn next(
        mut self,
        outcome: Result<Opened, OpenError>,
    ) -> Result<ControlFlow<Disposition, S::Future>, BoxError> {
        let reason = match outcome {
            Ok(opened) => {
                return Ok(ControlFlow::Continue(self.inner.call(Message {
                    source: self.message.source,
                    opened,
                    hash: self.hash,
                    hits: self.hits,
                    is_saf: false,
                    stored: None,
                    already_forwarded: false,
                    permit: self.message.permit,
                })));
            }
            Err(OpenError::UndecodableBody) => DropReason::UndecodableBody,
            Err(_) => DropReason::Undecryptable,
        };
        Ok(ControlFlow::Break(Disposition::Dropped(reason)))
    }
}

#[cfg(test)]
mod tests;
