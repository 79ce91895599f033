//! Semantics and signature, on every node whether or not the message is for it: specification 03, section 3.5,
//! step A.

use std::{
    mem,
    ops::ControlFlow,
    task::{Context, Poll, ready},
};

use dht_core::{Disposition, DropReason, Sealed, Verified, VerifyError};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_stack::BoxError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::trace;

use crate::{Inbound, Next, Step};

/// Has each envelope checked by a verifier service, and drops those that do not hold.
///
/// The verifier is a `Service<Sealed, Response = Result<Verified, VerifyError>>`: [`Verifier`](crate::Verifier),
/// or one that checks many at once. The legacy profile bans the neighbour for what does not hold; the strict one
/// bans nobody, for whoever feeds a relay junk would choose whom to get banned (F-4). A signature that holds but is
/// not in its canonical encoding is dropped without a ban in both (F-5).
///
/// Specification 03, section 3.5, step A.
#[derive(Debug)]
pub struct VerifyLayer<V> {
    verifier: V,
    bans: BanPolicy,
}

/// Service produced by [`VerifyLayer`].
#[derive(Debug)]
pub struct Verify<V, S> {
    verifier: V,
    bans: BanPolicy,
    inner: S,
}

/// What [`Verify`] does with the verifier's answer.
#[derive(Debug)]
pub struct AfterVerify<S> {
    bans: BanPolicy,
    message: Inbound<()>,
    inner: S,
}

// === impl VerifyLayer ===

impl<V> VerifyLayer<V> {
    /// Asks `verifier`.
    pub const fn new(verifier: V, bans: BanPolicy) -> Self {
        Self { verifier, bans }
    }
}

impl<V: Clone> Clone for VerifyLayer<V> {
    fn clone(&self) -> Self {
        Self {
            verifier: self.verifier.clone(),
            bans: self.bans.clone(),
        }
    }
}

impl<V: Clone, S> Layer<S> for VerifyLayer<V> {
    type Service = Verify<V, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Verify {
            verifier: self.verifier.clone(),
            bans: self.bans.clone(),
            inner,
        }
    }
}

// === impl Verify ===

impl<V: Clone, S: Clone> Clone for Verify<V, S> {
    fn clone(&self) -> Self {
        Self {
            verifier: self.verifier.clone(),
            bans: self.bans.clone(),
            inner: self.inner.clone(),
        }
    }
}

impl<V, S> Service<Inbound<Sealed>> for Verify<V, S>
where
    V: Service<Sealed, Response = Result<Verified, VerifyError>>,
    V::Error: Into<BoxError>,
    S: Service<Inbound<Verified>, Response = Disposition> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = Step<V::Future, AfterVerify<S>, S::Future>;

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

impl<S> Next<Result<Verified, VerifyError>> for AfterVerify<S>
where
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
                let deliverer = Parties::deliverer(self.message.source.node_id);
                self.bans.report(offence, deliverer);
                dropped(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests;
