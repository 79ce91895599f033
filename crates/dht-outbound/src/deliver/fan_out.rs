//! One frame in, one message for each recipient out.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use dht_core::{Cause, Deliverer, MessageTag, NodeId, Priority};
use futures::{StreamExt, stream::FuturesUnordered};
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::{Deliveries, DeliveryReply};
use crate::{error::SendError, metrics, seal::SealedRequest};

/// Turns an [`SealedRequest`] into an [`OutboundMessage`] for each recipient and answers with their deliveries.
///
/// A message the inner service refuses is dropped, which its delivery reports; the others go on.
///
/// Specification 04, sections 5.2, step 10, and 5.5.
#[derive(Clone, Copy, Debug, Default)]
pub struct FanOutLayer;

/// Service produced by [`FanOutLayer`].
#[derive(Clone, Debug)]
pub struct FanOut<S>(S);

/// A frame for one peer: what the sink takes.
#[derive(Debug)]
pub struct OutboundMessage {
    /// Node that receives this copy.
    pub to: NodeId,
    /// The encoded envelope, shared by all recipients.
    pub frame: Bytes,
    /// Number that identifies the message in logs.
    pub tag: MessageTag,
    /// When it is shed.
    pub priority: Priority,
    /// Part of the node on whose behalf it is sent, and its peer dialled.
    pub cause: Cause,
    /// Deliverer of the message that it answers or passes on.
    pub deliverer: Option<Deliverer>,
    /// Where to report what became of it.
    pub reply: DeliveryReply,
}

/// Response future of [`FanOut`]: hands over as the inner service gets ready, then waits for all to be taken.
pub struct FanOutFuture<S: Service<OutboundMessage>> {
    inner: S,
    /// `poll_ready` reserved room for one.
    is_ready: bool,
    waiting: VecDeque<OutboundMessage>,
    taking: FuturesUnordered<S::Future>,
    deliveries: Option<Deliveries>,
}

impl<S> Layer<S> for FanOutLayer {
    type Service = FanOut<S>;

    fn layer(&self, inner: S) -> FanOut<S> {
        FanOut(inner)
    }
}

impl<S> Service<SealedRequest> for FanOut<S>
where
    S: Service<OutboundMessage> + Clone + Unpin,
    S::Error: Into<BoxError>,
{
    type Response = Deliveries;
    type Error = BoxError;
    type Future = FanOutFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: SealedRequest) -> FanOutFuture<S> {
        let SealedRequest {
            frame,
            recipients,
            tag,
            priority,
            cause,
            deliverer,
            hash,
        } = request;
        metrics::fan_out(recipients.len(), frame.len());
        let mut waiting = VecDeque::with_capacity(recipients.len());
        let mut deliveries = Vec::with_capacity(recipients.len());
        for to in recipients {
            let (reply, delivery) = DeliveryReply::pair(tag, to);
            waiting.push_back(OutboundMessage {
                to,
                frame: frame.clone(),
                tag,
                priority,
                cause,
                deliverer,
                reply,
            });
            deliveries.push(delivery);
        }
        // `poll_ready` readied *this* inner: take it, and leave an unready clone behind.
        let unready = self.0.clone();
        FanOutFuture {
            inner: std::mem::replace(&mut self.0, unready),
            is_ready: true,
            waiting,
            taking: FuturesUnordered::new(),
            deliveries: Some(Deliveries::from(deliveries).named(hash)),
        }
    }
}

impl<S> Future for FanOutFuture<S>
where
    S: Service<OutboundMessage> + Unpin,
    S::Error: Into<BoxError>,
{
    type Output = Result<Deliveries, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        while !this.waiting.is_empty() {
            if !this.is_ready {
                // Correctness: what was handed over must go on while the inner service has no room, because it may
                // be what makes room.
                let _none_or_some_left = this.poll_taking(cx);
                if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                    let error: BoxError = error.into();
                    tracing::warn!(%error, dropped = this.waiting.len(), "sink is gone");
                    // Their deliveries report it.
                    this.waiting.clear();
                    break;
                }
            }
            this.is_ready = false;
            if let Some(message) = this.waiting.pop_front() {
                let span = tracing::trace_span!("outbound_message", to = %message.to);
                let taking = span.in_scope(|| this.inner.call(message));
                this.taking.push(taking);
            }
        }
        ready!(this.poll_taking(cx));
        // A future polled after it is ready may answer anything.
        Poll::Ready(
            this.deliveries
                .take()
                .ok_or_else(|| SendError::Closed.into()),
        )
    }
}

impl<S> FanOutFuture<S>
where
    S: Service<OutboundMessage>,
    S::Error: Into<BoxError>,
{
    /// Ready when everything handed over so far has been taken or refused.
    fn poll_taking(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(taken) = ready!(self.taking.poll_next_unpin(cx)) {
            metrics::taken(taken.is_ok());
            if let Err(error) = taken {
                let error: BoxError = error.into();
                // Not a warning: peers can make their queues overflow as often as they like.
                tracing::debug!(%error, "message not taken");
            }
        }
        Poll::Ready(())
    }
}

impl<S: Service<OutboundMessage>> fmt::Debug for FanOutFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOutFuture")
            .field("waiting", &self.waiting.len())
            .field("taking", &self.taking.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
    use tower_test::mock;

    use super::*;
    use dht_core::DeliveryError;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes(&[n; 13]).unwrap()
    }

    fn request(n: u8) -> SealedRequest {
        SealedRequest {
            frame: Bytes::from_static(b"frame"),
            recipients: (1..=n).map(id).collect(),
            tag: MessageTag(7),
            priority: Priority::Direct,
            cause: Cause::Application,
            deliverer: None,
            hash: None,
        }
    }

    type Handle = mock::Handle<OutboundMessage, ()>;

    fn spawn() -> (mock::Spawn<FanOut<mock::Mock<OutboundMessage, ()>>>, Handle) {
        mock::spawn_layer(FanOutLayer)
    }

    fn take(inner: &mut Handle) -> Option<(OutboundMessage, mock::SendResponse<()>)> {
        match task::spawn(inner.next_request()).poll() {
            Poll::Ready(request) => request,
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn every_recipient_gets_the_same_buffer() {
        let (mut service, mut inner) = spawn();
        inner.allow(3);
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request(3)));
        assert_pending!(call.poll());
        let mut frames = Vec::new();
        for n in 1..=3 {
            let (message, sent) = take(&mut inner).unwrap();
            assert_eq!((message.to, message.tag), (id(n), MessageTag(7)));
            frames.push(message.frame.as_ptr());
            message.reply.send(Ok(()));
            sent.send_response(());
        }
        assert!(frames.iter().all(|frame| *frame == frames[0]));
        let Poll::Ready(Ok(states)) = call.poll() else {
            panic!("everything was taken")
        };
        assert_eq!(states.wait_all().await.0.len(), 3);
    }

    #[tokio::test]
    async fn readiness_is_asked_for_each_recipient() {
        let (mut service, mut inner) = spawn();
        inner.allow(0);
        assert_pending!(service.poll_ready());
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request(2)));
        assert_pending!(call.poll());
        let (first, taken) = take(&mut inner).unwrap();
        assert_eq!(first.to, id(1));
        assert!(take(&mut inner).is_none(), "there was room for one");
        taken.send_response(());
        assert_pending!(call.poll());
        inner.allow(1);
        assert!(call.is_woken());
        assert_pending!(call.poll());
        let (second, taken) = take(&mut inner).unwrap();
        assert_eq!(second.to, id(2));
        taken.send_response(());
        assert_ready!(call.poll()).unwrap();
    }

    #[tokio::test]
    async fn a_refused_copy_stops_no_other() {
        let (mut service, mut inner) = spawn();
        inner.allow(2);
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request(2)));
        assert_pending!(call.poll());
        let (first, refused) = take(&mut inner).unwrap();
        drop(first);
        refused.send_error("queue is full");
        let (second, taken) = take(&mut inner).unwrap();
        second.reply.send(Ok(()));
        taken.send_response(());
        let states = assert_ready!(call.poll()).unwrap();
        let mut results = Vec::new();
        for state in states {
            results.push((state.recipient(), state.wait_for_result().await));
        }
        assert_eq!(
            results,
            [(id(1), Err(DeliveryError::Dropped)), (id(2), Ok(()))]
        );
    }

    #[tokio::test]
    async fn a_closed_sink_drops_the_rest() {
        let (mut service, mut inner) = spawn();
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request(3)));
        assert_pending!(call.poll());
        let (first, taken) = take(&mut inner).unwrap();
        first.reply.send(Ok(()));
        taken.send_response(());
        inner.send_error("gone");
        let states = assert_ready!(call.poll()).unwrap();
        let (ok, failed) = states.wait_all().await;
        assert_eq!((ok.len(), failed.len()), (1, 2));
    }
}
