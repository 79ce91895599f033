//! Law 2: what an application does not read holds its senders back, and is not lost.

use dht_node::{INBOX_CAPACITY, Node};
use dht_transport::limits::{
    INBOUND_CHANNEL_MESSAGES, READ_AHEAD_BYTES, WINDOW_GROWTH_BYTES, YAMUX_FRAME_BYTES,
};
use futures::{StreamExt as _, stream::FuturesUnordered};

use crate::net::{
    builder, connect, each_once, is_full, message, node, numbered, receive, receive_numbers, send,
    until, within,
};

const MIB: usize = 1024 * 1024;

/// The first window of a yamux stream.
const FIRST_WINDOW_BYTES: usize = 256 * 1024;

/// Bytes that may be between two sockets whose reader has stopped, beyond the reader's budget.
const IN_FLIGHT_BYTES: usize =
    FIRST_WINDOW_BYTES + WINDOW_GROWTH_BYTES + READ_AHEAD_BYTES + 2 * YAMUX_FRAME_BYTES;

/// Sends `count` numbered messages at once; yields as each is on its way.
fn flood<'a>(
    from: &'a Node,
    to: &'a Node,
    count: u32,
    bytes: usize,
) -> FuturesUnordered<impl Future<Output = ()> + 'a> {
    (0..count)
        .map(|at| async move {
            send(from, to.public_key(), numbered(at, bytes))
                .await
                .unwrap();
        })
        .collect()
}

/// A flood of large messages ends at the budget of the node, and goes on once its application reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_messages_hold_sender_back() {
    const COUNT: u32 = 300;
    const BYTES: usize = 48 * 1024;
    /// Nine sixteenths of the memory are for arriving messages, less one session of peer sync: messages stored in memory take one,
    /// those queued for subscriptions another.
    const BUDGET: usize = 2 * MIB * 9 / 16 - 72 * 1024;
    const { assert!(COUNT as usize * BYTES > 2 * (BUDGET + IN_FLIGHT_BYTES)) };

    let flooder = node(1).await;
    let busy = within(builder(2).memory_mib(2).start()).await.unwrap();
    let mut inbox = busy.subscribe();
    let mut answers = flooder.subscribe();
    connect(&flooder, &busy).await;
    assert_eq!(busy.stats().memory_limit_bytes, BUDGET);

    let mut sends = flood(&flooder, &busy, COUNT, BYTES);
    let mut sent = 0;
    // Until the budget has no room for another message.
    within(async {
        while !is_full(&busy) {
            tokio::select! {
                Some(()) = sends.next() => sent += 1,
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    // The node that holds its peer back is not held back itself: round after round, the other way is free
    // and nothing beyond the budget comes in.
    for round in 0..50 {
        let answer = within(send(&busy, flooder.public_key(), numbered(round, 4)));
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answered = &mut answer => break drop(answered.unwrap()),
                Some(()) = sends.next() => sent += 1,
            }
        }
        receive(&mut answers).await;
        let stats = busy.stats();
        assert!(stats.memory_used_bytes <= stats.memory_limit_bytes);
    }
    assert!(
        sent * BYTES <= BUDGET + IN_FLIGHT_BYTES,
        "{sent} messages left a sender whose peer reads none"
    );

    let (times, ()) = within(async {
        tokio::join!(receive_numbers(&mut inbox, COUNT), async {
            while sends.next().await.is_some() {}
        })
    })
    .await;
    assert_eq!(times, each_once(COUNT));
    until(|| busy.stats().memory_used_bytes == 0).await;
    assert_eq!((busy.stats().dropped, busy.stats().unread_bytes), (0, 0));
}

/// An idle subscription beside an active one holds up nothing: more than the memory of the node arrives, and none of it is
/// kept from what this node passes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_subscription_holds_up_nothing() {
    const COUNT: u32 = 100;
    let alice = node(1).await;
    let busy = within(builder(2).memory_mib(2).start()).await.unwrap();
    let (idle, mut inbox) = (busy.subscribe(), busy.subscribe());
    connect(&alice, &busy).await;
    let mut sends = flood(&alice, &busy, COUNT, 48 * 1024);
    let (times, ()) = within(async {
        tokio::join!(receive_numbers(&mut inbox, COUNT), async {
            while sends.next().await.is_some() {}
        })
    })
    .await;
    assert_eq!(times, each_once(COUNT));
    until(|| busy.stats().memory_used_bytes == 0).await;
    let stats = busy.stats();
    assert_eq!((stats.delivered, stats.dropped), (u64::from(COUNT), 0));
    assert!(0 < stats.unread_bytes && stats.unread_bytes <= 2 * MIB / 16);
    assert!(idle.missed() > 0);
    drop(idle);
    assert_eq!(busy.stats().unread_bytes, 0);
}

/// Small messages do not fill the budget; the queues on their way are bounded by number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_messages_than_queues_arrive_once() {
    const COUNT: u32 = 3_000;
    /// Requests under way at once, so that no queue of the sender overflows.
    const AT_ONCE: usize = 256;
    /// The least a message is charged with.
    const LEAST_BYTES: usize = 1024;
    let (flooder, busy) = (node(1).await, node(2).await);
    let mut inbox = busy.subscribe();
    connect(&flooder, &busy).await;

    let sends = futures::stream::iter(0..COUNT)
        .map(|at| send(&flooder, busy.public_key(), numbered(at, 4)))
        .buffer_unordered(AT_ONCE);
    let (times, failed) = within(async {
        tokio::join!(
            async {
                // Nothing is read before the inbox and the channel in front of the stack are full.
                let full = (INBOX_CAPACITY + INBOUND_CHANNEL_MESSAGES) * LEAST_BYTES;
                let held = |stats: dht_node::Stats| stats.memory_used_bytes + stats.unread_bytes;
                until(|| held(busy.stats()) > full).await;
                receive_numbers(&mut inbox, COUNT).await
            },
            sends
                .filter(|sent| std::future::ready(sent.is_err()))
                .count(),
        )
    })
    .await;
    assert_eq!(failed, 0);
    assert_eq!(times, each_once(COUNT));
    assert_eq!(busy.stats().dropped, 0);
}

/// Nobody waits for everybody: two nodes that flood each other, with small budgets, come through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_flood_does_not_deadlock() {
    const COUNT: u32 = 150;
    const BYTES: usize = 60 * 1024;
    let alice = within(builder(1).memory_mib(1).start()).await.unwrap();
    let bob = within(builder(2).memory_mib(1).start()).await.unwrap();
    let (mut to_alice, mut to_bob) = (alice.subscribe(), bob.subscribe());
    connect(&alice, &bob).await;

    let mut sends = (
        flood(&alice, &bob, COUNT, BYTES),
        flood(&bob, &alice, COUNT, BYTES),
    );
    within(async {
        while !(is_full(&alice) && is_full(&bob)) {
            tokio::select! {
                Some(()) = sends.0.next() => {}
                Some(()) = sends.1.next() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    let (at_alice, at_bob, (), ()) = within(async {
        tokio::join!(
            receive_numbers(&mut to_alice, COUNT),
            receive_numbers(&mut to_bob, COUNT),
            async { while sends.0.next().await.is_some() {} },
            async { while sends.1.next().await.is_some() {} },
        )
    })
    .await;
    assert_eq!(at_alice, each_once(COUNT));
    assert_eq!(at_bob, each_once(COUNT));
}

/// A message longer than the whole budget takes all of it, once it is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_over_whole_budget_arrives() {
    let alice = node(1).await;
    let bob = within(builder(2).memory_mib(1).start()).await.unwrap();
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    let mut sends = flood(&alice, &bob, 3, 3 * MIB);
    let (times, ()) = within(async {
        tokio::join!(receive_numbers(&mut inbox, 3), async {
            while sends.next().await.is_some() {}
        })
    })
    .await;
    assert_eq!(times, each_once(3));
    until(|| bob.stats().memory_used_bytes == 0).await;
}

/// An application that stops listening holds nobody back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn departed_subscriber_frees_its_senders() {
    // Payloads and frames fit into the half of an outbox that one recipient may fill alone.
    const COUNT: u32 = 120;
    let alice = node(1).await;
    let bob = within(builder(2).memory_mib(1).start()).await.unwrap();
    let held = bob.subscribe();
    connect(&alice, &bob).await;
    let mut sends = flood(&alice, &bob, COUNT, 60 * 1024);
    within(async {
        while !is_full(&bob) {
            tokio::select! {
                Some(()) = sends.next() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    drop(held);
    within(async { while sends.next().await.is_some() {} }).await;
    until(|| bob.stats().messages_received >= u64::from(COUNT)).await;
    until(|| bob.stats().memory_used_bytes == 0).await;

    let mut inbox = bob.subscribe();
    within(send(&alice, bob.public_key(), message("after")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.message, message("after"));
}
