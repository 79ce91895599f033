use std::sync::atomic::{AtomicUsize, Ordering};

use dht_core::{
    DedupHash, Entropy, ManualClock, SeededEntropy, Strategy,
    test_util::{NOW, identity, public_key},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower_test::mock;

use super::*;
use crate::{DomainMessage, MessageSendStates, Payload, SendFailure};

/// A pool that seals when the test lets it.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Work>>>);

type Work = (SealJob, oneshot::Sender<Answer>);

type Answer = Result<SealedMessage, GenerateError>;

impl Sealer for Pool {
    type Future = futures::future::Map<
        oneshot::Receiver<Answer>,
        fn(Result<Answer, oneshot::error::RecvError>) -> Answer,
    >;

    fn seal(&self, job: SealJob) -> Self::Future {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().push((job, sender));
        futures::FutureExt::map(receiver, |answer| {
            answer.unwrap_or(Err(GenerateError::Cancelled))
        })
    }
}

impl Pool {
    fn work(&self) {
        for (job, answer) in self.0.lock().drain(..) {
            answer.send(job.run()).unwrap();
        }
    }
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl SeedDedup for Count {
    fn seed(&self, _: DedupHash, _: Option<UnixSeconds>, _: bool) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Mock = mock::Mock<SealedRequest, SendMessageResponse>;
type Handle = mock::Handle<SealedRequest, SendMessageResponse>;

fn spawn(pool: &Pool, count: &Count) -> (mock::Spawn<Seal<Pool, Count, Mock>>, Handle) {
    let clock = Arc::new(ManualClock::new(NOW));
    let config = OutboundConfig::default();
    let identity = Arc::new(identity(0));
    mock::spawn_layer(SealLayer::new(
        identity,
        clock,
        &config,
        pool.clone(),
        count.clone(),
    ))
}

fn selected(params: SendParams) -> Selected {
    Selected {
        request: SendRequest::new(params, Payload::Domain(DomainMessage::new(1, "hi"))),
        recipients: vec![NodeId::default()],
        is_broadcast: true,
        tag: MessageTag(7),
        rng: SeededEntropy::new(1).rng(),
    }
}

fn signed() -> SendParams {
    SendParams::builder().force_origin().finish()
}

fn queued() -> SendMessageResponse {
    SendMessageResponse::Queued(MessageSendStates::default())
}

#[tokio::test]
async fn a_message_sealed_elsewhere_goes_to_the_service_that_was_ready() {
    let (pool, count) = (Pool::default(), Count::default());
    let (mut service, mut inner) = spawn(&pool, &count);
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(selected(signed())));
    assert_pending!(call.poll());
    assert_eq!(
        count.0.load(Ordering::SeqCst),
        0,
        "nothing is remembered before it is sealed"
    );

    pool.work();
    assert!(call.is_woken());
    // The mock panics at a call of a service that was not readied.
    assert_pending!(call.poll());
    let (request, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
    assert_eq!(request.tag, MessageTag(7));
    assert!(
        matches!(&request.envelope, Envelope::Sealed(sealed) if !sealed.header.signature.is_empty())
    );
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    send.send_response(queued());
    assert_ready_ok!(call.poll());
}

#[tokio::test]
async fn a_pool_that_goes_away_refuses_the_message() {
    let (pool, count) = (Pool::default(), Count::default());
    let (mut service, mut inner) = spawn(&pool, &count);
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(selected(signed())));
    assert_pending!(call.poll());
    pool.0.lock().clear();
    let response = assert_ready_ok!(call.poll());
    assert!(matches!(
        response,
        SendMessageResponse::Failed(SendFailure::FailedToGenerateMessages(
            GenerateError::Cancelled
        ))
    ));
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_costs_nothing_does_not_visit_the_pool() {
    let (pool, count) = (Pool::default(), Count::default());
    let (mut service, mut inner) = spawn(&pool, &count);
    inner.allow(2);
    let clear = selected(SendParams::builder().finish());
    let forward = Selected {
        request: SendRequest::forward("frame".into(), Strategy::default(), MessageTag(7)),
        ..selected(signed())
    };
    for (request, seeds) in [(clear, 1), (forward, 1)] {
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request));
        assert_pending!(call.poll());
        let (_, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
        send.send_response(queued());
        assert_ready_ok!(call.poll());
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            seeds,
            "a forwarded frame is not remembered"
        );
    }
    assert!(pool.0.lock().is_empty());
}

#[tokio::test]
async fn what_cannot_be_sealed_goes_no_further() {
    let (pool, count) = (Pool::default(), Count::default());
    let (mut service, mut inner) = spawn(&pool, &count);
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let to_nobody = SendParams::builder().with_encryption(Encryption::EncryptFor(public_key(1)));
    let mut call = task::spawn(service.call(selected(to_nobody.finish())));
    assert_pending!(call.poll());
    pool.work();
    let response = assert_ready_ok!(call.poll());
    assert_eq!(response.name(), "not_generated");
    assert_pending!(task::spawn(inner.next_request()).poll());
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
}
