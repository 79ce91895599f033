//! A panic in a part that the application brings, or in a layer, costs the message on which it happened.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, DropReason, Features, MessageTag, MessageType, ProtocolVersion,
    RemotePeer, SealRequest, SealSecrets, SeededEntropy, SendQueueError, SendRequest, Signing,
    encode_envelope, encode_parts, seal, test_util,
};
use dht_core::{Encryption, Entropy as _, Payload};
use dht_inbound::{
    Acceptance, Delivered, DiscoveryAnswer, DiscoveryHook, GossipValidator, Inbound, InboundConfig,
    InboundRuntime, OpenedMessage, ValidationFuture, run_worker,
};
use dht_peers::InboundFrame;
use parking_lot::Mutex;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};

use crate::stack::{ME, PEER, identity, key};

/// The part of a node that panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Validator,
    /// Between two groups of layers.
    Layer,
    Hook,
    Application,
}

const POISON: &[u8] = b"poison";

struct Panics;

impl GossipValidator for Panics {
    fn validate(&self, message: &OpenedMessage) -> ValidationFuture {
        let parts = message.opened.parts().unwrap_or_default();
        let is_poison = parts.iter().any(|part| part.ends_with(POISON));
        Box::pin(async move {
            assert!(!is_poison, "a test");
            Acceptance::Accept
        })
    }
}

impl DiscoveryHook for Panics {
    fn on_response(&self, _: DiscoveryAnswer) -> Result<(), SendQueueError> {
        panic!("a test")
    }
}

fn frame(message_type: MessageType, body: Bytes) -> InboundFrame {
    let from = identity(PEER);
    let request = SealRequest {
        body,
        message_type,
        destination: Destination::Unknown,
        encryption: Encryption::Clear,
        sender: from.secret_key(),
        signing: Signing::Origin,
        expires: Some(test_util::NOW.saturating_add(3_600)),
        tag: MessageTag(7),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(
        request,
        SealSecrets::random(&mut SeededEntropy::new(11).rng()),
    )
    .unwrap();
    let source = RemotePeer::new(key(PEER), Features::NODE);
    InboundFrame::new(source, encode_envelope(&sealed.header, &sealed.body))
}

fn message(text: &'static [u8]) -> InboundFrame {
    frame(MessageType::None, encode_parts(&test_util::parts(text)))
}

/// A discovery response of [`PEER`].
fn response() -> InboundFrame {
    let deliverer = (&RemotePeer::new(key(ME), Features::NODE)).into();
    let request = SendRequest::discovery_response(&identity(PEER), key(ME), 1, deliverer);
    let SendRequest::Message {
        payload: Payload::Part(part),
        ..
    } = request
    else {
        panic!("a message")
    };
    frame(MessageType::DiscoveryResponse, encode_parts(&[part]))
}

/// Dispositions of the frames in a stack in which `part` panics on poison, driven by one worker.
async fn outcomes(part: Part, frames: Vec<InboundFrame>) -> Vec<Disposition> {
    let is = move |wanted| part == wanted;
    let clock = Arc::new(dht_core::ManualClock::new(test_util::NOW));
    let mut runtime = InboundRuntime::new(identity(ME), clock, Arc::new(SeededEntropy::new(3)));
    if is(Part::Validator) {
        runtime.validator = Some(Arc::new(Panics));
    }
    if is(Part::Hook) {
        runtime.discovery = Arc::new(Panics);
    }
    let application = service_fn(move |delivered: Delivered| async move {
        let is_poison = delivered.parts.iter().any(|part| part.ends_with(POISON));
        assert!(!is_poison || !is(Part::Application), "a test");
        Ok::<_, BoxError>(Disposition::Delivered)
    });
    let layer = ServiceBuilder::new().map_request(move |message: OpenedMessage| {
        let parts = message.opened.parts().unwrap_or_default();
        let is_poison = parts.iter().any(|part| part.ends_with(POISON));
        assert!(!is_poison || !is(Part::Layer), "a test");
        message
    });
    let stack = Inbound::new(InboundConfig::default(), runtime, application)
        .push_protocol()
        .push(layer)
        .push_forward()
        .push_crypto()
        .push_filters()
        .into_inner();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let service = stack.map_response({
        let ended = Arc::clone(&ended);
        move |disposition| ended.lock().push(disposition)
    });
    let (sender, frames_in) = tokio::sync::mpsc::channel(frames.len());
    for frame in frames {
        sender.try_send(frame).unwrap();
    }
    drop(sender);
    run_worker(service, Arc::new(tokio::sync::Mutex::new(frames_in)), 1).await;
    ended.lock().clone()
}

#[tokio::test]
async fn panic_costs_one_message() {
    let panicked = Disposition::Dropped(DropReason::Panicked);
    let duplicate = Disposition::Dropped(DropReason::Duplicate);
    for part in [Part::Validator, Part::Layer, Part::Application] {
        let frames = vec![message(POISON), message(POISON), message(b"sound")];
        let ended = outcomes(part, frames).await;
        assert_eq!(
            ended,
            [panicked, duplicate, Disposition::Delivered],
            "{part:?}"
        );
    }
    let ended = outcomes(Part::Hook, vec![response(), message(b"sound")]).await;
    assert_eq!(ended, [panicked, Disposition::Delivered]);
}
