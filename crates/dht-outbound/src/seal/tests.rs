use dht_core::{
    Entropy, ManualClock, Message, SeededEntropy, Strategy,
    test_util::{NOW, identity, public_key},
};
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower_test::mock;

use super::*;

type Mock = mock::Mock<SealedRequest, Deliveries>;
type Handle = mock::Handle<SealedRequest, Deliveries>;

fn spawn(dedup: &DedupTable) -> (mock::Spawn<Seal<Mock>>, Handle) {
    let clock = Arc::new(ManualClock::new(NOW));
    let identity = Arc::new(identity(0));
    mock::spawn_layer(SealLayer::new(
        identity,
        clock,
        Config::default(),
        dedup.clone(),
    ))
}

fn table() -> DedupTable {
    DedupTable::new(1_000, [1; 16])
}

fn selected(params: SendParams) -> Selected {
    Selected {
        request: SendRequest::new(params, Payload::Domain(Message::new(1, "hi"))),
        recipients: vec![NodeId::default()],
        is_broadcast: true,
        tag: MessageTag(7),
        rng: SeededEntropy::new(1).rng(),
    }
}

fn forward(frame: Bytes) -> Selected {
    Selected {
        request: SendRequest::sealed(frame, Strategy::default(), MessageTag(7)),
        ..selected(SendParams::default())
    }
}

#[tokio::test]
async fn sealed_message_is_remembered_and_encoded() {
    let dedup = table();
    let (mut service, mut inner) = spawn(&dedup);
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let signed = SendParams::builder().force_origin().finish();
    let mut call = task::spawn(service.call(selected(signed)));
    assert_pending!(call.poll());
    let (request, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    assert_eq!(request.tag, MessageTag(7));
    let raw = dht_core::RawEnvelope::parse(request.frame).unwrap();
    assert!(raw.is_canonical());
    let sealed = raw.into_sealed().unwrap();
    assert!(!sealed.header().signature.is_empty());
    let hash = dht_core::dedup_key_of(sealed.header(), sealed.body()).unwrap();
    assert_eq!(request.hash, Some(hash));
    assert_eq!((dedup.len(), dedup.count(&hash)), (1, 1));
    send.send_response(Deliveries::default());
    assert_ready_ok!(call.poll());
}

#[tokio::test]
async fn a_received_frame_is_not_touched() {
    let dedup = table();
    let (mut service, mut inner) = spawn(&dedup);
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let frame = Bytes::from_static(b"anything at all");
    let mut call = task::spawn(service.call(forward(frame.clone())));
    assert_pending!(call.poll());
    let (request, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    assert_eq!(request.frame.as_ptr(), frame.as_ptr());
    assert_eq!((request.frame, request.hash), (frame, None));
    send.send_response(Deliveries::default());
    assert_ready_ok!(call.poll());
    assert!(dedup.is_empty(), "a forwarded frame is not remembered");
}

#[tokio::test]
async fn b091_a_body_of_one_byte_survives() {
    let (mut service, mut inner) = spawn(&table());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let header = dht_core::Header {
        version: dht_core::ProtocolVersion::V2,
        destination: dht_core::Destination::Unknown,
        message_type: dht_core::MessageType::None,
        flags: Flags::NONE,
        signature: Bytes::new(),
        ephemeral_key: None,
        tag: MessageTag(7),
        expires: Some(UnixSeconds(5)),
    };
    let body = Bytes::from_static(b"A");
    let params = SendParams::builder().with_dht_header(header.clone());
    let mut request = selected(params.finish());
    if let SendRequest::Message { payload, .. } = &mut request.request {
        *payload = Payload::Body(body.clone());
    }
    let mut call = task::spawn(service.call(request));
    assert_pending!(call.poll());
    let (sent, _send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    assert_eq!(sent.recipients, [NodeId::default()]);
    let received = dht_core::RawEnvelope::parse(sent.frame).unwrap();
    assert!(received.is_canonical());
    assert_eq!(*received.body(), body);
    assert_eq!(*received.into_sealed().unwrap().header(), header);
}

#[tokio::test]
async fn unsendable_message_goes_no_further() {
    let dedup = table();
    let (mut service, mut inner) = spawn(&dedup);
    inner.allow(2);
    let to_nobody = SendParams::builder().with_encryption(Encryption::EncryptFor(public_key(1)));
    let too_long = forward(Bytes::from(vec![0; MAX_MESSAGING_FRAME_BYTES + 1]));
    for request in [selected(to_nobody.finish()), too_long] {
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request));
        let error = assert_ready!(call.poll()).unwrap_err();
        let error = error.downcast::<SendError>().unwrap();
        assert!(matches!(
            *error,
            SendError::Seal(_) | SendError::TooLarge { .. }
        ));
        assert_pending!(task::spawn(inner.next_request()).poll());
    }
    assert!(dedup.is_empty());
}
