//! Counts arrivals per neighbour.

use std::task::{Context, Poll};

use dht_core::Clock;
use tower_layer::Layer;
use tower_service::Service;

use crate::{FloodMeter, Received};

/// Tells the [`FloodMeter`] about every frame, before anything can drop it. Bans nobody: that is up to whoever asks
/// the meter at intervals.
///
/// Specification 03, section 3.1.
#[derive(Clone, Debug)]
pub struct MeterLayer<C> {
    meter: FloodMeter,
    clock: C,
}

/// Service produced by [`MeterLayer`].
#[derive(Clone, Debug)]
pub struct Meter<C, S> {
    meter: FloodMeter,
    clock: C,
    inner: S,
}

impl<C> MeterLayer<C> {
    /// Counts into `meter`, at the time of `clock`.
    pub const fn new(meter: FloodMeter, clock: C) -> Self {
        Self { meter, clock }
    }
}

impl<C: Clone, S> Layer<S> for MeterLayer<C> {
    type Service = Meter<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Meter {
            meter: self.meter.clone(),
            clock: self.clock.clone(),
            inner,
        }
    }
}

impl<C, S> Service<Received> for Meter<C, S>
where
    C: Clock,
    S: Service<Received>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: Received) -> Self::Future {
        self.meter
            .record(&received.source.node_id, self.clock.now());
        self.inner.call(received)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dht_core::{Disposition, ManualClock};
    use tokio_test::{assert_pending, assert_ready_ok};
    use tower_test::mock;

    use super::*;
    use crate::{FloodLimits, test_support as support};

    #[tokio::test]
    async fn every_frame_is_counted_and_passed_on() {
        let meter = FloodMeter::new(FloodLimits::default(), [0; 16]);
        let clock = Arc::new(ManualClock::new(support::NOW));
        let layer = MeterLayer::new(meter.clone(), clock);
        let (mut service, mut inner) = mock::spawn_layer::<Received, Disposition, _>(layer);
        inner.allow(0);
        assert_pending!(service.poll_ready());
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());

        let received = support::received(bytes::Bytes::from_static(b"anything"));
        let source = received.source.node_id;
        let response = service.call(received);
        let (passed, reply) = inner.next_request().await.unwrap();
        assert_eq!(&passed.frame[..], b"anything");
        reply.send_response(Disposition::Delivered);
        assert_eq!(response.await.unwrap(), Disposition::Delivered);
        assert_eq!(meter.count(&source, support::NOW), 1);
    }
}
