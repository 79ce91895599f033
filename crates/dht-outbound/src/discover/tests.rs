use dht_core::MessageTag;
use dht_core::{NodeId, test_util::public_key};
use parking_lot::Mutex;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{DeliveryReply, DomainMessage, MessageSendStates, Payload, SendParams};

const TIMEOUT: Duration = Duration::from_secs(120);

fn one() -> SendMessageResponse {
    let (_reply, state) = DeliveryReply::pair(MessageTag(1), NodeId::default());
    SendMessageResponse::Queued(state.into())
}

fn nobody() -> SendMessageResponse {
    SendMessageResponse::Queued(MessageSendStates::default())
}

fn request(discovery: bool) -> SendRequest {
    let params = SendParams::builder()
        .direct_public_key(public_key(2))
        .with_discovery(discovery);
    SendRequest::new(
        params.finish(),
        Payload::Domain(DomainMessage::new(1, "hi")),
    )
}

/// A pipeline that knows the recipient from the second request on, behind a discovery.
async fn send(
    discover: impl Discover,
    request: SendRequest,
) -> (SendMessageResponse, Arc<Mutex<u32>>) {
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    let pipeline = service_fn(move |_request: SendRequest| {
        let mut calls = count.lock();
        *calls += 1;
        let response = if *calls == 1 { nobody() } else { one() };
        async { Ok::<_, BoxError>(response) }
    });
    let layer = DiscoverLayer::new(Arc::new(discover), TIMEOUT);
    (layer.layer(pipeline).oneshot(request).await.unwrap(), calls)
}

#[tokio::test]
async fn the_message_waits_for_room_again_after_the_search() {
    use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
    use tower_test::mock;

    let layer = DiscoverLayer::new(Arc::new(|_key| async { Ok(()) }), TIMEOUT);
    let (mut service, mut inner) = mock::spawn_layer::<SendRequest, SendMessageResponse, _>(layer);
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request(true)));
    assert_pending!(call.poll());
    let (_, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    send.send_response(nobody());
    let response = assert_ready_ok!(call.poll());
    let mut resolving = task::spawn(response.resolve());
    assert_pending!(resolving.poll());
    assert_pending!(task::spawn(inner.next_request()).poll());
    inner.allow(1);
    assert!(resolving.is_woken());
    assert_pending!(resolving.poll());
    let (_, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    send.send_response(one());
    assert_eq!(assert_ready_ok!(resolving.poll()).len(), 1);
}

#[tokio::test]
async fn a_found_recipient_is_sent_to() {
    let sought = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sought);
    let discover = move |key| {
        seen.lock().push(key);
        async { Ok(()) }
    };
    let (response, calls) = send(discover, request(true)).await;
    assert!(response.is_pending());
    assert_eq!(
        *calls.lock(),
        1,
        "nothing is searched before the answer is polled"
    );
    assert_eq!(response.resolve().await.unwrap().len(), 1);
    assert_eq!(*sought.lock(), [public_key(2)]);
    assert_eq!(*calls.lock(), 2);
}

#[tokio::test]
async fn b087_without_discovery_nobody_is_queued() {
    let never = |_key| async { unreachable!("discovery is off") };
    let (response, calls) = send(never, request(false)).await;
    assert!(matches!(&response, SendMessageResponse::Queued(states) if states.is_empty()));
    assert_eq!(*calls.lock(), 1);
}

#[tokio::test]
async fn only_direct_messages_to_a_key_search() {
    let never = |_key| async { unreachable!("not a direct message to a key") };
    let params = SendParams::builder()
        .direct_node_id(NodeId::default())
        .with_discovery(true);
    let request = SendRequest::new(params.finish(), Payload::Part("hi".into()));
    let (response, _) = send(never, request).await;
    assert_eq!(response.name(), "nobody");
}

#[tokio::test]
async fn a_search_that_fails_is_a_failure() {
    let (response, calls) =
        send(|_key| async { Err("nobody answers".into()) }, request(true)).await;
    assert!(matches!(
        response.resolve().await,
        Err(SendFailure::DiscoveryFailed)
    ));
    assert_eq!(*calls.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn f6_one_deadline_ends_a_search_as_failed() {
    let (response, _) = send(|_key| std::future::pending(), request(true)).await;
    let before = tokio::time::Instant::now();
    assert!(matches!(
        response.resolve().await,
        Err(SendFailure::DiscoveryFailed)
    ));
    assert_eq!(before.elapsed(), TIMEOUT);
}

#[tokio::test]
async fn a_found_peer_that_cannot_be_used_is_a_failure() {
    let pipeline = service_fn(|_request: SendRequest| async { Ok::<_, BoxError>(nobody()) });
    let layer = DiscoverLayer::new(Arc::new(|_key| async { Ok(()) }), TIMEOUT);
    let response = layer.layer(pipeline).oneshot(request(true)).await.unwrap();
    assert!(matches!(
        response.resolve().await,
        Err(SendFailure::DiscoveryFailed)
    ));
}
