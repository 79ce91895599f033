//! Semantics and signature, on every node whether or not the message is for it: specification 03, section 3.5,
//! step A.

use std::{
    mem,
    ops::ControlFlow,
    task::{Context, Poll, ready},
};

use dht_core::{Disposition, DropReason, Sealed, Verified, VerifyError};
use dht_stack::BoxError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::trace;

use crate::{BanSink, Bans, Inbound, Next, Offence, Parties, Step};

/// Has each envelope checked by a verifier service, and drops those that do not hold.
///
/// The verifier is a `Service<Sealed, Response = Result<Verified, VerifyError>>`: [`Verifier`](crate::Verifier),
/// or one that checks many at once. The legacy profile bans the neighbour for what does not hold; the strict one
/// bans nobody, for whoever feeds a relay junk would choose whom to get banned (F-4). A signature that holds but is
/// not in its canonical encoding is dropped without a ban in both (F-5).
///
/// Specification 03, section 3.5, step A.
#[derive(Debug)]
pub struct VerifyLayer<V, B> {
    verifier: V,
    bans: Bans<B>,
}

/// Service produced by [`VerifyLayer`].
#[derive(Debug)]
pub struct Verify<V, B, S> {
    verifier: V,
    bans: Bans<B>,
    inner: S,
}

/// What [`Verify`] does with the verifier's answer.
#[derive(Debug)]
pub struct AfterVerify<B, S> {
    bans: Bans<B>,
    message: Inbound<()>,
    inner: S,
}

// === impl VerifyLayer ===

impl<V, B> VerifyLayer<V, B> {
    /// Asks `verifier`.
    pub const fn new(verifier: V, bans: Bans<B>) -> Self {
        Self { verifier, bans }
    }
}

impl<V: Clone, B> Clone for VerifyLayer<V, B> {
    fn clone(&self) -> Self {
        Self {
            verifier: self.verifier.clone(),
            bans: self.bans.clone(),
        }
    }
}

impl<V: Clone, B, S> Layer<S> for VerifyLayer<V, B> {
    type Service = Verify<V, B, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Verify {
            verifier: self.verifier.clone(),
            bans: self.bans.clone(),
            inner,
        }
    }
}

// === impl Verify ===

impl<V: Clone, B, S: Clone> Clone for Verify<V, B, S> {
    fn clone(&self) -> Self {
        Self {
            verifier: self.verifier.clone(),
            bans: self.bans.clone(),
            inner: self.inner.clone(),
        }
    }
}

impl<V, B, S> Service<Inbound<Sealed>> for Verify<V, B, S>
where
    V: Service<Sealed, Response = Result<Verified, VerifyError>>,
    V::Error: Into<BoxError>,
    B: BanSink,
    S: Service<Inbound<Verified>, Response = Disposition> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = Step<V::Future, AfterVerify<B, S>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
        self.verifier.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, message: Inbound<Sealed>) -> Self::Future {
        // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
        let unready = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unready);
        let (sealed, message) = message.split();
        let next = AfterVerify {
            bans: self.bans.clone(),
            message,
            inner,
        };
        Step::new(self.verifier.call(sealed), next)
    }
}

impl<B, S> Next<Result<Verified, VerifyError>> for AfterVerify<B, S>
where
    B: BanSink,
    S: Service<Inbound<Verified>, Response = Disposition>,
{
    type Future = S::Future;

    fn next(
        mut self,
        outcome: Result<Verified, VerifyError>,
    ) -> Result<ControlFlow<Disposition, S::Future>, BoxError> {
        let dropped = |reason| Ok(ControlFlow::Break(Disposition::Dropped(reason)));
        match outcome {
            Ok(verified) if !verified.signature_is_canonical() => dropped(DropReason::NotCanonical),
            Ok(verified) => Ok(ControlFlow::Continue(
                self.inner.call(self.message.map(|()| verified)),
            )),
            Err(cause) => {
                trace!(%cause, "not valid");
                let (offence, reason) = match cause {
                    VerifyError::Semantics(_) => (Offence::BadSemantics, DropReason::BadSemantics),
                    _ => (Offence::BadSignature, DropReason::BadSignature),
                };
                let parties = Parties {
                    source: Some(self.message.source.node_id),
                    ..Parties::default()
                };
                self.bans.report(offence, parties);
                dropped(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests;
