//! Messages of an earlier life: of the sender, or of the recipient.

use super::*;

/// Messages called received were received; all others arrive when the recipient is back, which was dropped without a goodbye
/// and commits what is queued. `cargo xtask crash --chain` kills recipients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_recipient_under_traffic_loses_nothing() {
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
