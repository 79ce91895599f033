//! From the structure of a header to its meaning: specification 03, section 3.2, step 4; 03 F-2.

use std::sync::Arc;

use dht_core::{DropReason, KeyCache, RawEnvelope, Sealed};
use dht_stack::Check;
use tracing::trace;

use crate::message::InboundEnvelope;

/// Converts header fields and checks that keys are points of the curve; drops the message if one is not. No ban: a
/// relay may not have looked.
///
/// Behind the checks that drop what is old or known, since decoding a point costs as much as the whole way of a
/// duplicate.
///
/// Specification 03, section 3.2, step 4.
#[derive(Clone, Debug, Default)]
pub struct Convert {
    /// Destinations that were decoded before.
    keys: Arc<KeyCache>,
}

impl Check<InboundEnvelope<RawEnvelope>> for Convert {
    type Out = InboundEnvelope<Sealed>;
    type Reject = DropReason;

    fn check(&self, message: InboundEnvelope<RawEnvelope>) -> Result<Self::Out, DropReason> {
        let (envelope, rest) = message.split();
        match envelope.into_sealed_with(&self.keys) {
            Ok(sealed) => Ok(rest.map(|()| sealed)),
            Err(cause) => {
                trace!(%cause, "header does not convert");
                Err(DropReason::BadHeader)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{
        Disposition, Signing,
        test_util::{clear, encrypted, identity, public_key},
    };
    use dht_proto::envelope::{DhtEnvelope, DhtHeader, dht_header::Destination};

    use super::*;
    use crate::test_support as support;

    #[test]
    fn b058_header_and_body_arrive_as_sent() {
        for frame in [
            clear(&identity(1), Signing::Origin, b"x", 1),
            clear(&identity(1), Signing::Anonymous, b"", 2),
            encrypted(&identity(1), &public_key(2), b"x", 3),
        ] {
            let expected = RawEnvelope::parse(frame.clone())
                .unwrap()
                .into_sealed()
                .unwrap();
            let passed = Convert::default()
                .check(support::raw(frame.clone()))
                .unwrap();
            assert_eq!(passed.envelope.header(), expected.header());
            assert_eq!(passed.envelope.body(), expected.body());
            assert_eq!(passed.envelope.frame(), &frame);
        }
    }

    #[tokio::test]
    async fn each_inconvertible_field_is_dropped() {
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
            let ended = support::run_check(Convert::default(), support::raw(frame)).await;
            assert_eq!(ended, Disposition::Dropped(DropReason::BadHeader));
        }
    }
}
