//! Messages for offline nodes, over real connections.

use std::path::Path;

use dht_core::PublicKey;
use dht_node::{
    Builder, Config, Delivery, Message, Node, SafConfig, SafEvent, SendOptions, SendState,
    StateKind,
};

use crate::net::{
    any_port, config, connect, each_once, fixed_config, message, nothing_more, numbered, receive,
    receive_numbers, secret, until, within,
};

/// A node to be, with every default.
fn builder(seed: u8) -> Builder {
    Node::builder(secret(seed)).config(config(true))
}

/// A running node without files.
async fn node(seed: u8) -> Node {
    within(builder(seed).start()).await.unwrap()
}

/// A node that keeps its files here.
async fn at_home(seed: u8, home: &Path) -> Node {
    within(builder(seed).home(home).start()).await.unwrap()
}

/// Says goodbye and waits until the other side has noticed.
async fn leave(node: Node, from: &Node) {
    let key = *node.public_key();
    within(node.shutdown()).await;
    drop(node);
    until(|| from.peers().iter().all(|peer| peer.public_key != key)).await;
}

/// Gives a message to the outbox.
async fn post(from: &Node, to: &PublicKey, message: Message) -> Delivery {
    let options = SendOptions::default();
    within(from.send(to, message, options)).await.unwrap()
}

/// Sends a message to an absent recipient and waits until a holder has it.
async fn send_stored(from: &Node, to: &PublicKey, message: Message) {
    let options = SendOptions {
        replicas: Some(1),
        ..SendOptions::default()
    };
    let sent = within(from.send(to, message, options)).await;
    let mut delivery = sent.unwrap();
    let state = within(delivery.wait(StateKind::Stored)).await.unwrap();
    assert_eq!(state, SendState::Stored { holders: 1 });
}

/// Messages stored for an offline peer arrive once when it returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b124_stored_message_arrives_once() {
    let home = tempfile::tempdir().unwrap();
    // One holder, and nobody else to ask.
    let fixed = |seed| Node::builder(secret(seed)).config(fixed_config(true));
    let [alice, bob] = [1, 2].map(|seed| within(fixed(seed).start()));
    let (alice, bob) = (alice.await.unwrap(), bob.await.unwrap());
    let at_home = || within(fixed(3).home(home.path()).start());
    connect(&alice, &bob).await;
    let carol = at_home().await.unwrap();
    let to = *carol.public_key();
    connect(&carol, &bob).await;
    leave(carol, &bob).await;

    for payload in ["first", "second"] {
        send_stored(&alice, &to, message(payload)).await;
    }
    assert_eq!(bob.saf_stats().unwrap().rows, 2);

    let carol = at_home().await.unwrap();
    let mut events = carol.saf_events().unwrap();
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    let mut payloads = Vec::new();
    for _ in 0..2 {
        let received = receive(&mut inbox).await;
        assert_eq!(received.sender, Some(*alice.public_key()));
        assert_eq!(received.via, bob.public_key().node_id());
        payloads.push(received.message);
    }
    payloads.sort_by_key(|message| message.payload.clone());
    assert_eq!(payloads, [message("first"), message("second")]);
    let (mut came, mut caught_up) = (false, None);
    while !came || caught_up.is_none() {
        match within(events.recv()).await.unwrap() {
            SafEvent::Received => came = true,
            SafEvent::CaughtUp(round) => caught_up = Some(round),
            _ => {}
        }
    }
    let round = caught_up.unwrap();
    assert_eq!((round.asked, round.answered, round.new), (1, 1, 2));
    nothing_more(&carol, &mut inbox).await;

    // In the next life it is not handed over again, whoever asks.
    leave(carol, &bob).await;
    let carol = at_home().await.unwrap();
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    let round = within(carol.fetch_stored()).await.unwrap();
    assert_eq!(round.new, 0, "{round:?}");
    nothing_more(&carol, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_one_second_arrive_once() {
    const MESSAGES: u32 = 230;
    let alice = node(1).await;
    // A mailbox has a tenth of the store, that is 2.4 MiB: 230 frames of 6 kB fit.
    let bob = Node::builder(secret(2)).config(Config {
        memory_mib: 1_024,
        ..config(true)
    });
    let bob = within(bob.start()).await.unwrap();
    connect(&alice, &bob).await;
    let to = secret(3).public_key();
    let sends = (0..MESSAGES).map(|number| send_stored(&alice, &to, numbered(number, 300)));
    futures::future::join_all(sends).await;
    let carol = node(3).await;
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    let times = receive_numbers(&mut inbox, MESSAGES).await;
    assert_eq!(times, each_once(MESSAGES));
    nothing_more(&carol, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sender_learns_state_of_its_message() {
    let alice = node(1).await;
    let to = secret(9).public_key();
    let mut delivery = post(&alice, &to, message("anybody?")).await;
    until(|| delivery.last_error().is_some()).await;
    assert_eq!(delivery.state(), SendState::Queued);
    assert!(alice.withdraw(delivery.id()).await.unwrap());
    let reason = "withdrawn".to_owned();
    let failed = within(delivery.next()).await;
    assert_eq!(failed, Some(SendState::Failed { reason }));
    assert_eq!(within(delivery.next()).await, None);

    // One stores messages, the other does not: as a stock peer, it offers no receipts.
    let bob = node(2).await;
    let config = Config {
        listen: vec![any_port()],
        saf: SafConfig {
            enabled: false,
            ..SafConfig::default()
        },
        ..Config::default()
    };
    let stock = Node::builder(secret(3)).config(config);
    let stock = within(stock.start()).await.unwrap();
    connect(&alice, &bob).await;
    connect(&alice, &stock).await;
    let mut delivery = post(&alice, &to, message("keep this")).await;
    assert_eq!(delivery.state(), SendState::Queued);
    let mut last = StateKind::Queued;
    loop {
        let state = within(delivery.next()).await.unwrap();
        assert!(state.kind() >= last, "{last:?} then {state:?}");
        last = state.kind();
        if state == (SendState::Stored { holders: 1 }) {
            break;
        }
    }
    // More holders are looked for; the one delivers it, whatever the sender does.
    assert!(!alice.withdraw(delivery.id()).await.unwrap());
    assert_eq!(delivery.state(), SendState::Stored { holders: 1 });

    // To a peer that is there, it goes directly, and nobody keeps it.
    let mut inbox = bob.subscribe();
    let mut delivery = post(&alice, bob.public_key(), message("here")).await;
    assert_eq!(receive(&mut inbox).await.message, message("here"));
    within(delivery.wait(StateKind::Received)).await.unwrap();
    assert_eq!(stock.saf_stats(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_holder_still_has_messages() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (node(1).await, at_home(2, home.path()).await);
    connect(&alice, &bob).await;
    let to = secret(3).public_key();
    send_stored(&alice, &to, message("through a restart")).await;
    leave(bob, &alice).await;

    let bob = at_home(2, home.path()).await;
    assert_eq!(bob.saf_stats().unwrap().rows, 1);
    // A second node with this home is told what is wrong.
    let second = within(builder(4).home(home.path()).start()).await;
    let error = second.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains("another --home"), "{error}; {hint}");
    let carol = node(3).await;
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    let received = receive(&mut inbox).await;
    assert_eq!(received.message, message("through a restart"));
    assert_eq!(received.sender, Some(*alice.public_key()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_until_the_application_listens() {
    let (alice, bob) = (node(1).await, node(2).await);
    connect(&alice, &bob).await;
    let to = secret(3).public_key();
    send_stored(&alice, &to, message("patience")).await;
    let carol = node(3).await;
    connect(&carol, &bob).await;
    // Nobody would get it yet, so it has not been asked for.
    assert_eq!(within(carol.caught_up()).await, Ok(None));
    let mut inbox = carol.subscribe();
    assert_eq!(receive(&mut inbox).await.message, message("patience"));
}
