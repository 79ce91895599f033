//! Messages are tried until they have arrived, are stored, or have expired.

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

/// Messages called received were received; all others arrive when the recipient is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipient_killed_under_traffic_loses_nothing() {
    const COUNT: u32 = 200;
    let home = tempfile::tempdir().unwrap();
    let (alice, holder) = (node(1).await, node(2).await);
    let bob = at_home(3, home.path()).await;
    let to = *bob.public_key();
    connect(&alice, &holder).await;
    connect(&alice, &bob).await;
    let mut inbox = bob.subscribe();
    let mut deliveries = Vec::new();
    let mut before = BTreeSet::new();
    for at in 0..COUNT {
        deliveries.push(post(&alice, &to, numbered(at, 100), SendOptions::default()).await);
        if at < COUNT / 2 {
            before.insert(number(&receive(&mut inbox).await));
        }
    }
    drop((bob, inbox));
    let outcomes = deliveries
        .iter_mut()
        .map(|delivery| delivery.wait(StateKind::Stored));
    let outcomes = within(join_all(outcomes)).await;
    let bob = at_home(3, home.path()).await;
    before.extend(held(&bob));
    for (at, outcome) in (0..COUNT).zip(&outcomes) {
        if outcome == &Ok(SendState::Received) {
            assert!(before.contains(&at), "{at} was called received");
        }
    }
    let mut inbox = bob.subscribe();
    connect(&bob, &holder).await;
    while before.len() < COUNT as usize {
        before.insert(number(&receive(&mut inbox).await));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_messages_survive_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let bob = secret(3).public_key();
    let alice = at_home(1, home.path()).await;
    let mut ids = Vec::new();
    for at in 0..20 {
        ids.push(
            post(&alice, &bob, numbered(at, 100), SendOptions::default())
                .await
                .id(),
        );
    }
    // Without a goodbye.
    drop(alice);
    let alice = at_home(1, home.path()).await;
    let bob = node(3).await;
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    assert_eq!(receive_numbers(&mut inbox, 20).await, each_once(20));
    for id in ids {
        let mut delivery = alice.delivery(id).await.unwrap().unwrap();
        within(delivery.wait(StateKind::Received)).await.unwrap();
    }
}

/// Nothing but what the operator said leads to the recipient, and that was before the restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_address_outlives_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let bob = node(3).await;
    let address = bob.peer_address();
    within(bob.shutdown()).await;
    drop(bob);
    let alice = at_home(1, home.path()).await;
    alice.add_peer(&address);
    let options = SendOptions::default();
    let id = post(&alice, &address.public_key, message("later"), options).await;
    let id = id.id();
    within(alice.shutdown()).await;
    drop(alice);

    let listening = Config {
        listen: address.addresses,
        ..config(false)
    };
    let bob = Node::builder(secret(3)).config(listening);
    let bob = within(bob.start()).await.unwrap();
    let mut inbox = bob.subscribe();
    let alice = at_home(1, home.path()).await;
    assert_eq!(receive(&mut inbox).await.message, message("later"));
    let mut delivery = alice.delivery(id).await.unwrap().unwrap();
    within(delivery.wait(StateKind::Received)).await.unwrap();
}

/// The sender forgot that it has a receipt, and the recipient has been started again: it drops the copy as a duplicate,
/// and gives the receipt again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_outlive_the_recipients_restart() {
    let (home, earlier, bobs) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let alice = at_home(1, home.path()).await;
    let to = secret(2).public_key();
    let id = post(&alice, &to, message("once"), direct_only()).await.id();
    within(alice.shutdown()).await;
    drop(alice);
    let file = |home: &Path| home.join("outbox.redb");
    std::fs::copy(file(home.path()), file(earlier.path())).unwrap();

    for (life, home) in [&home, &earlier].into_iter().enumerate() {
        let bob = at_home(2, bobs.path()).await;
        let builder = Node::builder(secret(1)).config(config(true));
        let alice = builder.home(home.path()).peer(bob.peer_address());
        let alice = within(alice.start()).await.unwrap();
        let mut delivery = within(alice.delivery(id)).await.unwrap().unwrap();
        within(delivery.wait(StateKind::Received)).await.unwrap();
        if life == 0 {
            let mut inbox = bob.subscribe();
            assert_eq!(receive(&mut inbox).await.message, message("once"));
        }
        assert_eq!(bob.inbox().unwrap().stats().rows, 0);
        within(alice.shutdown()).await;
        within(bob.shutdown()).await;
    }
}

/// The recipient connected before the worker had read the entry, whose next attempt is a quarter of an hour away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_read_late_finds_its_recipient() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (at_home(1, home.path()).await, node(2).await);
    let mut inbox = bob.subscribe();
    let (to, text) = (*bob.public_key(), message("late"));
    let outbox = alice.outbox().unwrap();
    let first = post(&alice, &to, text.clone(), direct_only()).await.id();
    let content = outbox.content(first).unwrap().unwrap();
    let EntryContent::Frame(frame) = content else {
        panic!("{content:?}");
    };
    assert!(alice.withdraw(first).await.unwrap());
    connect(&alice, &bob).await;
    let now = SystemClock.now();
    let put = outbox.put(NewEntry {
        key: None,
        recipient: to,
        message_type: text.message_type,
        payload: text.payload.clone(),
        options: dht_spool::EntryOptions::default(),
        created_at: now,
        frame: Some(frame),
    });
    let retry = Transition::Retry {
        at: now.saturating_add(15 * 60),
        error: Some("not connected".to_owned()),
    };
    let id = within(put).await.unwrap().id();
    within(outbox.update(id, retry, now)).await.unwrap();
    let mut delivery = within(alice.delivery(id)).await.unwrap().unwrap();
    assert_eq!(receive(&mut inbox).await.message, text);
    within(delivery.wait(StateKind::Received)).await.unwrap();
}

/// Something else than a send of this life put an entry into the outbox: it is followed as every other one. A payload without
/// a frame is sealed; of a frame that is none, nothing can be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_entries_are_taken_up() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (at_home(1, home.path()).await, node(2).await);
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    let text = message("without a frame");
    for frame in [None, Some(bytes::Bytes::from_static(b"no frame"))] {
        let is_sealed = frame.is_some();
        let put = alice.outbox().unwrap().put(NewEntry {
            key: None,
            recipient: *bob.public_key(),
            message_type: text.message_type,
            payload: text.payload.clone(),
            options: dht_spool::EntryOptions::default(),
            created_at: SystemClock.now(),
            frame,
        });
        let id = within(put).await.unwrap().id();
        let mut delivery = within(alice.delivery(id)).await.unwrap().unwrap();
        if is_sealed {
            let undelivered = within(delivery.wait(StateKind::Sent)).await.unwrap_err();
            assert_eq!(undelivered.state.kind(), StateKind::Failed);
        } else {
            assert_eq!(receive(&mut inbox).await.message, text);
            within(delivery.wait(StateKind::Received)).await.unwrap();
        }
    }
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

/// An entry that could not be ended in time, as while the disk was full, is not taken up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_past_its_expiry_is_ended() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (at_home(1, home.path()).await, node(2).await);
    let mut inbox = bob.subscribe();
    let (to, late) = (*bob.public_key(), message("late"));
    let outbox = alice.outbox().unwrap();
    let mut first = post(&alice, &to, late.clone(), direct_only()).await;
    within(first.first_attempt()).await.unwrap_err();
    let content = outbox.content(first.id()).unwrap().unwrap();
    let EntryContent::Frame(frame) = content else {
        panic!("{content:?}");
    };
    assert!(alice.withdraw(first.id()).await.unwrap());
    within(first.wait(StateKind::Failed)).await.unwrap();
    connect(&alice, &bob).await;
    let put = outbox.put(NewEntry {
        key: None,
        recipient: to,
        message_type: late.message_type,
        payload: late.payload.clone(),
        options: dht_spool::EntryOptions {
            ttl_seconds: 60,
            ..dht_spool::EntryOptions::default()
        },
        created_at: UnixSeconds(SystemClock.now().0 - 100),
        frame: Some(frame),
    });
    let id = within(put).await.unwrap().id();
    let mut delivery = within(alice.delivery(id)).await.unwrap().unwrap();
    let ended = within(delivery.wait(StateKind::Received))
        .await
        .unwrap_err();
    assert_eq!(ended.state, SendState::Expired);
    post(&alice, &to, message("end"), direct_only()).await;
    assert_eq!(receive(&mut inbox).await.message, message("end"));
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

/// Whatever a caller is told of a message is in the outbox by then: a crash takes nothing back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_states_are_written() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let alice = at_home(1, homes[0].path()).await;
    let bob = at_home(2, homes[1].path()).await;
    connect(&alice, &bob).await;
    let outbox = alice.outbox().unwrap();
    let written = |delivery: &Delivery| outbox.get(delivery.id()).unwrap().unwrap();
    for at in 0..20 {
        let mut received = post(&alice, bob.public_key(), numbered(at, 100), direct_only()).await;
        within(received.wait(StateKind::Received)).await.unwrap();
        assert_eq!(written(&received).state, SendState::Received);
    }
    let nobody = secret(9).public_key();
    let posts = (0..20).map(|at| post(&alice, &nobody, numbered(at, 100), SendOptions::default()));
    for mut stored in join_all(posts).await {
        within(stored.wait(StateKind::Stored)).await.unwrap();
        assert_eq!(written(&stored).state.kind(), StateKind::Stored);
    }
    for at in 0..20 {
        let withdrawn = post(&alice, &nobody, numbered(at, 100), direct_only()).await;
        assert!(within(alice.withdraw(withdrawn.id())).await.unwrap());
        assert!(written(&withdrawn).ended_at.is_some());
        assert_eq!(written(&withdrawn).state, withdrawn.state());
    }
}

/// The caller still waits for room in the channel to the worker, and the message is listed already.
#[tokio::test]
async fn withdrawn_while_the_channel_is_full() {
    let builder = Node::builder(secret(1)).config(config(false));
    let alice = builder.memory_home(MemoryHome::default()).start();
    let alice = within(alice).await.unwrap();
    let nobody = secret(9).public_key();
    // On one thread the driver takes none before all are put.
    let sends = (0..200).map(|at| post(&alice, &nobody, numbered(at, 100), direct_only()));
    let withdrawing = async {
        let outbox = alice.outbox().unwrap();
        let last = outbox.list(EntryFilter::default(), None, 200).unwrap();
        let last = last.last().unwrap().id;
        (last, within(alice.withdraw(last)).await.unwrap())
    };
    let (deliveries, (last, is_withdrawn)) = tokio::join!(join_all(sends), withdrawing);
    assert!(is_withdrawn);
    let mut withdrawn = deliveries.into_iter().find(|it| it.id() == last).unwrap();
    within(withdrawn.wait(StateKind::Failed)).await.unwrap();
}

/// Three callers while the message waits for room in the channel: two at once, which share an answer, and one while the worker
/// reads the entry for them. Each is told, and who comes after the end withdraws nothing.
#[tokio::test]
async fn second_withdrawal_is_told() {
    let builder = Node::builder(secret(1)).config(config(false));
    let alice = builder.memory_home(MemoryHome::default()).start();
    let alice = within(alice).await.unwrap();
    let nobody = secret(9).public_key();
    let sends = (0..200).map(|at| post(&alice, &nobody, numbered(at, 100), direct_only()));
    let withdrawing = async {
        let outbox = alice.outbox().unwrap();
        let last = outbox.list(EntryFilter::default(), None, 200).unwrap();
        let last = last.last().unwrap().id;
        let later = async {
            tokio::task::yield_now().await;
            alice.withdraw(last).await
        };
        let all = async { tokio::join!(alice.withdraw(last), alice.withdraw(last), later) };
        (last, within(all).await)
    };
    let (_, (last, (first, second, later))) = tokio::join!(join_all(sends), withdrawing);
    let (first, second, later) = (first.unwrap(), second.unwrap(), later.unwrap());
    assert!(
        first == second && (first || later),
        "{first} {second} {later}"
    );
    assert!(!within(alice.withdraw(last)).await.unwrap());
}

/// The id is known before the message is taken out of its channel. On one thread, both are there when they are looked at.
#[tokio::test]
async fn withdrawn_right_after_the_send() {
    let alice = node(1).await;
    let nobody = secret(9).public_key();
    let mut delivery = post(&alice, &nobody, message("oops"), direct_only()).await;
    assert!(within(alice.withdraw(delivery.id())).await.unwrap());
    within(delivery.wait(StateKind::Failed)).await.unwrap();
}

/// A message whose end cannot be written down has ended nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unwritten_end_is_remembered() {
    let home = tempfile::tempdir().unwrap();
    let clock = clock();
    let builder = Node::builder(secret(1)).config(config(true));
    let builder = builder.home(home.path()).clock(Arc::clone(&clock) as _);
    let alice = within(builder.start()).await.unwrap();
    let nobody = secret(9).public_key();
    let options = || SendOptions {
        ttl_seconds: 60,
        ..direct_only()
    };
    let mut expiring = post(&alice, &nobody, message("expires"), options()).await;
    let mut withdrawn = post(&alice, &nobody, message("withdrawn"), options()).await;
    alice.outbox().unwrap().close();
    for _ in 0..2 {
        let unwritten = within(alice.withdraw(withdrawn.id())).await;
        assert_eq!(unwritten, Err(SpoolError::Closed));
    }
    within(withdrawn.wait(StateKind::Failed)).await.unwrap();
    clock.advance(61);
    within(expiring.wait(StateKind::Expired)).await.unwrap();
    for delivery in [withdrawn, expiring] {
        let again = within(alice.delivery(delivery.id())).await.unwrap();
        assert_eq!(again.unwrap().state(), delivery.state());
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sends_report_true_states() {
    const COUNT: u32 = 10_000;
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
