//! Where the crates meet: each small type speaks one crate's trait with another crate's part.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use dht_core::{DedupHash, Deliverer, DeliveryError, Disposition, DropReason, NodeId, Priority};
use dht_inbound::Delivered;
use dht_outbound::OutboundMessage;
use dht_stack::BytePermit;
use dht_transport::Transport;
use futures::future::BoxFuture;
use tower::{BoxError, Service};

use crate::{
    counters::Counters,
    events::{Event, Events},
    inbox::Subscribers,
    received::Received,
};

/// The end of the outbound pipeline: a message is taken once it is in its peer's queue.
#[derive(Clone)]
pub(crate) struct ToTransport {
    pub(crate) transport: Transport,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: Events,
}

impl Service<OutboundMessage> for ToTransport {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    /// Always ready: a full queue refuses, it does not wait, so that one slow peer holds up no other.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: OutboundMessage) -> Self::Future {
        let OutboundMessage {
            to,
            frame,
            priority,
            cause,
            deliverer,
            reply,
            ..
        } = message;
        let unsent = self.unsent();
        let report = move |outcome: Result<(), DeliveryError>| {
            if let Err(reason) = outcome {
                unsent(to, priority, reason);
            }
            reply.send(outcome);
        };
        let cause = cause.into();
        let queued =
            (self.transport).send_reporting(&to, frame, priority, cause, deliverer, report);
        std::future::ready(queued.map_err(Into::into))
    }
}

impl ToTransport {
    /// Counts and publishes what no socket took.
    fn unsent(&self) -> impl FnOnce(NodeId, Priority, DeliveryError) + Send + use<> {
        let (counters, events) = (Arc::clone(&self.counters), self.events.clone());
        move |to, priority, reason| {
            counters.unsent.fetch_add(1, Ordering::Relaxed);
            events.publish(|| Event::Unsent {
                to,
                priority,
                reason,
            });
        }
    }
}

/// The end of the inbound stack: the durable inbox of a node with a home, otherwise the application's subscriptions.
#[derive(Clone)]
pub(crate) struct ToApplication {
    pub(crate) subscribers: Arc<Subscribers>,
    #[cfg(feature = "spool")]
    pub(crate) durable_inbox: Option<crate::durable_inbox::DurableInbox>,
}

impl ToApplication {
    /// Whether a message is in the durable inbox, or left it not long ago. False without one.
    #[cfg(feature = "saf")]
    pub(crate) fn has(&self, hash: &DedupHash) -> bool {
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &self.durable_inbox {
            return durable_inbox.inbox.contains(hash);
        }
        let _no_inbox = hash;
        false
    }

    /// Delivers a message of this node to itself; whether the inbox or the application has taken it.
    pub(crate) async fn deliver_own(&self, received: Received, hash: DedupHash) -> bool {
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &self.durable_inbox {
            return durable_inbox.deliver_own(received, hash).await;
        }
        let _no_table = hash;
        let own = received.sender.as_ref();
        let deliverer = own.map_or(Deliverer::from_bytes([0; 32]), Deliverer::from);
        let delivery = (self.subscribers).deliver(received, deliverer, BytePermit::none());
        delivery.await == Disposition::Delivered
    }
}

impl Service<Delivered> for ToApplication {
    type Response = Disposition;
    type Error = BoxError;
    // The outer edge of the stack, where a message waits for the disk or for the application.
    type Future = BoxFuture<'static, Result<Disposition, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Waiting happens in the call, where it holds the message's memory and thereby the peer that sent it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivered: Delivered) -> Self::Future {
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &self.durable_inbox {
            let insertion = durable_inbox.deliver(delivered);
            return Box::pin(async move { Ok(insertion.await) });
        }
        let subscribers = Arc::clone(&self.subscribers);
        Box::pin(async move {
            let message =
                Received::from_parts(&delivered.parts, delivered.origin, delivered.source.node_id);
            let Some(received) = message else {
                return Ok(Disposition::Dropped(DropReason::Refused));
            };
            let deliverer = Deliverer::from(&*delivered.source);
            Ok((subscribers.deliver(received, deliverer, delivered.permit)).await)
        })
    }
}
