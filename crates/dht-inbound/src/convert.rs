//! From the structure of a header to its meaning: specification 03, section 3.2, step 4, and F-2.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{Disposition, DropReason, KeyCache, RawEnvelope, Sealed};
use tower_layer::Layer;
use tower_service::Service;
use tracing::trace;

use crate::{Filtered, Inbound};

/// Converts header fields and checks that keys are points of the curve; drops the message if one is not. No ban: a
/// relay may not have looked.
///
/// Behind the layers that drop what is old or known, since decoding a point costs as much as the whole way of a
/// duplicate.
///
/// Specification 03, section 3.2, step 4.
#[derive(Clone, Debug, Default)]
pub struct ConvertLayer {
    keys: Arc<KeyCache>,
}

/// Service produced by [`ConvertLayer`].
#[derive(Clone, Debug)]
pub struct Convert<S> {
    keys: Arc<KeyCache>,
    inner: S,
}

impl ConvertLayer {
    /// Remembers the destinations it has decoded.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for ConvertLayer {
    type Service = Convert<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Convert {
            keys: Arc::clone(&self.keys),
            inner,
        }
    }
}

impl<S> Service<Inbound<RawEnvelope>> for Convert<S>
where
    S: Service<Inbound<Sealed>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Inbound<RawEnvelope>) -> Self::Future {
        let (envelope, rest) = message.split();
        match envelope.into_sealed_with(&self.keys) {
            Ok(sealed) => Filtered::passed(self.inner.call(rest.map(|()| sealed))),
            Err(cause) => {
                trace!(%cause, "header does not convert");
                Filtered::dropped(DropReason::BadHeader)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{
        Signing,
        test_util::{clear, encrypted, identity, public_key},
    };
    use dht_proto::envelope::{DhtEnvelope, DhtHeader, dht_header::Destination};
    use tower_test::mock;

    use super::*;
    use crate::test_support as support;

    #[tokio::test]
    async fn b058_header_and_body_arrive_as_sent() {
        for frame in [
            clear(&identity(1), Signing::Origin, b"x", 1),
            clear(&identity(1), Signing::Anonymous, b"", 2),
            encrypted(&identity(1), &public_key(2), b"x", 3),
        ] {
            let expected = RawEnvelope::parse(frame.clone())
                .unwrap()
                .into_sealed()
                .unwrap();
            let (mut service, mut inner) =
                mock::spawn_layer::<Inbound<Sealed>, Disposition, _>(ConvertLayer::new());
            inner.allow(1);
            tokio_test::assert_ready_ok!(service.poll_ready());
            let _response = service.call(support::raw(frame.clone()));
            let (passed, _) = inner.next_request().await.unwrap();
            assert_eq!(passed.envelope.header(), expected.header());
            assert_eq!(passed.envelope.body(), expected.body());
            assert_eq!(passed.envelope.frame(), &frame);
        }
    }

    #[tokio::test]
    async fn each_field_that_does_not_convert_is_dropped() {
        let key = |byte| Bytes::from(vec![byte; 32]);
        let header = DhtHeader {
            major: 2,
            destination: Some(Destination::Unknown(true)),
            ..DhtHeader::default()
        };
        let broken = [
            None,
            Some(DhtHeader {
                destination: None,
                ..header.clone()
            }),
            Some(DhtHeader {
                destination: Some(Destination::PublicKey(key(0xff))),
                ..header.clone()
            }),
            Some(DhtHeader {
                destination: Some(Destination::PublicKey(Bytes::new())),
                ..header.clone()
            }),
            Some(DhtHeader {
                ephemeral_public_key: key(0xff),
                ..header.clone()
            }),
            Some(DhtHeader {
                major: 0,
                ..header.clone()
            }),
            Some(DhtHeader {
                major: 3,
                ..header.clone()
            }),
            Some(DhtHeader {
                message_type: 4,
                ..header.clone()
            }),
            Some(DhtHeader {
                flags: 2,
                ..header.clone()
            }),
        ];
        for header in broken {
            let frame = dht_proto::encode(&DhtEnvelope {
                header,
                body: Bytes::from_static(b"x"),
            });
            let ended = support::run_filter(ConvertLayer::new(), support::raw(frame)).await;
            assert_eq!(ended, Disposition::Dropped(DropReason::BadHeader));
        }
    }

    #[test]
    fn readiness_is_that_of_the_inner_service() {
        support::assert_readiness_is_inner::<Inbound<RawEnvelope>, Inbound<Sealed>, _>(
            ConvertLayer::new(),
        );
    }
}
