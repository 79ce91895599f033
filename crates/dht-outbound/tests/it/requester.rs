//! Queue, driver and discovery together: specification 04, sections 7, 8 and 11.1.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Destination, DomainMessage, Encryption, MessageTag, NodeId, Payload, Priority, SendParams,
    SendRequest, Strategy,
    test_util::{identity, public_key},
};
use dht_outbound::{
    Driver, DriverLimits, OutboundError, Requester, SendFailure, SendMessageResponse, Submission,
};
use dht_stack::BoxError;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_test::task;

use crate::support::{Node, Pipeline, message};

fn hello() -> DomainMessage {
    DomainMessage::new(1, "hello")
}

fn drive(pipeline: impl Pipeline, limits: DriverLimits) -> (Requester, JoinHandle<()>) {
    let (sender, queue) = mpsc::channel(20);
    (
        Requester::new(sender),
        tokio::spawn(Driver::new(queue, pipeline, limits).run()),
    )
}

fn id(seed: u64) -> NodeId {
    *identity(seed).node_id()
}

#[tokio::test]
async fn requests_carry_what_the_table_says() {
    let (sender, mut queue) = mpsc::channel(20);
    let requester = Requester::new(sender);
    let (to, exclude) = (public_key(1), vec![id(2)]);
    let (destination, encryption) = (Destination::PublicKey(to), Encryption::EncryptFor(to));

    macro_rules! sent {
        ($call:expr) => {{
            let (result, params) = tokio::join!($call, async {
                let Submission { request, reply, .. } = queue.recv().await.unwrap();
                let nobody = SendMessageResponse::Queued(Default::default());
                reply.unwrap().send(nobody).unwrap();
                let SendRequest::Message { params, payload } = request else {
                    panic!("a message")
                };
                assert_eq!(payload, Payload::Domain(hello()));
                params
            });
            (result, params)
        }};
    }

    let (result, params) = sent!(requester.send_direct_encrypted(to, hello(), encryption, "note"));
    assert!(matches!(result, Err(OutboundError::NoMessagesQueued)));
    assert_eq!(params.strategy, Strategy::DirectPublicKey(to));
    assert_eq!(
        (params.destination, params.encryption),
        (destination, encryption)
    );
    assert!(params.discovery);
    assert_eq!(params.debug_info.as_deref(), Some("note"));

    let (result, params) = sent!(requester.send_direct_unencrypted(to, hello(), "note"));
    assert!(
        matches!(result, Ok(SendMessageResponse::Queued(_))),
        "the first answer"
    );
    assert_eq!(params.strategy, Strategy::DirectPublicKey(to));
    assert_eq!(
        (params.destination, params.encryption),
        (Destination::Unknown, Encryption::Clear)
    );
    assert!(params.discovery);

    let (result, params) = sent!(requester.send_direct_node_id(id(1), hello(), "note"));
    assert!(matches!(result, Err(OutboundError::NoMessagesQueued)));
    assert_eq!(params.strategy, Strategy::DirectNodeId(id(1)));
    assert!(!params.discovery);

    let (_, params) =
        sent!(requester.propagate(destination, encryption, exclude.clone(), hello(), "note"));
    assert_eq!(
        params.strategy,
        Strategy::Propagate {
            destination,
            exclude: exclude.clone()
        }
    );
    assert_eq!(
        (params.destination, params.encryption),
        (destination, encryption)
    );

    let (_, params) =
        sent!(requester.broadcast(destination, encryption, exclude.clone(), hello(), "note"));
    assert_eq!(
        params.strategy,
        Strategy::Broadcast {
            exclude: exclude.clone()
        }
    );
    assert_eq!(
        (params.destination, params.encryption),
        (destination, encryption)
    );

    let (_, params) = sent!(requester.closest_broadcast(to, encryption, exclude.clone(), hello()));
    let closest = Strategy::ClosestNodes {
        target: id(1),
        exclude: exclude.clone(),
        connected_only: false,
    };
    assert_eq!(
        (params.strategy, params.destination),
        (closest, destination)
    );

    let (_, params) =
        sent!(requester.flood(destination, encryption, exclude.clone(), hello(), "note"));
    assert_eq!(params.strategy, Strategy::Flood { exclude });
    assert_eq!(params.destination, destination);

    let (_, params) = sent!(requester.send_random(4, destination, encryption, hello()));
    assert_eq!(
        params.strategy,
        Strategy::Random {
            n: 4,
            exclude: vec![]
        }
    );
    assert!(!params.discovery);
}

#[tokio::test]
async fn raw_and_headerless_messages_are_not_wrapped() {
    let (sender, mut queue) = mpsc::channel(20);
    let requester = Requester::new(sender);
    let params = || SendParams::builder().finish();
    requester
        .send_raw_no_wait(params(), "body".into())
        .await
        .unwrap();
    requester
        .send_message_no_header_no_wait(params(), "part".into())
        .await
        .unwrap();
    let mut payloads = Vec::new();
    for _ in 0..2 {
        let Submission { request, reply, .. } = queue.recv().await.unwrap();
        assert!(reply.is_none());
        let SendRequest::Message { payload, .. } = request else {
            panic!("a message")
        };
        payloads.push(payload);
    }
    assert_eq!(
        payloads,
        [Payload::Body("body".into()), Payload::Part("part".into())]
    );
}

#[tokio::test]
async fn a_closed_pipeline_and_a_dropped_reply_are_errors() {
    let (sender, mut queue) = mpsc::channel(20);
    let requester = Requester::new(sender);
    let params = || SendParams::builder().finish();
    let (result, ()) = tokio::join!(requester.send_message(params(), hello()), async {
        drop(queue.recv().await);
    });
    assert!(matches!(result, Err(OutboundError::ReplyDropped)));
    drop(queue);
    assert!(matches!(
        requester.send_message(params(), hello()).await,
        Err(OutboundError::Closed)
    ));
    let forwarded = requester.forward("frame".into(), Strategy::default(), MessageTag(1));
    assert!(matches!(forwarded, Err(OutboundError::Closed)));
}

#[tokio::test]
async fn a_full_queue_sheds_in_the_stated_order() {
    let (sender, mut queue) = mpsc::channel(16);
    let requester = Requester::new(sender);
    let request = |priority| SendRequest::Forward {
        frame: "frame".into(),
        strategy: Strategy::default(),
        tag: MessageTag(1),
        priority,
    };
    let mut taken = Vec::new();
    for priority in [
        Priority::Gossip,
        Priority::Stored,
        Priority::Direct,
        Priority::Control,
    ] {
        while requester.try_send_no_wait(request(priority)).is_ok() {}
        assert!(matches!(
            requester.try_send_no_wait(request(priority)),
            Err(OutboundError::Full)
        ));
        taken.push(queue.len());
    }
    assert_eq!(taken, [8, 12, 14, 16]);
    queue.recv().await.unwrap();
    assert!(
        requester
            .try_send_no_wait(request(Priority::Direct))
            .is_err()
    );
    assert!(
        requester
            .try_send_no_wait(request(Priority::Control))
            .is_ok()
    );
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_too() {
    let (sender, mut queue) = mpsc::channel(64);
    let requester = Requester::new(sender);
    let large = Bytes::from(vec![7; 8 << 20]);
    let forward = || requester.forward(large.clone(), Strategy::default(), MessageTag(1));
    // Gossip may have half.
    assert_eq!((0..64).filter(|_| forward().is_ok()).count(), 2);
    let direct = || SendRequest::Forward {
        frame: large.clone(),
        strategy: Strategy::default(),
        tag: MessageTag(1),
        priority: Priority::Control,
    };
    assert!(requester.try_send_no_wait(direct()).is_ok());
    assert!(requester.try_send_no_wait(direct()).is_ok());
    assert!(matches!(
        requester.try_send_no_wait(direct()),
        Err(OutboundError::Full)
    ));
    // Whoever can wait, waits, until one has left.
    let mut waiting = task::spawn(requester.send_no_wait(direct()));
    assert!(waiting.poll().is_pending());
    drop(queue.recv().await);
    assert!(waiting.is_woken());
    tokio_test::assert_ready!(waiting.poll()).unwrap();
    // Nobody waits for a queue that has gone.
    let mut waiting = task::spawn(requester.send_no_wait(direct()));
    assert!(waiting.poll().is_pending());
    drop(queue);
    let ended = tokio_test::assert_ready!(waiting.poll());
    assert!(matches!(ended, Err(OutboundError::Closed)));
}

#[tokio::test]
async fn a_driver_sends_and_ends_with_its_requesters() {
    let node = Node::new().connected([1, 2]);
    let (requester, driver) = drive(node.pipeline(), DriverLimits::default());
    let state = requester
        .send_direct_node_id(id(1), hello(), "note")
        .await
        .unwrap();
    assert_eq!(state.recipient(), id(1));
    let states = requester
        .broadcast(
            Destination::Unknown,
            Encryption::Clear,
            vec![],
            hello(),
            "note",
        )
        .await
        .unwrap();
    assert_eq!(states.len(), 2);
    let nobody = requester.send_direct_node_id(id(9), hello(), "note").await;
    assert!(matches!(nobody, Err(OutboundError::NoMessagesQueued)));
    let ourselves = requester
        .send_direct_unencrypted(*node.me.public_key(), hello(), "note")
        .await;
    assert_eq!(ourselves.unwrap().name(), "send_to_ourselves");
    requester
        .send_message_no_header_no_wait(SendParams::builder().finish(), "x".into())
        .await
        .unwrap();
    drop(requester);
    driver.await.unwrap();
    assert_eq!(node.frames().len(), 1 + 2 + 2);
}

#[tokio::test]
async fn a_search_occupies_no_place_in_the_pipeline() {
    let node = Arc::new(Node::new().connected([1]));
    let found = Arc::new(Notify::new());
    let (learn, wait) = (Arc::clone(&node), Arc::clone(&found));
    let discover = move |_key| {
        let (learn, wait) = (Arc::clone(&learn), Arc::clone(&wait));
        async move {
            wait.notified().await;
            learn.know(5);
            Ok::<(), BoxError>(())
        }
    };
    let mut parts = node.parts();
    parts.discover = Some(Arc::new(discover));
    let limits = DriverLimits {
        concurrent: 1,
        ..DriverLimits::default()
    };
    let (requester, driver) = drive(node.pipeline_of(parts), limits);

    let first = requester
        .send_direct_unencrypted(public_key(5), hello(), "search")
        .await
        .unwrap();
    assert!(first.is_pending());
    // The one place in the pipeline is free.
    requester
        .send_direct_node_id(id(1), hello(), "meanwhile")
        .await
        .unwrap();
    // Dropping the answer of another search does not end it.
    drop(
        requester
            .send_direct_unencrypted(public_key(5), hello(), "search")
            .await
            .unwrap(),
    );

    found.notify_one();
    found.notify_one();
    assert_eq!(first.resolve().await.unwrap().len(), 1);
    found.notify_one();
    drop(requester);
    driver.await.unwrap();
    let to: Vec<_> = node.sent.lock().iter().map(|message| message.to).collect();
    assert_eq!(to, [id(1), id(5), id(5)]);
}

#[tokio::test(start_paused = true)]
async fn searches_are_bounded_in_number_and_time() {
    let node = Node::new().connected([1]);
    let mut parts = node.parts();
    parts.discover = Some(Arc::new(|_key| {
        std::future::pending::<Result<(), BoxError>>()
    }));
    let limits = DriverLimits {
        parked: 1,
        ..DriverLimits::default()
    };
    let (requester, driver) = drive(node.pipeline_of(parts), limits);
    let first = requester
        .send_direct_unencrypted(public_key(5), hello(), "first")
        .await
        .unwrap();
    let second = requester
        .send_direct_unencrypted(public_key(6), hello(), "second")
        .await
        .unwrap();
    assert!(first.is_pending());
    assert_eq!(second.name(), "discovery_failed");
    let before = tokio::time::Instant::now();
    assert!(matches!(
        first.resolve().await,
        Err(SendFailure::DiscoveryFailed)
    ));
    assert_eq!(before.elapsed(), Duration::from_secs(120));
    drop(requester);
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_hangs_is_given_up_on() {
    let pipeline = tower::service_fn(|_request: SendRequest| {
        std::future::pending::<Result<SendMessageResponse, BoxError>>()
    });
    let (requester, _driver) = drive(pipeline, DriverLimits::default());
    let response = requester
        .send(message(SendParams::builder().finish()))
        .await
        .unwrap();
    assert_eq!(response.name(), "timed_out");
}

#[tokio::test]
async fn a_dropped_driver_cancels_its_searches() {
    let node = Node::new().connected([1]);
    let mut parts = node.parts();
    parts.discover = Some(Arc::new(|_key| {
        std::future::pending::<Result<(), BoxError>>()
    }));
    let (requester, driver) = drive(node.pipeline_of(parts), DriverLimits::default());
    let pending = requester
        .send_direct_unencrypted(public_key(5), hello(), "x")
        .await
        .unwrap();
    driver.abort();
    assert!(matches!(
        pending.resolve().await,
        Err(SendFailure::SenderCancelled)
    ));
}
