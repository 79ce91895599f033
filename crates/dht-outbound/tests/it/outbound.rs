//! Admission, worker and discovery together: specification 04, sections 7, 8 and 11.1.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Deliverer, MessageTag, MessageType, NodeId, Payload, Priority, SendBuilder, SendParams,
    SendQueue, SendQueueError, SendRequest, Strategy,
    test_util::{identity, public_key},
};
use dht_outbound::{Config, Deliveries, DeliveryReply, Discover, Outbound, SendError, Worker};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{BoxError, ServiceExt, service_fn};

use crate::support::{Node, message};

fn id(seed: u64) -> NodeId {
    *identity(seed).node_id()
}

fn forward(frame: impl Into<Bytes>) -> SendRequest {
    let deliverer = Deliverer::from_bytes([7; 32]);
    SendRequest::forward(frame.into(), Strategy::default(), MessageTag(1), deliverer)
}

fn part(kind: MessageType, part: impl Into<Bytes>) -> SendRequest {
    let params = SendParams::builder().with_dht_message_type(kind);
    SendRequest::new(params.finish(), Payload::Part(part.into()))
}

/// A request of each priority, the least important first, as the parts of a node make them.
fn by_priority(bytes: &Bytes) -> [SendRequest; 4] {
    let answer = SendParams::builder()
        .with_dht_message_type(MessageType::SafStoredMessages)
        .with_priority(Priority::Stored);
    [
        forward(bytes.clone()),
        SendRequest::new(answer.finish(), Payload::Part(bytes.clone())),
        part(MessageType::None, bytes.clone()),
        part(MessageType::DiscoveryResponse, bytes.clone()),
    ]
}

fn one() -> Deliveries {
    let (reply, delivery) = DeliveryReply::pair(MessageTag(1), NodeId::default());
    reply.send(Ok(()));
    delivery.into()
}

/// A door to a pipeline that lets as many requests pass as there are permits, and notes them.
fn gated(
    config: &Config,
) -> (
    Outbound,
    Worker,
    Arc<Semaphore>,
    Arc<Mutex<Vec<SendRequest>>>,
) {
    let (gate, passed) = (Arc::new(Semaphore::new(0)), Arc::default());
    let (permits, seen) = (Arc::clone(&gate), Arc::clone(&passed));
    let pipeline = service_fn(move |request: SendRequest| {
        let (permits, seen): (_, Arc<Mutex<Vec<_>>>) = (Arc::clone(&permits), Arc::clone(&seen));
        async move {
            permits.acquire().await?.forget();
            seen.lock().push(request);
            Ok::<_, BoxError>(one())
        }
    });
    let (outbound, worker) = Outbound::new(config, pipeline);
    (outbound, worker, gate, passed)
}

fn to(seed: u64) -> SendRequest {
    message(
        SendParams::builder()
            .direct_public_key(public_key(seed))
            .finish(),
    )
}

fn searching(seed: u64) -> SendRequest {
    let params: SendBuilder = SendParams::builder().direct_public_key(public_key(seed));
    message(params.with_discovery(true).finish())
}

#[tokio::test]
async fn a_full_queue_sheds_in_order() {
    let config = Config {
        max_requests: 16,
        ..Config::default()
    };
    let (outbound, worker, ..) = gated(&config);
    let mut taken = Vec::new();
    let mut all = 0;
    for request in by_priority(&Bytes::from_static(b"frame")) {
        while outbound.try_send(request.clone()).is_ok() {
            all += 1;
        }
        assert_eq!(outbound.try_send(request), Err(SendQueueError::Full));
        taken.push(all);
    }
    assert_eq!(taken, [8, 12, 14, 16]);
    drop(worker);
    assert_eq!(
        outbound.try_send(forward("frame")),
        Err(SendQueueError::Closed)
    );
    assert_eq!(
        outbound.send(forward("frame")).await.err(),
        Some(SendError::Closed)
    );
}

#[tokio::test]
async fn waiting_requests_are_bounded_in_bytes() {
    let (outbound, worker, gate, _) = gated(&Config::default());
    let large = Bytes::from(vec![7; 8 << 20]);
    // Gossip may have half.
    let sent = (0..64).filter(|_| outbound.try_send(forward(large.clone())).is_ok());
    assert_eq!(sent.count(), 2);
    let control = |kind| part(kind, large.clone());
    assert!(
        outbound
            .try_send(control(MessageType::DiscoveryResponse))
            .is_ok()
    );
    assert!(outbound.try_send(control(MessageType::Join)).is_ok());
    let request = control(MessageType::SafRequestMessages);
    assert_eq!(
        outbound.try_send(request.clone()),
        Err(SendQueueError::Full)
    );
    // A caller that can wait, waits until one has left.
    let mut waiting = task::spawn(outbound.send(request));
    assert_pending!(waiting.poll());
    let mut running = task::spawn(worker.run());
    assert_pending!(running.poll());
    assert_pending!(waiting.poll());
    gate.add_permits(1);
    assert_pending!(running.poll());
    assert!(waiting.is_woken());
    gate.add_permits(1);
    assert_pending!(running.poll());
    gate.add_permits(8);
    assert_eq!(assert_ready!(waiting.poll()).unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_waits_for_a_dropped_worker() {
    let config = Config {
        max_requests: 1,
        ..Config::default()
    };
    let (outbound, worker, ..) = gated(&config);
    outbound.try_send(part(MessageType::Join, "x")).unwrap();
    let mut waiting = task::spawn(outbound.send(part(MessageType::Join, "x")));
    assert_pending!(waiting.poll());
    drop(worker);
    assert_eq!(assert_ready!(waiting.poll()).err(), Some(SendError::Closed));
}

#[tokio::test]
async fn waiting_direct_sends_let_control_pass() {
    let (outbound, worker, gate, passed) = gated(&Config::default());
    let running = tokio::spawn(worker.run());
    let mut callers: Vec<_> = (0..2_000)
        .map(|_| task::spawn(outbound.send(to(1))))
        .collect();
    for caller in &mut callers {
        assert_pending!(caller.poll());
    }
    // The application's share is taken, and many wait for it.
    assert_eq!(outbound.try_send(to(1)), Err(SendQueueError::Full));
    outbound
        .try_send(part(MessageType::DiscoveryResponse, "answer"))
        .unwrap();
    // Gossip gives way first.
    assert_eq!(
        outbound.try_send(forward("frame")),
        Err(SendQueueError::Full)
    );
    gate.add_permits(1_000_000);
    for caller in callers {
        caller.await.unwrap();
    }
    drop(outbound);
    running.await.unwrap();
    assert_eq!(passed.lock().len(), 2_001);
}

#[tokio::test]
async fn gossip_leaves_room_for_applications() {
    let (outbound, _worker, gate, _) = gated(&Config::default());
    while outbound.try_send(forward("frame")).is_ok() {}
    gate.add_permits(1);
    assert_eq!(outbound.send(to(1)).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sends_all_end() {
    let (outbound, worker, gate, passed) = gated(&Config::default());
    let running = tokio::spawn(worker.run());
    let callers: Vec<_> = (0..10_000)
        .map(|_| tokio::spawn(outbound.clone().oneshot(to(1))))
        .collect();
    outbound
        .try_send(part(MessageType::DiscoveryResponse, "answer"))
        .unwrap();
    gate.add_permits(1_000_000);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().len(), 1);
    }
    drop(outbound);
    running.await.unwrap();
    assert_eq!(passed.lock().len(), 10_001);
}

#[tokio::test]
async fn too_many_waiting_callers_are_told() {
    let config = Config {
        max_requests: 1,
        max_waiting: 1,
        ..Config::default()
    };
    let (outbound, _worker, ..) = gated(&config);
    outbound.try_send(part(MessageType::Join, "x")).unwrap();
    let mut waiting = task::spawn(outbound.send(part(MessageType::Join, "x")));
    assert_pending!(waiting.poll());
    let told = outbound.send(part(MessageType::Join, "x")).await;
    assert_eq!(told.err(), Some(SendError::Full));
}

#[tokio::test]
async fn worker_takes_most_important_first() {
    let (outbound, worker, gate, passed) = gated(&Config::default());
    for request in by_priority(&Bytes::from_static(b"x")) {
        outbound.try_send(request).unwrap();
    }
    gate.add_permits(4);
    drop(outbound);
    worker.run().await;
    let order: Vec<_> = passed.lock().iter().map(SendRequest::priority).collect();
    assert_eq!(order, Priority::ALL);
}

#[tokio::test]
async fn a_delivery_is_reported_once() {
    let node = Node::new().connected([1]);
    let (outbound, worker) = node.outbound();
    let running = tokio::spawn(worker.run());
    let reports = Arc::new(Mutex::new(Vec::new()));
    let report = || {
        let reports = Arc::clone(&reports);
        Box::new(move |left| reports.lock().push(left))
    };
    outbound.try_send_reporting(to(1), report()).unwrap();
    outbound.try_send_reporting(to(9), report()).unwrap();
    while node.sent.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    node.sent.lock().pop().unwrap().reply.send(Ok(()));
    // Dropped without a word.
    outbound.try_send_reporting(to(1), report()).unwrap();
    while node.sent.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    node.sent.lock().clear();
    drop(outbound);
    running.await.unwrap();
    let mut reports = reports.lock().clone();
    reports.sort_unstable();
    assert_eq!(reports, [false, false, true]);
}

/// Answers to peers that do not read must not keep this node from asking for its own messages.
#[tokio::test]
async fn stored_answers_leave_reports_for_requests() {
    let config = Config {
        max_reports: 8,
        ..Config::default()
    };
    let (outbound, _worker, ..) = gated(&config);
    let report = |request| outbound.try_send_reporting(request, Box::new(|_| {}));
    let [_, answer, ..] = by_priority(&Bytes::from_static(b"x"));
    let answers = (0..8).map_while(|_| report(answer.clone()).ok()).count();
    assert_eq!(answers, 6);
    assert_eq!(report(answer), Err(SendQueueError::Full));
    let ask = part(MessageType::SafRequestMessages, "x");
    report(ask.clone()).unwrap();
    report(ask.clone()).unwrap();
    assert_eq!(report(ask), Err(SendQueueError::Full));
}

/// Peers that ask and do not read hold places and reports; the answers of each are an eighth at most.
#[tokio::test]
async fn answers_leave_room_for_others() {
    let config = Config {
        max_requests: 256,
        max_reports: 128,
        ..Config::default()
    };
    let (outbound, _worker, ..) = gated(&config);
    let answer = |kind, requester| {
        let params = SendParams::builder()
            .with_dht_message_type(kind)
            .requester(Deliverer::from_bytes([requester; 32]));
        SendRequest::new(params.finish(), Payload::Part("x".into()))
    };
    let count =
        |send: &dyn Fn() -> Result<(), SendQueueError>| (0..256).map_while(|_| send().ok()).count();
    // A quarter of the places is for discovery responses, of the reports three quarters for stored messages.
    let found = |asker| outbound.try_send(answer(MessageType::DiscoveryResponse, asker));
    assert_eq!(count(&|| found(1)), 8);
    assert_eq!(count(&|| found(2)), 8);
    let page = |asker| {
        let answer = answer(MessageType::SafStoredMessages, asker);
        outbound.try_send_reporting(answer, Box::new(|_| {}))
    };
    assert_eq!(count(&|| page(1)), 12);
    assert_eq!(count(&|| page(2)), 12);
    assert!(outbound.try_send(part(MessageType::Join, "x")).is_ok());
}

#[tokio::test]
async fn worker_ends_with_last_handle() {
    let node = Node::new().connected([1, 2]);
    let (outbound, worker) = node.outbound();
    let running = tokio::spawn(worker.run());
    let direct = SendParams::builder().direct_node_id(id(1)).finish();
    let copies = outbound.send(message(direct)).await.unwrap();
    assert_eq!(copies.get(0).unwrap().recipient(), id(1));
    let broadcast = message(SendParams::builder().broadcast(vec![]).finish());
    assert_eq!(outbound.send(broadcast).await.unwrap().len(), 2);
    assert_eq!(
        outbound.send(to(9)).await.err(),
        Some(SendError::NobodySelected)
    );
    assert_eq!(
        outbound.send(to(0)).await.err(),
        Some(SendError::ToOurselves)
    );
    outbound.try_send(message(SendParams::default())).unwrap();
    drop(outbound);
    running.await.unwrap();
    assert_eq!(node.frames().len(), 1 + 2 + 2);
}

#[tokio::test]
async fn a_search_holds_no_room() {
    let node = Arc::new(Node {
        config: Config {
            max_requests: 1,
            ..Config::default()
        },
        ..Node::new().connected([1])
    });
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
    let (outbound, _worker) = node.outbound();
    let finding = outbound.with_discovery(Arc::new(discover));
    let mut first = task::spawn(finding.send(searching(5)));
    assert_pending!(first.poll());
    // The one place is free.
    assert_eq!(outbound.send(to(1)).await.unwrap().len(), 1);
    found.notify_one();
    assert_eq!(first.await.unwrap().len(), 1);
    let to: Vec<_> = node.sent.lock().iter().map(|message| message.to).collect();
    assert_eq!(to, [id(1), id(5)]);
}

/// A door of a node that knows 5 once it has been searched for, and how often that was.
async fn search(discover: impl Discover, request: SendRequest) -> Result<Deliveries, SendError> {
    let node = Node::new().connected([1]);
    let (outbound, _worker) = node.outbound();
    let finding = outbound.with_discovery(Arc::new(discover));
    finding.send(request).await
}

fn never(_key: dht_core::PublicKey) -> std::future::Ready<Result<(), BoxError>> {
    unreachable!("nothing is to be searched")
}

#[tokio::test]
async fn b087_without_discovery_nobody_is_searched() {
    assert_eq!(
        search(never, to(5)).await.err(),
        Some(SendError::NobodySelected)
    );
}

#[tokio::test]
async fn only_direct_messages_to_key_search() {
    let params = SendParams::builder()
        .direct_node_id(id(5))
        .with_discovery(true);
    let sent = search(never, message(params.finish())).await;
    assert_eq!(sent.err(), Some(SendError::NobodySelected));
}

#[tokio::test]
async fn a_known_recipient_is_not_searched() {
    assert_eq!(search(never, searching(1)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_failed_search_is_an_error() {
    let fails = |_key| async { Err(BoxError::from("nobody answers")) };
    assert_eq!(
        search(fails, searching(5)).await.err(),
        Some(SendError::NotFound)
    );
    // Found, but not usable.
    let gone = |_key| async { Ok(()) };
    assert_eq!(
        search(gone, searching(5)).await.err(),
        Some(SendError::NotFound)
    );
}

#[tokio::test(start_paused = true)]
async fn f6_one_deadline_ends_a_search() {
    let before = tokio::time::Instant::now();
    let hangs = |_key| std::future::pending::<Result<(), BoxError>>();
    assert_eq!(
        search(hangs, searching(5)).await.err(),
        Some(SendError::NotFound)
    );
    assert_eq!(before.elapsed(), Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn searches_are_bounded_in_number() {
    let mut node = Node::new().connected([1]);
    node.config.max_searching = 1;
    let (outbound, _worker) = node.outbound();
    let hangs = |_key| std::future::pending::<Result<(), BoxError>>();
    let finding = outbound.with_discovery(Arc::new(hangs));
    let mut first = task::spawn(finding.send(searching(5)));
    assert_pending!(first.poll());
    assert_eq!(
        finding.send(searching(6)).await.err(),
        Some(SendError::Full)
    );
    drop(first);
    let mut next = task::spawn(finding.send(searching(6)));
    assert_pending!(next.poll());
}

#[tokio::test(start_paused = true)]
async fn pipeline_that_hangs_is_given_up() {
    let (outbound, _worker, ..) = gated(&Config::default());
    let before = tokio::time::Instant::now();
    assert_eq!(outbound.send(to(1)).await.err(), Some(SendError::TimedOut));
    assert_eq!(before.elapsed(), Duration::from_secs(10));
}

#[tokio::test]
async fn pipeline_that_fails_is_error() {
    let pipeline = service_fn(|_: SendRequest| async { Err(BoxError::from("out of order")) });
    let (outbound, _worker) = Outbound::new(&Config::default(), pipeline);
    assert_eq!(
        outbound.send(to(1)).await.err(),
        Some(SendError::PipelineFailed)
    );
}

#[tokio::test]
async fn a_dropped_worker_drops_its_requests() {
    let (outbound, worker, ..) = gated(&Config::default());
    let running = tokio::spawn(worker.run());
    let (done, reported) = tokio::sync::oneshot::channel();
    let done = Box::new(move |left| {
        let _ = done.send(left);
    });
    outbound.try_send_reporting(to(1), done).unwrap();
    tokio::task::yield_now().await;
    running.abort();
    assert!(reported.await.is_err(), "dropped uncalled");
    assert_eq!(outbound.try_send(to(1)), Err(SendQueueError::Closed));
}
