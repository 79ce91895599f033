//! Header and body to one frame, shared by all recipients: specification 04, section 6.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{MessageTag, NodeId, Priority, encode_envelope};
use dht_proto::limits::MAX_MESSAGING_FRAME_BYTES;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Envelope, GenerateError, SealedRequest, SendFailure, SendMessageResponse};

/// Turns a [`SealedRequest`] into an [`EncodedRequest`]. A received frame is passed on as it is; a frame that is too
/// long for the messaging protocol is refused here and not by each recipient's queue.
///
/// Specification 04, section 6.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodeLayer;

/// Service produced by [`EncodeLayer`].
#[derive(Clone, Debug)]
pub struct Encode<S>(S);

/// One frame and everybody it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRequest {
    /// The encoded envelope.
    pub frame: Bytes,
    /// To whom; at least one.
    pub recipients: Vec<NodeId>,
    /// Trace id.
    pub tag: MessageTag,
    /// When it is shed.
    pub priority: Priority,
}

pin_project! {
    /// Response future of [`Encode`].
    #[derive(Debug)]
    pub struct EncodeFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Inner { #[pin] future: F },
        Refused { error: GenerateError },
    }
}

impl<S> Layer<S> for EncodeLayer {
    type Service = Encode<S>;

    fn layer(&self, inner: S) -> Encode<S> {
        Encode(inner)
    }
}

impl<S> Service<SealedRequest> for Encode<S>
where
    S: Service<EncodedRequest, Response = SendMessageResponse>,
{
    type Response = SendMessageResponse;
    type Error = S::Error;
    type Future = EncodeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: SealedRequest) -> Self::Future {
        let SealedRequest {
            envelope,
            recipients,
            tag,
            priority,
        } = request;
        let frame = match envelope {
            Envelope::Sealed(sealed) => encode_envelope(&sealed.header, &sealed.body),
            Envelope::Frame(frame) => frame,
        };
        let (bytes, max) = (frame.len(), MAX_MESSAGING_FRAME_BYTES);
        if bytes > max {
            let error = GenerateError::TooLarge { bytes, max };
            return EncodeFuture {
                state: State::Refused { error },
            };
        }
        let request = EncodedRequest {
            frame,
            recipients,
            tag,
            priority,
        };
        EncodeFuture {
            state: State::Inner {
                future: self.0.call(request),
            },
        }
    }
}

impl<F, E> Future for EncodeFuture<F>
where
    F: Future<Output = Result<SendMessageResponse, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => future.poll(cx),
            StateProj::Refused { error } => Poll::Ready(Ok(SendFailure::from(*error).into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{
        Destination, Header, MessageType, ProtocolVersion, RawEnvelope, SealedMessage, UnixSeconds,
    };
    use tower_test::{assert_request_eq, mock};

    use super::*;
    use crate::MessageSendStates;

    fn request(envelope: Envelope) -> SealedRequest {
        SealedRequest {
            envelope,
            recipients: vec![NodeId::default()],
            tag: MessageTag(7),
            priority: Priority::Direct,
        }
    }

    fn header() -> Header {
        Header {
            version: ProtocolVersion::V2,
            destination: Destination::Unknown,
            message_type: MessageType::None,
            flags: dht_core::Flags::NONE,
            signature: Bytes::new(),
            ephemeral_key: None,
            tag: MessageTag(7),
            expires: Some(UnixSeconds(5)),
        }
    }

    type Mock = mock::Mock<EncodedRequest, SendMessageResponse>;

    fn spawn() -> (
        mock::Spawn<Encode<Mock>>,
        mock::Handle<EncodedRequest, SendMessageResponse>,
    ) {
        mock::spawn_layer(EncodeLayer)
    }

    async fn encoded(envelope: Envelope) -> EncodedRequest {
        let (mut service, mut inner) = spawn();
        inner.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
        let call = service.call(request(envelope));
        let (sent, send) = inner.next_request().await.unwrap();
        send.send_response(SendMessageResponse::Queued(MessageSendStates::default()));
        call.await.unwrap();
        sent
    }

    #[tokio::test]
    async fn b091_a_body_of_one_byte_survives() {
        let body = Bytes::from_static(b"A");
        let sealed = SealedMessage {
            header: header(),
            body: body.clone(),
            binding_hash: None,
        };
        let sent = encoded(Envelope::Sealed(Box::new(sealed))).await;
        assert_eq!(sent.recipients, [NodeId::default()]);
        let received = RawEnvelope::parse(sent.frame).unwrap();
        assert!(received.is_canonical());
        assert_eq!(*received.body(), body);
        assert_eq!(*received.into_sealed().unwrap().header(), header());
    }

    #[tokio::test]
    async fn a_received_frame_is_not_touched() {
        let frame = Bytes::from_static(b"anything at all");
        let sent = encoded(Envelope::Frame(frame.clone())).await;
        assert_eq!(sent.frame.as_ptr(), frame.as_ptr());
        assert_eq!(sent.frame, frame);
    }

    #[tokio::test]
    async fn a_frame_too_long_for_the_protocol_is_refused() {
        let (mut service, mut inner) = spawn();
        inner.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
        let frame = Bytes::from(vec![0; MAX_MESSAGING_FRAME_BYTES + 1]);
        let response = service.call(request(Envelope::Frame(frame))).await.unwrap();
        assert!(matches!(
            response,
            SendMessageResponse::Failed(SendFailure::FailedToGenerateMessages(
                GenerateError::TooLarge { .. }
            ))
        ));
    }

    #[tokio::test]
    async fn no_room_inside_is_felt_outside() {
        let (mut service, mut inner) = spawn();
        inner.allow(0);
        tokio_test::assert_pending!(service.poll_ready());
        inner.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
        let frame = Bytes::from_static(b"f");
        let call = service.call(request(Envelope::Frame(frame.clone())));
        let expected = EncodedRequest {
            frame,
            recipients: vec![NodeId::default()],
            tag: MessageTag(7),
            priority: Priority::Direct,
        };
        assert_request_eq!(inner, expected)
            .send_response(SendMessageResponse::Queued(MessageSendStates::default()));
        call.await.unwrap();
    }
}
