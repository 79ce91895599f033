//! A message for a node is received once its application, or its durable inbox, has it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use dht_core::{
    Address, Clock as _, Destination, ManualClock, PeerAddress, PublicKey, UnixSeconds,
};
use dht_node::{Acceptance, Builder, Event, Node, SafEvent, SendOptions, SendState, StateKind};
use dht_spool::{DEFAULT_CONSUMER, Limit};
use tokio::{
    io::{AsyncReadExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::{broadcast::error::TryRecvError, watch},
    task::JoinSet,
    time::timeout,
};

use crate::net::{
    Line, LineState, clock, config, connect, each_once, fixed_config, fixed_node, message,
    nothing_more, number, numbered, receive, receive_numbers, secret, send, socket_address, until,
    within,
};

/// A node to be, which asks whoever connects for stored messages, and is connected to those only that the test connects it to.
fn builder(seed: u8) -> Builder {
    Node::builder(secret(seed)).config(fixed_config(true))
}

async fn node(seed: u8) -> Node {
    within(builder(seed).start()).await.unwrap()
}

async fn at_home(seed: u8, home: &Path) -> Node {
    within(builder(seed).home(home).start()).await.unwrap()
}

/// Ends a node in order, and waits until its peer has noticed.
async fn leave(node: Node, from: &Node) {
    let key = *node.public_key();
    within(node.shutdown()).await;
    drop(node);
    until(|| from.peers().iter().all(|peer| peer.public_key != key)).await;
}

/// A holder with `count` numbered messages of a sender for a node that is away.
async fn holder_with(count: u32, to: &PublicKey) -> (Node, Node) {
    let mut settings = config(true);
    // Room for all of them in one mailbox, from one deliverer.
    (settings.saf.mailbox_percent, settings.saf.deliverer_percent) = (100, 100);
    let bob = Node::builder(secret(2)).config(settings);
    let (alice, bob) = (node(1).await, within(bob.start()).await.unwrap());
    connect(&alice, &bob).await;
    store(&alice, to, 0..count).await;
    assert_eq!(bob.saf_stats().unwrap().rows, u64::from(count));
    (alice, bob)
}

/// Sends numbered messages that the connected holder stores.
async fn store(from: &Node, to: &PublicKey, numbers: std::ops::Range<u32>) {
    let sends = numbers.map(|number| async move {
        let options = SendOptions {
            replicas: Some(1),
            ..SendOptions::default()
        };
        let sent = within(from.send(to, numbered(number, 100), options)).await;
        let state = within(sent.unwrap().wait(StateKind::Stored)).await;
        assert_eq!(state, Ok(SendState::Stored { holders: 1 }));
    });
    futures::future::join_all(sends).await;
}

/// Makes a node known that is at no address, and so is not searched for.
fn nobody_listens(here: &Node, to: &PublicKey) {
    here.add_peer(&PeerAddress {
        public_key: *to,
        addresses: vec![Address::tcp(Ipv4Addr::LOCALHOST.into(), 1)],
    });
}

/// The numbers in the inbox.
pub(crate) fn held(node: &Node) -> Vec<u32> {
    let limit = Limit {
        rows: 10_000,
        ..Limit::default()
    };
    let rows = node.inbox().unwrap().read(DEFAULT_CONSUMER, None, limit);
    let payloads = rows.unwrap().into_iter().map(|row| row.message.payload);
    payloads
        .map(|payload| u32::from_be_bytes(payload[..4].try_into().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_unread_of_five_remain() {
    let home = tempfile::tempdir().unwrap();
    let to = secret(3).public_key();
    let (_alice, bob) = holder_with(5, &to).await;
    let carol = at_home(3, home.path()).await;
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    let mut numbers = BTreeSet::from([number(&receive(&mut inbox).await)]);
    drop(inbox);
    leave(carol, &bob).await;

    let carol = at_home(3, home.path()).await;
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    for _ in 0..4 {
        assert!(numbers.insert(number(&receive(&mut inbox).await)));
    }
    nothing_more(&carol, &mut inbox).await;
}

/// A node that nobody reads fetches into its inbox; what is there survives its lives, and comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_messages_outlive_three_lives() {
    const COUNT: u32 = 600;
    let home = tempfile::tempdir().unwrap();
    let to = secret(3).public_key();
    let (_alice, bob) = holder_with(COUNT, &to).await;
    for life in 0..3 {
        let carol = at_home(3, home.path()).await;
        // In the first life, the node ends in the middle; a subscription is dropped unread.
        drop(carol.subscribe());
        connect(&carol, &bob).await;
        let least = if life == 0 { 50 } else { COUNT as usize };
        until(|| held(&carol).len() >= least).await;
        leave(carol, &bob).await;
    }
    let carol = at_home(3, home.path()).await;
    let mut inbox = carol.subscribe();
    assert_eq!(receive_numbers(&mut inbox, COUNT).await, each_once(COUNT));
    connect(&carol, &bob).await;
    nothing_more(&carol, &mut inbox).await;
    inbox.ack().await;
    assert_eq!(carol.inbox().unwrap().stats().rows, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_messages_come_without_a_home() {
    let to = secret(3).public_key();
    let (_alice, bob) = holder_with(5, &to).await;
    let carol = node(3).await;
    connect(&carol, &bob).await;
    // Subscribed and dropped, before and while messages come.
    drop(carol.subscribe());
    let mut early = carol.subscribe();
    within(early.recv()).await.unwrap();
    drop(early);
    let mut inbox = carol.subscribe();
    assert_eq!(receive_numbers(&mut inbox, 5).await, each_once(5));
    nothing_more(&carol, &mut inbox).await;
}

/// A direct copy that nobody took does not stand in the way of the stored one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_copy_is_delivered_later() {
    let home = tempfile::tempdir().unwrap();
    let (alice, carol) = (node(1).await, at_home(3, home.path()).await);
    connect(&alice, &carol).await;
    // Live, into the inbox, while nobody reads.
    within(send(&alice, carol.public_key(), numbered(7, 100)))
        .await
        .unwrap();
    until(|| held(&carol) == [7]).await;
    assert_eq!(carol.stats().dropped, 0);

    // Without a home it is refused. The holder keeps it from the time at which Dave does not answer any more.
    let (bob, dave) = (node(2).await, node(4).await);
    let to = dave.public_key();
    let refused = || dave.stats().drops.of(dht_core::DropReason::NobodyListens);
    connect(&alice, &bob).await;
    let line = Line::to(&dave, LineState::Open).await;
    let address = line.peer_address(&dave);
    within(alice.connect(&address)).await.unwrap();
    let sent = within(alice.send(to, message("kept"), SendOptions::default())).await;
    let mut kept = sent.unwrap();
    // The next attempt brings this one, or the one that begins when Dave appears.
    within(send(&alice, to, message("again"))).await.unwrap();
    until(|| refused() == 2).await;
    assert_eq!(dave.stats().delivered, 0);
    drop(line);
    let state = within(kept.wait(StateKind::Stored)).await;
    // Bob and Carol are asked at one time, and the state is the latest.
    let is_held = |state| matches!(state, Ok(SendState::Stored { holders: 1..=2 }));
    assert!(is_held(state));

    let mut inbox = dave.subscribe();
    connect(&dave, &bob).await;
    assert_eq!(receive(&mut inbox).await.message, message("kept"));
    connect(&dave, &alice).await;
    assert_eq!(receive(&mut inbox).await.message, message("again"));
    nothing_more(&dave, &mut inbox).await;
}

/// The inbox is closed under a running node, as when its writer has died: what comes is refused, an event tells, and
/// the holder keeps it for the next life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_inbox_refuses_and_reports() {
    let home = tempfile::tempdir().unwrap();
    let to = secret(3).public_key();
    let (_alice, bob) = holder_with(3, &to).await;
    let carol = at_home(3, home.path()).await;
    let mut events = carol.events();
    carol.inbox().unwrap().close();
    connect(&carol, &bob).await;
    let refused = async {
        while let Some(event) = events.recv().await {
            if matches!(event, Event::InboxRefused(_)) {
                return;
            }
        }
        panic!("the node is gone");
    };
    within(refused).await;
    leave(carol, &bob).await;
    assert_eq!(bob.saf_stats().unwrap().rows, 3);

    let carol = at_home(3, home.path()).await;
    connect(&carol, &bob).await;
    until(|| held(&carol).len() == 3).await;
}

/// Fetches that overlap and are given up by their callers hold nothing up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_cancelled_fetches_lose_nothing() {
    const COUNT: u32 = 120;
    let home = tempfile::tempdir().unwrap();
    let to = secret(3).public_key();
    let (_alice, bob) = holder_with(COUNT, &to).await;
    let carol = at_home(3, home.path()).await;
    let mut events = carol.saf_events().unwrap();
    connect(&carol, &bob).await;
    for _ in 0..50 {
        let _cancelled = timeout(Duration::from_millis(1), carol.fetch_stored()).await;
    }
    until(|| held(&carol).len() == COUNT as usize).await;
    within(carol.caught_up()).await.unwrap();
    let numbers: BTreeSet<_> = held(&carol).into_iter().collect();
    assert_eq!(numbers, (0..COUNT).collect());
    // Each request that is waited for in vain holds the next ones up for half a minute, and counts as silent.
    loop {
        match events.try_recv() {
            Ok(SafEvent::CaughtUp(summary)) => assert_eq!(summary.silent, 0, "{summary:?}"),
            Ok(_) => {}
            Err(TryRecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A socket address that leads to a node, and the number of connections over it that have ended. The first ones break once
/// they have carried so many bytes from the node.
async fn breaking(
    to: &Node,
    breaks: usize,
    bytes: usize,
) -> (SocketAddr, watch::Receiver<usize>, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, target) = (listener.local_addr().unwrap(), socket_address(to));
    let (ended, broken) = watch::channel(0);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut carried = JoinSet::new();
        for at in 0.. {
            let (near, _) = listener.accept().await.unwrap();
            let ended = ended.clone();
            carried.spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let ((mut near_read, mut near_write), (far_read, mut far_write)) =
                    (near.into_split(), far.into_split());
                let most = if at < breaks { bytes as u64 } else { u64::MAX };
                let mut far_read = far_read.take(most);
                tokio::select! {
                    _ended = copy(&mut near_read, &mut far_write) => {}
                    _broken = copy(&mut far_read, &mut near_write) => {}
                }
                ended.send_modify(|ended| *ended += 1);
            });
        }
    });
    (address, broken, tasks)
}

/// Connections break in the middle of a page, again and again: every row arrives in the end, also those of earlier seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_survive_breaking_sockets() {
    const COUNT: u32 = 120;
    const BREAKS: usize = 6;
    let to = secret(3).public_key();
    // Requesters as stock ones, which reach back by nothing, and ours.
    for (page, margin) in [(20, 0), (50, 0), (20, 30), (50, 30)] {
        let clock = clock();
        let home = tempfile::tempdir().unwrap();
        let node = |seed, clock| {
            let mut settings = config(true);
            if seed == 3 {
                // Found over the line only.
                settings.listen.clear();
            }
            let saf = &mut settings.saf;
            (saf.mailbox_percent, saf.deliverer_percent) = (100, 100);
            (saf.max_returned, saf.margin_seconds) = (page, margin);
            let builder = Node::builder(secret(seed)).config(settings);
            builder.clock(clock)
        };
        let alice = within(node(1, clock.clone()).start()).await.unwrap();
        let bob = within(node(2, clock.clone()).start()).await.unwrap();
        connect(&alice, &bob).await;
        nobody_listens(&alice, &to);
        for first in (0..COUNT).step_by(20) {
            store(&alice, &to, first..first + 20).await;
            clock.advance(60);
        }
        let (address, mut broken, _carrying) = breaking(&bob, BREAKS, 60_000).await;
        let line = PeerAddress {
            public_key: *bob.public_key(),
            addresses: vec![Address::tcp(address.ip(), address.port())],
        };
        let carol = node(3, clock.clone()).home(home.path());
        let carol = within(carol.start()).await.unwrap();
        // A connection that has just broken may still be taken for open, on either side, and a response be lost in it: time
        // passes, and Carol asks again.
        let again = Duration::from_millis(50);
        let reading = async {
            while *broken.borrow() < BREAKS || held(&carol).len() < COUNT as usize {
                carol.connect(&line).await.unwrap();
                let _not_yet = timeout(again, broken.changed()).await;
                let _cancelled = timeout(again, carol.fetch_stored()).await;
                clock.advance(1);
            }
        };
        within(reading).await;
        let numbers: BTreeSet<_> = held(&carol).into_iter().collect();
        assert_eq!(numbers, (0..COUNT).collect(), "{page}, {margin}");
    }
}

/// The clock of the holder is set back by ten minutes between two fetches: what it stores then is older than what was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_clock_set_back_loses_nothing() {
    const HALF: u32 = 50;
    let to = secret(3).public_key();
    // Requesters as stock ones, which reach back by nothing, and ours.
    for margin in [0, 30] {
        let (holders, others) = (clock(), clock());
        let home = tempfile::tempdir().unwrap();
        let node = |seed, clock: &Arc<ManualClock>| {
            let mut settings = config(true);
            let saf = &mut settings.saf;
            (saf.mailbox_percent, saf.deliverer_percent) = (100, 100);
            (saf.max_returned, saf.margin_seconds) = (20, margin);
            let builder = Node::builder(secret(seed)).config(settings);
            builder.clock(Arc::clone(clock) as _)
        };
        let alice = within(node(1, &others).start()).await.unwrap();
        let bob = within(node(2, &holders).start()).await.unwrap();
        connect(&alice, &bob).await;
        nobody_listens(&alice, &to);
        for (from, least) in [(0, HALF), (HALF, 2 * HALF)] {
            store(&alice, &to, from..from + HALF).await;
            let carol = node(3, &others).home(home.path());
            let carol = within(carol.start()).await.unwrap();
            connect(&carol, &bob).await;
            until(|| held(&carol).len() >= least as usize).await;
            leave(carol, &bob).await;
            holders.set(UnixSeconds(holders.now().0 - 600));
        }
        let carol = within(node(3, &others).home(home.path()).start()).await;
        let mut inbox = carol.unwrap().subscribe();
        let times = receive_numbers(&mut inbox, 2 * HALF).await;
        assert_eq!(times, each_once(2 * HALF), "{margin}");
    }
}

/// Messages that do not fit stay with the holder, unconfirmed, and come once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_inbox_takes_rest_later() {
    let home = tempfile::tempdir().unwrap();
    let to = secret(3).public_key();
    let (_alice, bob) = holder_with(15, &to).await;
    let clock = clock();
    let mut settings = config(true);
    // Of which the share of one sender is ten.
    settings.inbox.max_rows = 28;
    let carol = Node::builder(secret(3)).config(settings);
    let carol = carol.home(home.path()).clock(Arc::clone(&clock) as _);
    let carol = within(carol.start()).await.unwrap();
    let mut events = carol.events();
    connect(&carol, &bob).await;
    let summary = async {
        loop {
            if let Some(Event::Saf(SafEvent::CaughtUp(summary))) = events.recv().await {
                return summary;
            }
        }
    };
    let summary = within(summary).await;
    assert_eq!((summary.new, summary.left), (10, 5));
    assert!(carol.inbox().unwrap().stats().over_share >= 5);
    assert_eq!(
        bob.saf_stats().unwrap().rows,
        15,
        "nothing is proven received"
    );

    let mut inbox = carol.subscribe();
    assert_eq!(receive_numbers(&mut inbox, 10).await.len(), 10);
    clock.advance(10);
    let mut rest = receive_numbers(&mut inbox, 5).await;
    rest.retain(|_, times| *times == 1);
    assert_eq!(rest.len(), 5);
    nothing_more(&carol, &mut inbox).await;
}

/// A node whose inbox is full passes gossip on, and stores messages for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_inbox_serves_others() {
    let home = tempfile::tempdir().unwrap();
    let mut settings = fixed_config(false);
    settings.inbox.max_rows = 1;
    let carol = Node::builder(secret(3)).config(settings).home(home.path());
    let carol = carol
        .gossip_validator(|_| std::future::ready(Acceptance::Accept))
        .relay_gossip(true);
    let carol = within(carol.start()).await.unwrap();
    let (alice, bob) = (fixed_node(1).await, fixed_node(2).await);
    connect(&alice, &carol).await;
    connect(&carol, &bob).await;
    let stats = || carol.inbox().unwrap().stats();
    for at in 0..2 {
        let options = SendOptions {
            direct_only: true,
            ..SendOptions::default()
        };
        let sent = alice.send(carol.public_key(), numbered(at, 100), options);
        within(sent).await.unwrap();
    }
    until(|| stats().full).await;
    let refused = stats().refused;

    let mut inbox = bob.subscribe();
    let gossip = alice.propagate(Destination::Unknown, message("gossip"), vec![]);
    within(gossip).await.unwrap();
    let passed_on = receive(&mut inbox).await;
    assert_eq!(passed_on.message, message("gossip"));
    assert_eq!(passed_on.via, carol.public_key().node_id());
    let nobody = secret(4).public_key();
    nobody_listens(&alice, &nobody);
    store(&alice, &nobody, 0..1).await;
    assert_eq!(carol.saf_stats().unwrap().rows, 1);
    until(|| stats().refused > refused).await;
    assert!(stats().full && stats().rows == 1);
}
