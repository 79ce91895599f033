//! Subscriptions of a node without a durable inbox.

use std::time::Duration;

use bytes::Bytes;
use dht_core::{Message, NodeId};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;

use super::*;
use crate::INBOX_CAPACITY;

fn received() -> Received {
    let message = Message {
        message_type: 1,
        payload: Bytes::from_static(b"x"),
    };
    Received {
        sender: None,
        via: NodeId::default(),
        message,
    }
}

async fn is_waiting(delivery: impl Future<Output = bool> + Unpin) -> bool {
    timeout(Duration::ZERO, delivery).await.is_err()
}

const MIB: usize = 1024 * 1024;

fn subscribers() -> Subscribers {
    Subscribers::new(ByteBudget::new(16 * MIB))
}

fn via(number: u8) -> NodeId {
    NodeId::from_bytes(&[number; NodeId::LENGTH]).unwrap()
}

/// Delivers a message of the deliverer with this number.
fn deliver_from(
    subscribers: &Subscribers,
    number: u8,
    permit: BytePermit,
) -> impl Future<Output = Disposition> {
    let received = Received {
        via: via(number),
        ..received()
    };
    subscribers.deliver(received, Deliverer::from_bytes([number; 32]), permit)
}

/// Whether a message was taken.
async fn deliver(subscribers: &Subscribers, permit: BytePermit) -> bool {
    deliver_from(subscribers, 0, permit).await == Disposition::Delivered
}

#[tokio::test]
async fn queue_pays_until_message_is_read() {
    let budget = ByteBudget::new(8192);
    let subscribers = subscribers();
    let mut inbox = subscribers.subscribe(WhenFull::Miss);
    let permit = budget.acquire(8192).await;
    let mut delivery = Box::pin(deliver(&subscribers, permit));
    assert!(is_waiting(&mut delivery).await);
    assert_eq!(
        (budget.available(), subscribers.unread_bytes()),
        (8192, 8192)
    );
    assert_eq!(inbox.recv().await, Some(received()));
    assert_eq!(subscribers.unread_bytes(), 0);
    assert!(is_waiting(&mut delivery).await, "returned is not taken");
    inbox.ack().await;
    assert!(delivery.await);
}

/// One message takes the whole budget of a queue that is too small for it; what is over that holds the memory of arriving
/// messages.
#[tokio::test]
async fn message_without_room_keeps_its_memory() {
    const BYTES: usize = 64 * 1024;
    let budget = ByteBudget::new(4 * BYTES);
    let subscribers = Subscribers::new(ByteBudget::new(16 * 1024));
    let mut inbox = subscribers.subscribe(WhenFull::Miss);
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        let permit = budget.acquire(BYTES).await;
        let mut delivery = Box::pin(deliver(&subscribers, permit));
        assert!(is_waiting(&mut delivery).await);
        deliveries.push(delivery);
    }
    assert_eq!(budget.available(), 2 * BYTES);
    assert_eq!(subscribers.unread_bytes(), 16 * 1024);
    // Withdrawn with its delivery.
    drop(deliveries.pop());
    assert_eq!(budget.available(), 3 * BYTES);
    inbox.recv().await;
    assert!(is_waiting(&mut deliveries[1]).await);
    assert_eq!(budget.available(), 4 * BYTES);
    inbox.recv().await;
    inbox.ack().await;
    for delivery in deliveries {
        assert!(delivery.await);
    }
    assert_eq!(subscribers.unread_bytes(), 0);
    assert!(inbox.recv().now_or_never().is_none());
}

/// As when a node is dropped and not stopped.
#[tokio::test]
async fn subscription_ends_with_its_node() {
    let subscribers = subscribers();
    let mut inbox = subscribers.subscribe(WhenFull::Miss);
    let mut delivery = Box::pin(deliver(&subscribers, BytePermit::none()));
    assert!(is_waiting(&mut delivery).await);
    drop(delivery);
    drop(subscribers);
    assert_eq!(inbox.recv().await, Some(received()));
    assert_eq!(inbox.recv().await, None);
}

#[tokio::test]
async fn idle_subscriber_of_large_messages_misses() {
    const BYTES: usize = 64 * 1024;
    let budget = ByteBudget::new(4 * BYTES);
    let subscribers = Subscribers::new(ByteBudget::new(6 * BYTES));
    let (idle, mut busy) = (
        subscribers.subscribe(WhenFull::Miss),
        subscribers.subscribe(WhenFull::Miss),
    );
    for _ in 0..50 {
        let permit = budget.try_acquire(BYTES).expect("nothing is held");
        let reading = async {
            busy.recv().await;
            busy.ack().await;
        };
        let (taken, ()) = tokio::join!(deliver(&subscribers, permit), reading);
        assert!(taken);
    }
    assert_eq!((idle.missed(), busy.missed()), (48, 0));
    assert_eq!(subscribers.unread_bytes(), 2 * BYTES);
    drop(idle);
    assert_eq!(subscribers.unread_bytes(), 0);
}

#[tokio::test]
async fn deliverers_are_read_in_turn() {
    let subscribers = subscribers();
    let mut inbox = subscribers.subscribe(WhenFull::Miss);
    let mut deliveries = FuturesUnordered::new();
    for _ in 0..=INBOX_CAPACITY {
        deliveries.push(deliver_from(&subscribers, 1, BytePermit::none()));
    }
    for number in [3, 2, 3] {
        deliveries.push(deliver_from(&subscribers, number, BytePermit::none()));
    }
    assert!(deliveries.next().now_or_never().is_none());
    let mut read = Vec::new();
    for _ in 0..6 {
        read.push(inbox.recv().await.unwrap().via);
    }
    let expected = [1, 2, 3, 1, 3, 1].map(via);
    assert_eq!(read, expected);
}

/// With nobody who reads, messages without room are refused after a minute, and at once from then on.
#[tokio::test(start_paused = true)]
async fn unread_queue_refuses_after_a_minute() {
    for when_full in [WhenFull::Miss, WhenFull::HoldBack] {
        let subscribers = subscribers();
        let mut idle = subscribers.subscribe(when_full);
        let _before = fill(&subscribers).await;
        let start = tokio::time::Instant::now();
        let refused = Disposition::Dropped(DropReason::InboxFull);
        for waits in [60, 0] {
            let delivery = deliver_from(&subscribers, 0, BytePermit::none());
            assert_eq!(delivery.await, refused);
            assert_eq!(start.elapsed().as_secs(), 60, "{waits}");
        }
        assert!(subscribers.room_made().now_or_never().is_none());
        idle.recv().await;
        assert!(subscribers.room_made().now_or_never().is_some());
        let mut delivery = Box::pin(deliver(&subscribers, BytePermit::none()));
        assert!(is_waiting(&mut delivery).await, "there is room again");
        assert_eq!(idle.missed(), 0);
    }
}

/// A message that one subscriber holds back for longer than a minute reaches no other, and does not count as received.
#[tokio::test(start_paused = true)]
async fn message_held_back_long_is_refused() {
    let subscribers = subscribers();
    let mut idle = subscribers.subscribe(WhenFull::HoldBack);
    let _before = fill(&subscribers).await;
    let mut busy = subscribers.subscribe(WhenFull::Miss);
    let refused = Disposition::Dropped(DropReason::InboxFull);
    let reading = async {
        busy.recv().await;
        busy.ack().await;
    };
    let (first, ()) = tokio::join!(deliver_from(&subscribers, 0, BytePermit::none()), reading);
    assert_eq!(first, refused);
    let next = deliver_from(&subscribers, 0, BytePermit::none());
    assert_eq!(next.await, refused);
    assert!(busy.recv().now_or_never().is_none());
    idle.recv().await;
    let (next, _) = tokio::join!(deliver_from(&subscribers, 0, BytePermit::none()), async {
        busy.recv().await;
        busy.ack().await;
    });
    assert_eq!(next, Disposition::Delivered);
    assert_eq!((idle.missed(), busy.missed()), (0, 0));
}

/// An idle subscriber with room for a message keeps it from being refused, also while others have none.
#[tokio::test(start_paused = true)]
async fn idle_queue_with_room_takes_message() {
    let subscribers = subscribers();
    let behind = subscribers.subscribe(WhenFull::Miss);
    let _before = fill(&subscribers).await;
    let mut late = subscribers.subscribe(WhenFull::Miss);
    let budget = ByteBudget::new(8192);
    let permit = budget.acquire(8192).await;
    let mut delivery = Box::pin(deliver(&subscribers, permit));
    assert!(is_waiting(&mut delivery).await);
    assert_eq!(budget.available(), 0);
    assert!(
        timeout(Duration::from_secs(61), &mut delivery)
            .await
            .is_err()
    );
    assert_eq!(budget.available(), 8192);
    late.recv().await;
    late.ack().await;
    assert!(delivery.await);
    assert_eq!((behind.missed(), late.missed()), (1, 0));
}

#[tokio::test]
async fn the_following_call_takes_a_message() {
    let subscribers = subscribers();
    let mut inbox = subscribers.subscribe(WhenFull::Miss);
    let mut first = Box::pin(deliver(&subscribers, BytePermit::none()));
    assert!(is_waiting(&mut first).await);
    inbox.recv().await;
    assert!(inbox.recv().now_or_never().is_none());
    assert!(first.await);
}

#[tokio::test]
async fn nobody_listening_is_told() {
    let subscribers = subscribers();
    drop(subscribers.subscribe(WhenFull::Miss));
    assert!(!deliver(&subscribers, BytePermit::none()).await);
    // Neither read nor taken by a subscriber that leaves.
    for read in [false, true] {
        let mut inbox = subscribers.subscribe(WhenFull::Miss);
        let mut delivery = Box::pin(deliver(&subscribers, BytePermit::none()));
        assert!(is_waiting(&mut delivery).await);
        if read {
            inbox.recv().await;
        }
        drop(inbox);
        assert!(!delivery.await);
    }
}

#[tokio::test]
async fn full_inbox_holds_sender_back() {
    let subscribers = subscribers();
    let mut inbox = subscribers.subscribe(WhenFull::Miss);
    let mut deliveries = FuturesUnordered::new();
    for _ in 0..=INBOX_CAPACITY {
        deliveries.push(deliver(&subscribers, BytePermit::none()));
    }
    assert!(deliveries.next().now_or_never().is_none());
    for _ in 0..=INBOX_CAPACITY {
        assert_eq!(inbox.recv().await, Some(received()));
        let _ = deliveries.next().now_or_never();
    }
    inbox.ack().await;
    while let Some(taken) = deliveries.next().await {
        assert!(taken);
    }
}

#[tokio::test]
async fn idle_subscriber_holds_up_only_itself() {
    let subscribers = subscribers();
    let (idle, mut busy) = (
        subscribers.subscribe(WhenFull::Miss),
        subscribers.subscribe(WhenFull::Miss),
    );
    for _ in 0..INBOX_CAPACITY + 10 {
        let reading = async {
            busy.recv().await;
            busy.ack().await;
        };
        let (taken, ()) = tokio::join!(deliver(&subscribers, BytePermit::none()), reading);
        assert!(taken);
    }
    assert_eq!((idle.missed(), busy.missed()), (10, 0));
}

/// A message for each place in the queue of a subscriber, which is waited for by no other one.
async fn fill(subscribers: &Subscribers) -> FuturesUnordered<impl Future<Output = bool>> {
    let mut deliveries = FuturesUnordered::new();
    for _ in 0..INBOX_CAPACITY {
        deliveries.push(deliver(subscribers, BytePermit::none()));
    }
    assert!(deliveries.next().now_or_never().is_none());
    deliveries
}

#[tokio::test(start_paused = true)]
async fn late_idle_subscriber_keeps_nothing_back() {
    let subscribers = subscribers();
    let mut busy = subscribers.subscribe(WhenFull::Miss);
    let mut before = fill(&subscribers).await;
    let idle = subscribers.subscribe(WhenFull::Miss);
    let mut delivery = Box::pin(deliver(&subscribers, BytePermit::none()));
    assert!(
        is_waiting(&mut delivery).await,
        "only the idle one has room"
    );
    for _ in 0..=INBOX_CAPACITY {
        busy.recv().await;
        let _ = before.next().now_or_never();
        let _ = (&mut delivery).now_or_never();
    }
    busy.ack().await;
    // The clock moves once everything waits: then the delivery would for ever.
    let taken = timeout(Duration::from_secs(1), delivery).await;
    assert_eq!(taken, Ok(true));
    assert_eq!((idle.missed(), busy.missed()), (0, 0));
}

#[tokio::test]
async fn full_subscriber_holds_back_by_choice() {
    let subscribers = subscribers();
    let mut busy = subscribers.subscribe(WhenFull::HoldBack);
    let _before = fill(&subscribers).await;
    let mut other = subscribers.subscribe(WhenFull::Miss);
    let mut delivery = Box::pin(deliver(&subscribers, BytePermit::none()));
    assert!(is_waiting(&mut delivery).await);
    other.recv().await;
    other.ack().await;
    assert!(is_waiting(&mut delivery).await, "taken, and held back");
    busy.recv().await;
    assert!(delivery.await);
    assert_eq!((other.missed(), busy.missed()), (0, 0));
}
