//! Joins and searches: specification 06, sections 2 and 3.

use std::{sync::Arc, time::Duration};

use dht_core::{
    Claim, Destination, Encryption, Features, IdentitySignature, MessageTag, MessageType,
    NodeIdentity, Payload, Priority, PublicKey, SeededEntropy, SendParams, SendRequest, Strategy,
    test_util::{NOW, identity, public_key},
};
use dht_outbound::{
    Config, Deliveries, DeliveryReply, Outbound, SEARCH_INTERVAL, SearchCause, SearchError,
    SearchLimits, Searcher, SendError, Worker,
};
use dht_proto::dht::{DiscoveryMessage, JoinMessage};
use tokio::sync::{mpsc, mpsc::error::TryRecvError, oneshot};
use tokio_test::{assert_pending, assert_ready, task};

const SOUGHT: u64 = 1;

/// A request that reached the pipeline.
struct Submission {
    request: SendRequest,
    reply: oneshot::Sender<Result<Deliveries, SendError>>,
}

/// Requests that reached the pipeline, which waits for the answers of the test.
struct Queue {
    requests: mpsc::Receiver<Submission>,
    _worker: Worker,
}

impl Queue {
    fn try_recv(&mut self) -> Result<Submission, TryRecvError> {
        self.requests.try_recv()
    }
}

fn outbound() -> (Outbound, Queue) {
    let (sender, requests) = mpsc::channel(20);
    let pipeline = tower::service_fn(move |request| {
        let (reply, answer) = oneshot::channel();
        let sent = sender.try_send(Submission { request, reply });
        async move {
            sent.map_err(|_| SendError::Closed)?;
            let answer = answer.await.unwrap_or(Err(SendError::Closed));
            answer.map_err(tower::BoxError::from)
        }
    });
    let (outbound, _worker) = Outbound::new(&Config::default(), pipeline);
    (outbound, Queue { requests, _worker })
}

fn me() -> Arc<NodeIdentity> {
    Arc::new(identity(0))
}

fn searcher(limits: SearchLimits) -> (Searcher, Queue) {
    let (outbound, queue) = outbound();
    let entropy = Arc::new(SeededEntropy::new(7));
    (Searcher::new(outbound, me(), entropy, limits), queue)
}

/// The next request, which is told it went to one peer.
fn sent(queue: &mut Queue) -> (SendParams, Payload) {
    let Submission { request, reply } = queue.try_recv().expect("a request");
    let (delivery, state) = DeliveryReply::pair(MessageTag(1), *identity(9).node_id());
    delivery.send(Ok(()));
    reply.send(Ok(state.into())).expect("somebody waits");
    match request {
        SendRequest::Message { params, payload } => (*params, payload),
        SendRequest::Forward { .. } => panic!("a message"),
    }
}

fn discovery(payload: Payload) -> DiscoveryMessage {
    match payload {
        Payload::Part(part) => dht_proto::decode(part).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn key(seed: u64) -> PublicKey {
    public_key(seed)
}

/// That fields of a message are what this node signed.
fn assert_claim(
    addresses: &[bytes::Bytes],
    features: u32,
    signature: Option<&dht_proto::common::IdentitySignature>,
) {
    let address = |bytes: &bytes::Bytes| dht_core::Address::from_bytes(bytes).unwrap();
    let claim = Claim {
        addresses: addresses.iter().map(address).collect(),
        features: Features::from_bits(features).unwrap(),
        signature: IdentitySignature::try_from(signature.unwrap()).unwrap(),
    };
    assert!(!claim.addresses.is_empty());
    claim.verify(me().public_key(), NOW).unwrap();
}

#[tokio::test]
async fn b012_a_join_is_one_request() {
    let (outbound, mut queue) = outbound();
    let me = me();
    let mut joining = task::spawn(outbound.join(&me, 77));
    assert_pending!(joining.poll());
    let (params, payload) = sent(&mut queue);
    assert_eq!(assert_ready!(joining.poll()).unwrap().len(), 1);
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));

    assert_eq!(params.message_type, MessageType::Join);
    assert_eq!(
        params.strategy,
        Strategy::ClosestNodes {
            target: *me.node_id(),
            exclude: vec![],
            connected_only: false
        }
    );
    assert_eq!(params.destination, Destination::PublicKey(*me.public_key()));
    assert_eq!(
        (params.encryption, params.force_origin, params.discovery),
        (Encryption::Clear, true, false)
    );
    assert_eq!(params.priority(), Priority::Control);
    let Payload::Part(part) = payload else {
        panic!("no application header")
    };
    let join: JoinMessage = dht_proto::decode(part).unwrap();
    assert_eq!(join.nonce, 77);
    assert_eq!(join.public_key, me.public_key().as_bytes()[..]);
    assert_claim(
        &join.addresses,
        join.peer_features,
        join.identity_signature.as_ref(),
    );
}

#[tokio::test(start_paused = true)]
async fn b084_dp02_search_sends_one_discovery_and_ends() {
    let timeout = Duration::from_millis(1);
    let (searcher, mut queue) = searcher(SearchLimits {
        timeout,
        ..SearchLimits::default()
    });
    let started = tokio::time::Instant::now();
    let sought = key(SOUGHT);
    let mut searching = task::spawn(searcher.discover(&sought));
    assert_pending!(searching.poll());
    let (params, payload) = sent(&mut queue);
    assert!(matches!(searching.await, Err(SearchError::TimedOut)));
    assert_eq!(started.elapsed(), timeout);
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));

    assert_eq!(params.message_type, MessageType::Discovery);
    assert_eq!(params.encryption, Encryption::EncryptFor(key(SOUGHT)));
    assert_eq!(params.destination, Destination::PublicKey(key(SOUGHT)));
    assert_eq!(params.strategy, Strategy::Broadcast { exclude: vec![] });
    assert!(!params.force_origin && !params.discovery);
    let discovery = discovery(payload);
    assert_eq!(discovery.public_key, me().public_key().as_bytes()[..]);
    assert_claim(
        &discovery.addresses,
        discovery.peer_features,
        discovery.identity_signature.as_ref(),
    );
    // A late answer is still one: the question was ours.
    assert_eq!(
        searcher.take(discovery.nonce).unwrap().sought(),
        &key(SOUGHT)
    );
}

#[tokio::test]
async fn b085_dp01_the_own_key_is_refused() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    assert!(matches!(
        searcher.discover(me().public_key()).await,
        Err(SearchError::CannotDiscoverThisNode)
    ));
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
    assert!(searcher.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dp03_search_without_peers_fails() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    let started = tokio::time::Instant::now();
    let sought = key(SOUGHT);
    let mut searching = task::spawn(searcher.discover(&sought));
    assert_pending!(searching.poll());
    let submission = queue.try_recv().unwrap();
    let nobody = Err(SendError::NobodySelected);
    submission.reply.send(nobody).unwrap();
    let Err(SearchError::NotSent(cause)) = searching.await else {
        panic!("not sent")
    };
    assert_eq!(cause, SendError::NobodySelected);
    assert!(started.elapsed().is_zero() && searcher.is_empty());

    drop(queue);
    let closed = searcher.discover(&sought).await;
    assert!(matches!(closed, Err(SearchError::NotSent(cause)) if cause == SendError::Closed));
    assert!(searcher.is_empty());
}

#[tokio::test]
async fn dp05_callers_for_one_key_share_discovery() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    let (sought, other) = (key(SOUGHT), key(2));
    let mut first = task::spawn(searcher.discover(&sought));
    let mut second = task::spawn(searcher.discover(&sought));
    let mut third = task::spawn(searcher.discover(&other));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    let nonce = discovery(sent(&mut queue).1).nonce;
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
    assert_pending!(third.poll());
    let other_nonce = discovery(sent(&mut queue).1).nonce;
    assert_ne!(nonce, other_nonce);
    assert_pending!(first.poll());

    assert!(searcher.take(nonce.wrapping_add(1)).is_none());
    searcher.take(nonce).unwrap().succeed();
    assert!(searcher.take(nonce).is_none(), "a nonce is used once");
    assert_ready!(first.poll()).unwrap();
    assert_ready!(second.poll()).unwrap();
    assert_pending!(third.poll());
    assert_eq!(searcher.len(), 1);
}

#[tokio::test]
async fn giving_up_leaves_others_their_answer() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    let sought = key(SOUGHT);
    let mut first = task::spawn(searcher.discover(&sought));
    assert_pending!(first.poll());
    let nonce = discovery(sent(&mut queue).1).nonce;
    assert_pending!(first.poll());
    let mut second = task::spawn(searcher.discover(&sought));
    assert_pending!(second.poll());
    drop(first);
    searcher.take(nonce).unwrap().succeed();
    assert_ready!(second.poll()).unwrap();
}

#[tokio::test]
async fn dp06_useless_answer_ends_the_search() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    let sought = key(SOUGHT);
    let mut first = task::spawn(searcher.discover(&sought));
    let mut second = task::spawn(searcher.discover(&sought));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    let nonce = discovery(sent(&mut queue).1).nonce;
    assert_pending!(first.poll());
    searcher.take(nonce).unwrap().fail(&"junk");
    for search in [&mut first, &mut second] {
        let refused = assert_ready!(search.poll());
        assert!(matches!(refused, Err(SearchError::BadAnswer(cause)) if cause == "junk"));
    }
}

#[tokio::test]
async fn the_next_caller_begins_unsent_search() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    let sought = key(SOUGHT);
    let mut first = task::spawn(searcher.discover(&sought));
    assert_pending!(first.poll());
    let mut second = task::spawn(searcher.discover(&sought));
    assert_pending!(second.poll());
    let unanswered = queue.try_recv().unwrap();
    drop(first);
    drop(unanswered);
    assert!(second.is_woken());
    assert_pending!(second.poll());
    let nonce = discovery(sent(&mut queue).1).nonce;
    assert_pending!(second.poll());
    searcher.take(nonce).unwrap().succeed();
    assert_ready!(second.poll()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_is_searched_again_later() {
    let (searcher, mut queue) = searcher(SearchLimits::default());
    let sought = key(SOUGHT);
    let ask = async || {
        let _gives_up = tokio::time::timeout(Duration::ZERO, searcher.discover(&sought)).await;
    };
    let asking = task::spawn(searcher.discover(&sought)).poll();
    assert_pending!(asking);
    // That one was dropped before it was answered for; this one is sent.
    drop(queue.try_recv().unwrap());
    let mut first = task::spawn(searcher.discover(&sought));
    assert_pending!(first.poll());
    let nonce = discovery(sent(&mut queue).1).nonce;
    assert_pending!(first.poll());
    drop(first);
    ask().await;
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
    tokio::time::advance(SEARCH_INTERVAL).await;
    let mut again = task::spawn(searcher.discover(&sought));
    assert_pending!(again.poll());
    assert_eq!(
        discovery(sent(&mut queue).1).nonce,
        nonce,
        "an answer to either will do"
    );
}

#[tokio::test(start_paused = true)]
async fn searches_are_limited_in_number() {
    let limits = SearchLimits {
        searches: 4,
        ..SearchLimits::default()
    };
    let (searcher, mut queue) = searcher(limits);
    let searcher = searcher.for_cause(SearchCause::Application);
    let keys = [1, 2, 3, 4].map(key);
    let mut searches: Vec<_> = keys[..2]
        .iter()
        .map(|key| task::spawn(searcher.discover(key)))
        .collect();
    for search in &mut searches {
        assert_pending!(search.poll());
        sent(&mut queue);
        assert_pending!(search.poll());
    }
    let refused = || async {
        matches!(
            searcher.discover(&keys[2]).await,
            Err(SearchError::TooManySearches)
        )
    };
    assert!(refused().await, "both are waited for");
    drop(searches.remove(0));
    assert!(
        refused().await,
        "keys could be searched for as fast as callers give up"
    );
    tokio::time::advance(limits.interval).await;
    let mut third = task::spawn(searcher.discover(&keys[2]));
    assert_pending!(third.poll());
    sent(&mut queue);
    assert_eq!(searcher.len(), 2);

    drop((third, searches));
    tokio::time::advance(limits.timeout).await;
    let mut fourth = task::spawn(searcher.discover(&keys[3]));
    assert_pending!(fourth.poll());
    assert_eq!(searcher.len(), 1, "what nobody waits for is forgotten");
}

/// Peers that connect and leave make a node search for recipients of stored mail: never in the places of new messages.
#[tokio::test(start_paused = true)]
async fn each_cause_has_its_places() {
    let limits = SearchLimits {
        searches: 16,
        ..SearchLimits::default()
    };
    let (searcher, _queue) = searcher(limits);
    let mut searching = Vec::new();
    for (cause, first, places) in [
        (SearchCause::Retry, 10, 4),
        (SearchCause::Application, 20, 8),
        (SearchCause::Operator, 30, 4),
    ] {
        let searcher = searcher.for_cause(cause);
        for seed in first..first + places {
            let searcher = searcher.clone();
            let mut search = task::spawn(async move { searcher.discover(&key(seed)).await });
            assert_pending!(search.poll());
            searching.push(search);
        }
        let refused = searcher.discover(&key(first + places)).await;
        assert!(matches!(refused, Err(SearchError::TooManySearches)));
    }
    assert_eq!(searcher.len(), limits.searches);
    // A key that is searched for takes no second place.
    let known = key(10);
    let mut joined = task::spawn(searcher.discover(&known));
    assert_pending!(joined.poll());
}
