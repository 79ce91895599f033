//! Drops what is past its time: specification 03, section 3.4.

use std::task::{Context, Poll};

use dht_core::{Clock, Disposition, DropReason, RawEnvelope};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Filtered, Inbound};

/// Drops messages whose expiry lies strictly in the past, in whole seconds; without a ban, for clocks differ.
///
/// Before the signature that covers the expiry is checked: all this can do with a forged one is drop.
///
/// Specification 03, section 3.4.
#[derive(Clone, Copy, Debug)]
pub struct ExpiryLayer<C> {
    clock: C,
}

/// Service produced by [`ExpiryLayer`].
#[derive(Clone, Debug)]
pub struct Expiry<C, S> {
    clock: C,
    inner: S,
}

impl<C> ExpiryLayer<C> {
    /// Takes the time from `clock`.
    pub const fn new(clock: C) -> Self {
        Self { clock }
    }
}

impl<C: Clone, S> Layer<S> for ExpiryLayer<C> {
    type Service = Expiry<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Expiry {
            clock: self.clock.clone(),
            inner,
        }
    }
}

impl<C, S> Service<Inbound<RawEnvelope>> for Expiry<C, S>
where
    C: Clock,
    S: Service<Inbound<RawEnvelope>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Inbound<RawEnvelope>) -> Self::Future {
        match message.envelope.header().map_or(0, |header| header.expires) {
            expires if expires != 0 && expires < self.clock.now().0 => {
                Filtered::dropped(DropReason::Expired)
            }
            _ => Filtered::passed(self.inner.call(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dht_core::{ManualClock, UnixSeconds};

    use super::*;
    use crate::test_support::{self as support, NOW};

    async fn pass(expires: Option<UnixSeconds>) -> Disposition {
        let clock = Arc::new(ManualClock::new(NOW));
        support::run_filter(ExpiryLayer::new(clock), support::raw_expiring(expires)).await
    }

    #[tokio::test]
    async fn b056_one_second_late_is_dropped_and_no_expiry_passes() {
        let late = pass(Some(UnixSeconds(NOW.0 - 1))).await;
        assert_eq!(late, Disposition::Dropped(DropReason::Expired));
        assert_eq!(pass(None).await, Disposition::Delivered);
        assert_eq!(pass(Some(NOW)).await, Disposition::Delivered);
        assert_eq!(
            pass(Some(UnixSeconds(u64::MAX))).await,
            Disposition::Delivered
        );
    }

    #[test]
    fn readiness_is_that_of_the_inner_service() {
        let clock = Arc::new(ManualClock::new(NOW));
        support::assert_readiness_is_inner::<Inbound<RawEnvelope>, Inbound<RawEnvelope>, _>(
            ExpiryLayer::new(clock),
        );
    }
}
