//! States of messages and answers to withdrawals: a caller is told once they are written down.

use super::*;

/// The caller still waits for room in the channel to the worker, and the message is listed already.
#[tokio::test]
async fn withdrawn_while_the_channel_is_full() {
    let builder = Node::builder(secret(1)).config(config(false));
    let alice = builder.memory_home(MemoryHome::default()).start();
    let alice = within(alice).await.unwrap();
    let nobody = secret(9).public_key();
    // On one thread the worker takes none before all are put.
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

/// The application withdrew it while the recipient had it: told "withdrawn" for ever, it would send it again.
#[tokio::test]
async fn receipt_follows_the_withdrawal() {
    let (alice, bob) = (with_outbox(1).await, fixed_node(2).await);
    let mut inbox = bob.subscribe();
    connect(&alice, &bob).await;
    let text = message("wait, no");
    let mut delivery = post(&alice, bob.public_key(), text.clone(), direct_only()).await;
    within(delivery.wait(StateKind::Sent)).await.unwrap();
    // Its application has not taken it.
    assert!(within(alice.withdraw(delivery.id())).await.unwrap());
    assert_eq!(delivery.state().kind(), StateKind::Failed);
    assert_eq!(receive(&mut inbox).await.message, text);
    until(|| delivery.state() == SendState::Received).await;
    let entry = alice.outbox().unwrap().get(delivery.id()).unwrap().unwrap();
    assert_eq!(entry.state, SendState::Received);
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
