//! Hands the application its messages: specification 03, section 3.13.

use std::task::{Context, Poll};

use dht_core::{Content, Disposition, DropReason};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Delivered, Filtered, Message};

/// Turns readable application messages into [`Delivered`] for the application's service. Whatever else gets this far
/// has no handler on this node, and ends.
///
/// Backpressure of the application is felt all the way out: a full channel holds a slot of the pipeline.
///
/// Specification 03, section 3.13.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeliverLayer;

/// Service produced by [`DeliverLayer`].
#[derive(Clone, Debug)]
pub struct Deliver<S> {
    inner: S,
}

impl<S> Layer<S> for DeliverLayer {
    type Service = Deliver<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deliver { inner }
    }
}

impl<S> Service<Message> for Deliver<S>
where
    S: Service<Delivered, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        let Message {
            source,
            opened,
            hits,
            is_saf,
            permit,
            ..
        } = message;
        let kind = opened.header.message_type;
        match opened.content {
            Content::Readable { parts, origin } if kind.is_domain() => {
                Filtered::passed(self.inner.call(Delivered {
                    parts,
                    origin,
                    source,
                    header: opened.header,
                    frame: opened.frame,
                    hits,
                    is_saf,
                    permit,
                }))
            }
            Content::Readable { .. } if kind.is_saf() => Filtered::dropped(DropReason::RoleFilter),
            Content::Readable { .. } => Filtered::dropped(DropReason::Rebroadcast),
            Content::Unreadable => Filtered::dropped(DropReason::NotForUs),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{
        Destination, Encryption, MessageType, Signing, encode_parts,
        test_util::{clear, encrypted, identity, public_key},
    };

    use super::*;
    use crate::test_support as support;

    async fn ended(frame: Bytes) -> Disposition {
        support::run_filter(DeliverLayer, support::message(frame)).await
    }

    #[tokio::test]
    async fn only_readable_application_messages_are_delivered() {
        let from = identity(3);
        let readable = clear(&from, Signing::Anonymous, b"x", 1);
        assert_eq!(ended(readable).await, Disposition::Delivered);
        let theirs = encrypted(&from, &public_key(4), b"x", 1);
        assert_eq!(
            ended(theirs).await,
            Disposition::Dropped(DropReason::NotForUs)
        );

        let (to, encryption) = (Destination::Unknown, Encryption::Clear);
        for (kind, reason) in [
            (MessageType::SafRequestMessages, DropReason::RoleFilter),
            (MessageType::SafStoredMessages, DropReason::RoleFilter),
            (MessageType::Join, DropReason::Rebroadcast),
            (MessageType::Discovery, DropReason::Rebroadcast),
            (MessageType::DiscoveryResponse, DropReason::Rebroadcast),
        ] {
            let body = encode_parts(&[Bytes::from_static(b"x")]);
            let frame = support::frame(&from, kind, to, encryption, Signing::Origin, body);
            assert_eq!(ended(frame).await, Disposition::Dropped(reason));
        }
    }

    #[test]
    fn readiness_is_that_of_the_inner_service() {
        support::assert_readiness_is_inner::<Message, Delivered, _>(DeliverLayer);
    }
}
