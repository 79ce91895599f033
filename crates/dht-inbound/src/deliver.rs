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
