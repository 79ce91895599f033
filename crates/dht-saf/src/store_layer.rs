//! The layer that keeps others' mail: section 2.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use dht_core::{Clock as _, Content, Disposition, DropReason, InTransit, StoreOutcome};
use dht_mailbox::{Inserted, Neighbour, NewRecord, Recipient, Retention, Store, StoreError};
use dht_stack::BoxError;
use futures::future::BoxFuture;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    admission::{Candidate, Decision, decide},
    metrics,
    saf::Saf,
};

/// Keeps what is for absent peers of this node's region, marks it, and passes every message on.
///
/// A message is passed on after its commit. One that the store does not take, for whatever reason, is passed on as
/// not kept: the node goes on relaying with a full or broken disk.
#[derive(Clone, Debug)]
pub struct StoreLayer {
    saf: Saf,
    store: Store,
}

/// Service produced by [`StoreLayer`].
#[derive(Clone, Debug)]
pub struct Keep<S> {
    saf: Saf,
    store: Store,
    inner: S,
}

pin_project! {
    /// Response future of [`Keep`].
    #[project = KeepFutureProj]
    #[allow(missing_docs, missing_debug_implementations, reason = "opaque")]
    pub enum KeepFuture<F> {
        Passed { #[pin] inner: F },
        // Waits for the disk before it calls on.
        Storing { work: BoxFuture<'static, Result<Disposition, BoxError>> },
    }
}

impl StoreLayer {
    pub(crate) const fn new(saf: Saf, store: Store) -> Self {
        Self { saf, store }
    }
}

impl<S> Layer<S> for StoreLayer {
    type Service = Keep<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Keep {
            saf: self.saf.clone(),
            store: self.store.clone(),
            inner,
        }
    }
}

impl<M, S> Service<M> for Keep<S>
where
    M: InTransit,
    S: Service<M, Response = Disposition, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = KeepFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut message: M) -> Self::Future {
        let retention = match self.saf.consider(&message) {
            Decision::Store(retention) => retention,
            Decision::Skip(reason) => {
                metrics::considered(reason.name());
                if !reason.leaves_mark_unset() {
                    message.set_store_outcome(StoreOutcome::NotStored);
                    self.decline(&message);
                }
                return self.pass(message);
            }
        };
        let now = self.saf.0.clock.now();
        let neighbour = Neighbour::from(&message.source().public_key);
        if !self.saf.0.neighbours.lock().admit(neighbour, now) {
            metrics::considered("rate");
            message.set_store_outcome(StoreOutcome::NotStored);
            self.decline(&message);
            return self.pass(message);
        }
        let record = record(&message, retention, neighbour);
        let (saf, store) = (self.saf.clone(), self.store.clone());
        // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
        let unready = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, unready);
        let work = Box::pin(async move {
            let kept = settle(store.insert(record, now).await);
            message.set_store_outcome(kept);
            saf.0
                .receipts
                .note(message.hash(), kept != StoreOutcome::NotStored);
            let disposition = inner.call(message).await.map_err(Into::into)?;
            Ok(match disposition {
                // Nobody further in could do anything about it; it is here.
                Disposition::Dropped(DropReason::NotForUs | DropReason::Overload)
                    if kept != StoreOutcome::NotStored =>
                {
                    Disposition::Stored
                }
                disposition => disposition,
            })
        });
        KeepFuture::Storing { work }
    }
}

impl<S> Keep<S> {
    /// Whoever sent it may ask; what could be read here is nobody else's mail.
    fn decline(&self, message: &impl InTransit) {
        if matches!(message.opened().content, Content::Unreadable) {
            self.saf.0.receipts.note(message.hash(), false);
        }
    }

    fn pass<M>(&mut self, message: M) -> KeepFuture<S::Future>
    where
        S: Service<M>,
    {
        KeepFuture::Passed {
            inner: self.inner.call(message),
        }
    }
}

impl Saf {
    /// Whether to keep a message.
    fn consider(&self, message: &impl InTransit) -> Decision {
        let opened = message.opened();
        let (readable, body_bytes) = match &opened.content {
            Content::Readable { parts, .. } => (true, parts.iter().map(|part| part.len()).sum()),
            Content::Unreadable => (false, opened.body.len()),
        };
        let candidate = Candidate {
            hits: message.occurrences(),
            body_bytes: u64::try_from(body_bytes).unwrap_or(u64::MAX),
            expires: opened.header.expires,
            message_type: opened.header.message_type,
            destination: &opened.header.destination,
            origin: opened.origin(),
            readable,
            signed: !opened.header.signature.is_empty(),
        };
        let (max, now) = (self.0.config.max_body_bytes, self.0.clock.now());
        decide(&candidate, &*self.0, max, now)
    }
}

fn record(message: &impl InTransit, retention: Retention, neighbour: Neighbour) -> NewRecord {
    let opened = message.opened();
    let destination = opened.header.destination.public_key();
    NewRecord {
        recipient: destination.map_or(Recipient::ANONYMOUS, Recipient::from),
        neighbour,
        hash: message.hash(),
        retention,
        expires: opened.header.expires,
        // Frames are canonical, so this is what came.
        header: dht_proto::encode(&opened.header.to_proto()),
        body: opened.body.clone(),
    }
}

fn settle(outcome: Result<Inserted, StoreError>) -> StoreOutcome {
    match outcome {
        Ok(Inserted::Fresh(_)) => {
            metrics::considered("stored");
            StoreOutcome::Stored
        }
        Ok(Inserted::AlreadyExisted) => {
            metrics::considered("known");
            StoreOutcome::AlreadyStored
        }
        Err(error) => {
            metrics::considered(error.name());
            match error {
                StoreError::Refused(reason) => tracing::debug!(%reason, "message not stored"),
                error => tracing::warn!(%error, "message not stored"),
            }
            StoreOutcome::NotStored
        }
    }
}

impl<F, E> Future for KeepFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Disposition, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            KeepFutureProj::Passed { inner } => inner.poll(cx).map_err(Into::into),
            KeepFutureProj::Storing { work } => work.as_mut().poll(cx),
        }
    }
}
