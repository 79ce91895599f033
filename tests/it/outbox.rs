//! Messages are tried until they have arrived, are stored, or have expired.

mod restart;
mod withdrawal;

use std::{collections::BTreeSet, path::Path, pin::pin, sync::Arc, time::Duration};

use dht_core::{Clock as _, ManualClock, PublicKey, UnixSeconds};
use dht_node::{
    Config, Delivery, MemoryHome, Message, Node, SendOptions, SendState, SpoolError, StateKind,
    SubmitError, SystemClock,
};
use dht_spool::{EntryContent, EntryFilter, NewEntry, Transition};
use futures::{
    StreamExt as _,
    future::{join_all, ready},
    stream::FuturesUnordered,
};

use crate::{
    delivery::held,
    net::{
        Line, LineState, builder, clock, config, connect, each_once, fixed_config, fixed_node,
        message, node, number, numbered, receive, receive_numbers, secret, send, until, within,
    },
};

async fn post(from: &Node, to: &PublicKey, message: Message, options: SendOptions) -> Delivery {
    within(from.send(to, message, options)).await.unwrap()
}

fn direct_only() -> SendOptions {
    SendOptions {
        direct_only: true,
        ..SendOptions::default()
    }
}

/// A node whose outbox can be read.
async fn with_outbox(seed: u8) -> Node {
    let builder = Node::builder(secret(seed)).config(fixed_config(true));
    let builder = builder.memory_home(MemoryHome::default());
    within(builder.start()).await.unwrap()
}

/// A node that keeps its files here and asks peers for stored messages. Waits until an earlier life has let go of them.
async fn at_home(seed: u8, home: &Path) -> Node {
    let started = async {
        loop {
            let builder = Node::builder(secret(seed)).config(fixed_config(true));
            let builder = builder.home(home);
            match builder.start().await {
                Ok(node) => return node,
                Err(_still_open) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    within(started).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_in_dead_socket_is_rescued() {
    let home = tempfile::tempdir().unwrap();
    let (alice, holder) = (fixed_node(1).await, fixed_node(2).await);
    let bob = at_home(3, home.path()).await;
    let to = *bob.public_key();
    let line = Line::to(&bob, LineState::Open).await;
    connect(&alice, &holder).await;
    within(alice.connect(&line.peer_address(&bob)))
        .await
        .unwrap();
    until(|| !bob.peers().is_empty()).await;
    line.set(LineState::Dead);

    let mut delivery = post(
        &alice,
        &to,
        message("through the wall"),
        SendOptions::default(),
    )
    .await;
    let state = within(delivery.wait(StateKind::Stored)).await.unwrap();
    assert_eq!(state, SendState::Stored { holders: 1 });
    drop(bob);
    let bob = at_home(3, home.path()).await;
    let mut inbox = bob.subscribe();
    connect(&bob, &holder).await;
    let received = receive(&mut inbox).await;
    assert_eq!(received.message, message("through the wall"));
    assert_eq!(received.sender, Some(*alice.public_key()));
}

/// A peer that gives no receipts, as a stock one, and whose socket tells nobody that it is dead.
#[tokio::test]
async fn unconfirmed_copy_is_rescued_too() {
    let (alice, holder) = (fixed_node(1).await, fixed_node(2).await);
    let mut settings = fixed_config(false);
    settings.saf.enabled = false;
    let stock = Node::builder(secret(3)).config(settings).start();
    let stock = within(stock).await.unwrap();
    let to = *stock.public_key();
    let line = Line::to(&stock, LineState::Open).await;
    connect(&alice, &holder).await;
    within(alice.connect(&line.peer_address(&stock)))
        .await
        .unwrap();
    let mut before = post(&alice, &to, message("alive"), direct_only()).await;
    within(before.wait(StateKind::Sent)).await.unwrap();
    line.set(LineState::Dead);
    let text = message("into the void");
    let mut delivery = post(&alice, &to, text.clone(), SendOptions::default()).await;
    within(delivery.wait(StateKind::Sent)).await.unwrap();
    // Half a minute of doubt, and the time for an answer.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(34)).await;
    tokio::time::resume();
    let state = within(delivery.wait(StateKind::Stored)).await.unwrap();
    assert_eq!(state, SendState::Stored { holders: 1 });
    drop(stock);
    let bob = Node::builder(secret(3)).config(fixed_config(true)).start();
    let bob = within(bob).await.unwrap();
    let mut inbox = bob.subscribe();
    connect(&bob, &holder).await;
    assert_eq!(receive(&mut inbox).await.message, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_to_oneself_stays_here() {
    let (alice, bob) = (node(1).await, node(2).await);
    connect(&alice, &bob).await;
    let mut inbox = alice.subscribe();
    let me = *alice.public_key();
    let mut delivery = post(&alice, &me, message("note"), SendOptions::default()).await;
    let received = receive(&mut inbox).await;
    assert_eq!(
        (received.sender, received.message),
        (Some(me), message("note"))
    );
    within(delivery.wait(StateKind::Received)).await.unwrap();
    assert_eq!(bob.stats().messages_received, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_expires_at_its_deadline() {
    let clock = clock();
    let alice = within(builder(1).clock(Arc::clone(&clock) as _).start());
    let alice = alice.await.unwrap();
    let options = SendOptions {
        ttl_seconds: 60,
        ..SendOptions::default()
    };
    let nobody = secret(9).public_key();
    let mut delivery = post(&alice, &nobody, message("soon"), options).await;
    clock.advance(61);
    let expired = within(delivery.wait(StateKind::Received))
        .await
        .unwrap_err();
    assert_eq!(expired.state, SendState::Expired);
    assert_eq!(within(delivery.next()).await, None);
}

/// A message that as many holders store as were wanted takes no room any more, and its state stays known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_messages_leave_the_outbox() {
    let home = tempfile::tempdir().unwrap();
    let (alice, holder) = (at_home(1, home.path()).await, node(2).await);
    connect(&alice, &holder).await;
    let outbox = alice.outbox().unwrap();
    let to = secret(3).public_key();
    let options = || SendOptions {
        replicas: Some(1),
        ..SendOptions::default()
    };
    let posts = (0..20).map(|at| post(&alice, &to, numbered(at, 100), options()));
    let mut deliveries = join_all(posts).await;
    let stored = deliveries
        .iter_mut()
        .map(|delivery| delivery.wait(StateKind::Stored));
    for state in within(join_all(stored)).await {
        state.unwrap();
    }
    until(|| outbox.stats().rows == 0).await;
    assert_eq!((outbox.stats().bytes, outbox.stats().ended), (0, 20));
    let stored = SendState::Stored { holders: 1 };
    let mut delivery = deliveries.remove(0);
    assert!(!alice.withdraw(delivery.id()).await.unwrap());
    let undelivered = within(delivery.wait(StateKind::Received)).await;
    assert_eq!(undelivered.unwrap_err().state, stored);
    let again = within(alice.delivery(delivery.id())).await.unwrap();
    assert_eq!(again.unwrap().state(), stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_key_is_the_same_message() {
    let (alice, bob) = (node(1).await, node(2).await);
    connect(&alice, &bob).await;
    let mut inbox = bob.subscribe();
    let options = || SendOptions {
        key: Some("invoice-17".to_owned()),
        ..SendOptions::default()
    };
    let to = bob.public_key();
    let mut first = post(&alice, to, message("pay"), options()).await;
    let again = post(&alice, to, message("pay"), options()).await;
    assert_eq!(first.id(), again.id());
    assert_eq!(receive(&mut inbox).await.message, message("pay"));
    within(first.wait(StateKind::Received)).await.unwrap();
    let later = post(&alice, to, message("pay"), options()).await;
    assert_eq!(
        (later.id(), later.state()),
        (first.id(), SendState::Received)
    );
    let other = within(alice.send(to, message("pay more"), options())).await;
    assert!(matches!(
        other,
        Err(SubmitError::Outbox(SpoolError::KeyReused))
    ));
    post(&alice, to, message("end"), direct_only()).await;
    assert_eq!(receive(&mut inbox).await.message, message("end"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_only_waits_for_the_recipient() {
    let (alice, holder) = (node(1).await, node(2).await);
    connect(&alice, &holder).await;
    let to = secret(3).public_key();
    let mut delivery = post(&alice, &to, message("for you only"), direct_only()).await;
    assert!(within(delivery.first_attempt()).await.is_err());
    assert_eq!(holder.saf_stats().unwrap().rows, 0);
    let bob = node(3).await;
    let mut inbox = bob.subscribe();
    connect(&bob, &alice).await;
    assert_eq!(receive(&mut inbox).await.message, message("for you only"));
    within(delivery.wait(StateKind::Received)).await.unwrap();
    assert_eq!(holder.saf_stats().unwrap().rows, 0);
}

/// Four times as many as one recipient may have on their way: callers wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sends_report_true_states() {
    const COUNT: u32 = 1_000;
    let (alice, bob) = (node(1).await, node(2).await);
    connect(&alice, &bob).await;
    let mut inbox = bob.subscribe();
    let to = *bob.public_key();
    let sends = (0..COUNT).map(|at| {
        let sending = alice.send(&to, numbered(at, 16), SendOptions::default());
        async move { sending.await.unwrap().wait(StateKind::Received).await }
    });
    let reads = receive_numbers(&mut inbox, COUNT);
    let (outcomes, times) = tokio::join!(within(join_all(sends)), reads);
    assert_eq!(times, each_once(COUNT));
    let received = outcomes
        .iter()
        .filter(|state| **state == Ok(SendState::Received));
    assert_eq!(received.count(), COUNT as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lived_senders_are_heard() {
    const SENDERS: u32 = 20;
    let bob = node(2).await;
    let mut inbox = bob.subscribe();
    let sends = async {
        for at in 0..SENDERS {
            let seed = u8::try_from(at).unwrap() + 10;
            let sender = within(Node::builder(secret(seed)).start()).await.unwrap();
            sender.add_peer(&bob.peer_address());
            let message = numbered(at, 100);
            let mut delivery = post(&sender, bob.public_key(), message, direct_only()).await;
            within(delivery.wait(StateKind::Sent)).await.unwrap();
            within(sender.shutdown()).await;
        }
    };
    let (times, ()) = tokio::join!(receive_numbers(&mut inbox, SENDERS), sends);
    assert_eq!(times, each_once(SENDERS));
}

/// Direct sends wait for a recipient that does not read; the answer to a discovery, a control message, leaves at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_sends_delay_no_answer() {
    let (alice, bob, carol) = (
        fixed_node(1).await,
        fixed_node(2).await,
        fixed_node(3).await,
    );
    let line = Line::to(&bob, LineState::Open).await;
    within(alice.connect(&line.peer_address(&bob)))
        .await
        .unwrap();
    connect(&alice, &carol).await;
    line.set(LineState::Dead);
    let to = bob.public_key();
    let sends = (0..30).map(|at| post(&alice, to, numbered(at, 100_000), direct_only()));
    let mut waiting = within(join_all(sends)).await;
    let attempts: FuturesUnordered<_> = waiting.iter_mut().map(Delivery::first_attempt).collect();
    // A socket may take the first ones.
    let mut given_up = pin!(attempts.filter_map(|sent| ready(sent.err())));
    tokio::select! {
        found = within(carol.discover(alice.public_key())) => found.unwrap(),
        Some(error) = given_up.next() => panic!("given up before the answer: {error}"),
    };
}

/// The sender's clock is two days off. Whichever side refuses the other, nothing is called sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_clock_sends_nothing() {
    const DAYS: u64 = 2 * 24 * 60 * 60;
    let bob = node(2).await;
    let now = SystemClock.now();
    for (seed, at) in [
        (3, now.saturating_add(DAYS)),
        (4, UnixSeconds(now.0 - DAYS)),
    ] {
        let clock = Arc::new(ManualClock::new(at));
        let alice = within(builder(seed).clock(clock).start()).await.unwrap();
        alice.add_peer(&bob.peer_address());
        let sent = send(&alice, bob.public_key(), message("from another day")).await;
        let error = sent.unwrap_err();
        assert!(error.contains("clock"), "{error}");
    }
    assert_eq!(bob.stats().messages_received, 0);
}

/// A holder would refuse it, and the caller knows at once.
#[tokio::test]
async fn too_large_for_holders_is_told() {
    let (alice, holder) = (with_outbox(1).await, fixed_node(2).await);
    connect(&alice, &holder).await;
    let nobody = secret(9).public_key();
    let large = Message {
        payload: vec![0; 600 * 1024].into(),
        ..message("")
    };
    let delivery = post(&alice, &nobody, large.clone(), SendOptions::default()).await;
    let told = |error: Option<Arc<str>>| {
        error.is_some_and(|error| error.starts_with("too large for holders: "))
    };
    assert!(told(delivery.last_error()));
    let written = || alice.outbox().unwrap().get(delivery.id()).unwrap().unwrap();
    until(|| written().attempts > 0).await;
    assert!(told(written().last_error.map(Arc::from)));
    let direct = post(&alice, &nobody, large, direct_only()).await;
    assert!(!told(direct.last_error()));
}

/// A node that starts with a clock a month ahead keeps what it has: unread, queued, and held for others. A message that is queued
/// then ends in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_ahead_at_start_ends_nothing() {
    let (home, clock) = (tempfile::tempdir().unwrap(), clock());
    let start = || {
        let builder = Node::builder(secret(2)).config(fixed_config(true));
        let clock = Arc::clone(&clock);
        builder.home(home.path()).clock(clock as _).start()
    };
    let (alice, bob) = (node(1).await, within(start()).await.unwrap());
    connect(&alice, &bob).await;
    let (nobody, carol) = (secret(9).public_key(), secret(3).public_key());
    let (to, options) = (*bob.public_key(), SendOptions::default());
    let mut unread = post(&alice, &to, message("unread"), options).await;
    within(unread.wait(StateKind::Received)).await.unwrap();
    let options = SendOptions {
        replicas: Some(1),
        ..SendOptions::default()
    };
    let mut stored = post(&alice, &carol, message("held"), options).await;
    within(stored.wait(StateKind::Stored)).await.unwrap();
    let queued = post(&bob, &nobody, message("queued"), direct_only()).await;
    let queued = queued.id();
    within(bob.shutdown()).await;
    drop(bob);
    clock.advance(31 * 86_400);
    let bob = within(start()).await.unwrap();
    let options = SendOptions {
        ttl_seconds: 60,
        ..direct_only()
    };
    let mut soon = post(&bob, &nobody, message("soon"), options).await;
    clock.advance(61);
    let ended = within(soon.wait(StateKind::Received)).await.unwrap_err();
    assert_eq!(ended.state, SendState::Expired);
    let queued = within(bob.delivery(queued)).await.unwrap().unwrap();
    assert_eq!(queued.state().kind(), StateKind::Queued);
    assert_eq!(bob.inbox().unwrap().stats().rows, 1);
    assert_eq!(bob.saf_stats().unwrap().rows, 1);
}
