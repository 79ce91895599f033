//! Keeps repeats from going round: specification 03, section 3.7.

use std::task::{Context, Poll};

use dht_core::{Disposition, DropReason};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Filtered, Message};

/// Drops repeats, save undirected application messages: those the application may want to pass on again.
///
/// Only reached by repeats where more than one sighting is allowed.
///
/// Specification 03, section 3.7.
#[derive(Clone, Copy, Debug, Default)]
pub struct RebroadcastLayer;

/// Service produced by [`RebroadcastLayer`].
#[derive(Clone, Debug)]
pub struct Rebroadcast<S> {
    inner: S,
}

impl<S> Layer<S> for RebroadcastLayer {
    type Service = Rebroadcast<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Rebroadcast { inner }
    }
}

impl<S> Service<Message> for Rebroadcast<S>
where
    S: Service<Message, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        if message.is_repeat() && !message.is_undirected() {
            return Filtered::dropped(DropReason::Rebroadcast);
        }
        Filtered::passed(self.inner.call(message))
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{
        Destination, Encryption, Signing,
        test_util::{clear, encrypted, frame, identity, public_key},
    };

    use super::*;
    use crate::test_support as support;

    #[tokio::test]
    async fn only_undirected_repeats_pass() {
        let sender = identity(1);
        let directed = Destination::PublicKey(public_key(2));
        let cases = [
            (clear(&sender, Signing::Origin, b"x", 1), true),
            (clear(&sender, Signing::Anonymous, b"x", 1), true),
            (
                frame(
                    &sender,
                    directed,
                    Encryption::Clear,
                    Signing::Origin,
                    b"x",
                    1,
                ),
                false,
            ),
            (encrypted(&sender, &public_key(2), b"x", 1), false),
        ];
        for (frame, may_repeat) in cases {
            for (hits, passes) in [(0, true), (1, true), (2, may_repeat), (3, may_repeat)] {
                let message = Message {
                    hits,
                    ..support::message(frame.clone())
                };
                let expected = match passes {
                    true => Disposition::Delivered,
                    false => Disposition::Dropped(DropReason::Rebroadcast),
                };
                assert_eq!(
                    support::run_filter(RebroadcastLayer, message).await,
                    expected
                );
            }
        }
    }

    #[test]
    fn readiness_is_that_of_the_inner_service() {
        support::assert_readiness_is_inner::<Message, Message, _>(RebroadcastLayer);
    }
}
