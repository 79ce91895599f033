//! One node under more than it can carry: `cargo xtask load`, shortened to what no machine's speed decides.

use std::{collections::BTreeMap, sync::Arc};

use dht_core::{Clock as _, DropReason};
use dht_node::{Builder, Config, Node, Rate, RateLimits, SystemClock};
use dht_tests::load::{Kind, Peer, Probe, Traffic};
use tokio::task::JoinSet;

use crate::net::{
    Line, LineState, any_port, builder, clock, config, connect, fixed_node, is_connected, message,
    numbered, receive, secret, send, until, within,
};

fn small(seed: u8, memory_mib: usize) -> Builder {
    let config = Config {
        listen: vec![any_port()],
        memory_mib,
        ..Config::default()
    };
    Node::builder(secret(seed)).config(config)
}

async fn peer(seed: u64, node: &Node) -> (Peer, Traffic) {
    let peer = within(Peer::connect(seed, &node.peer_address(), drop))
        .await
        .unwrap();
    let expires = SystemClock.now().saturating_add(3_600);
    let secret = peer.identity().secret_key();
    let traffic = Traffic::new(seed, secret, node.public_key(), expires).unwrap();
    (peer, traffic)
}

/// Asks `count` control questions, one after the other; each is answered.
async fn is_answered(probe: &Probe, count: usize) {
    for _ in 0..count {
        let before = probe.answers().times.len();
        assert!(probe.ask().unwrap());
        until(|| probe.answers().times.len() > before).await;
    }
}

/// Six peers send mixed traffic as fast as the node takes it. Its memory stays within the budget, control messages are
/// answered, every message meets the fate of its kind, and in the end nothing is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_overload_stays_within_budget() {
    const PEERS: u64 = 6;
    const EACH: usize = 200;
    let busy = within(small(1, 2).start()).await.unwrap();
    let mut inbox = busy.subscribe();
    let mut application = JoinSet::new();
    application.spawn(async move { while inbox.recv().await.is_some() {} });
    let probe = within(Probe::connect(99, &busy.peer_address()))
        .await
        .unwrap();
    let mut senders = JoinSet::new();
    for seed in 0..PEERS {
        let (peer, mut traffic) = peer(seed + 1, &busy).await;
        senders.spawn(async move {
            traffic.prepare(EACH);
            let mut counts = BTreeMap::new();
            let mut waiting = std::collections::VecDeque::new();
            for _ in 0..EACH {
                let (kind, frame) = traffic.next_message();
                *counts.entry(kind).or_insert(0_u64) += 1;
                peer.send_when_possible(frame, &mut waiting).await.unwrap();
            }
            for delivery in waiting {
                delivery.await.unwrap();
            }
            // The connection stays: what is under way is received.
            (peer, counts)
        });
    }
    let mut sent = BTreeMap::<Kind, u64>::new();
    let mut peers = Vec::new();
    within(async {
        while let Some(done) = senders.join_next().await {
            let (peer, counts) = done.unwrap();
            peers.push(peer);
            for (kind, count) in counts {
                *sent.entry(kind).or_default() += count;
            }
            let stats = busy.stats();
            assert!(stats.memory_used_bytes <= stats.memory_limit_bytes);
            is_answered(&probe, 3).await;
        }
        let asked = u64::try_from(probe.answers().times.len()).unwrap();
        let all = PEERS * EACH as u64 + asked;
        until(|| busy.stats().messages_received >= all).await;
    })
    .await;

    let stats = busy.stats();
    let of = |kind| sent.get(&kind).copied().unwrap_or_default();
    let dropped = |reason| stats.drops.of(reason);
    assert_eq!(stats.delivered, of(Kind::Ours) + of(Kind::Clear));
    let relayed = stats.forwarded + stats.stored + dropped(DropReason::Overload);
    assert_eq!(relayed, of(Kind::Relay));
    assert_eq!(dropped(DropReason::Duplicate), of(Kind::Duplicate));
    let junk = dropped(DropReason::Undecodable) + dropped(DropReason::BadSignature);
    assert_eq!(junk, of(Kind::Junk));
    until(|| busy.stats().memory_used_bytes == 0).await;
    assert!(peers.iter().all(Peer::is_connected), "nobody was banned");
}

/// An application that reads nothing holds back those whose messages it does not read, and nobody else: a control
/// message is answered at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_application_delays_no_control_message() {
    let busy = within(small(1, 1).start()).await.unwrap();
    let _unread = busy.subscribe();
    let mut senders = JoinSet::new();
    for seed in 0..3 {
        let (peer, mut traffic) = peer(seed + 1, &busy).await;
        senders.spawn(async move {
            let mut waiting = std::collections::VecDeque::new();
            while peer
                .send_when_possible(traffic.next_message().1, &mut waiting)
                .await
                .is_ok()
            {}
        });
    }
    // Full for those that hold much.
    until(|| {
        let stats = busy.stats();
        stats.memory_used_bytes + 16 * 1024 > stats.memory_limit_bytes * 7 / 8
    })
    .await;
    let probe = within(Probe::connect(99, &busy.peer_address()))
        .await
        .unwrap();
    is_answered(&probe, 30).await;
    let stats = busy.stats();
    assert!(stats.memory_used_bytes <= stats.memory_limit_bytes);
    senders.shutdown().await;
}

/// A peer that stops reading cannot hold up anyone else: its queue fills, and the others get their messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreading_peer_holds_up_nobody_else() {
    const BYTES: usize = 50 * 1024;
    let (hub, deaf, well) = (
        fixed_node(1).await,
        fixed_node(2).await,
        fixed_node(3).await,
    );
    let line = Line::to(&deaf, LineState::Open).await;
    within(hub.connect(&line.peer_address(&deaf)))
        .await
        .unwrap();
    connect(&hub, &well).await;
    let (mut to_well, mut to_hub) = (well.subscribe(), hub.subscribe());
    line.set(LineState::Dead);

    // More than sockets, windows and one recipient's places hold: the rest waits, and is told.
    let hub = Arc::new(hub);
    let mut lost = JoinSet::new();
    let deaf_key = *deaf.public_key();
    for number in 0..700 {
        let hub = Arc::clone(&hub);
        lost.spawn(async move { send(&hub, &deaf_key, numbered(number, BYTES)).await });
    }
    for number in 0..50 {
        within(send(&hub, well.public_key(), numbered(number, 1_000)))
            .await
            .unwrap();
        receive(&mut to_well).await;
        within(send(&well, hub.public_key(), message("thanks")))
            .await
            .unwrap();
        receive(&mut to_hub).await;
    }
    assert!(hub.stats().queued_bytes <= 64 * 1024 * 1024);
    let told = async {
        while let Some(ended) = lost.join_next().await {
            if ended.unwrap().is_err() {
                return;
            }
        }
        panic!("all of them are called sent");
    };
    within(told).await;
    lost.shutdown().await;
}

/// A message that was seen before is a duplicate after a restart too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_known_after_restart() {
    let home = tempfile::tempdir().unwrap();
    let first = within(builder(1).home(home.path()).start()).await.unwrap();
    let mut inbox = first.subscribe();
    let (peer_before, mut traffic) = peer(5, &first).await;
    let (ours, clear) = loop {
        let (kind, frame) = traffic.next_message();
        if kind == Kind::Ours {
            break (frame, traffic.next_message().1);
        }
    };
    for frame in [&ours, &clear] {
        within(peer_before.send(frame.clone()).unwrap())
            .await
            .unwrap();
        receive(&mut inbox).await;
    }
    within(first.shutdown()).await;
    drop((first, peer_before));

    let second = within(builder(1).home(home.path()).start()).await.unwrap();
    let mut inbox = second.subscribe();
    let (peer_after, mut traffic) = peer(6, &second).await;
    for frame in [ours, clear] {
        within(peer_after.send(frame).unwrap()).await.unwrap();
    }
    until(|| second.stats().drops.of(DropReason::Duplicate) == 2).await;
    // One that is new shows that the node does deliver.
    let fresh = loop {
        let (kind, frame) = traffic.next_message();
        if kind == Kind::Clear {
            break frame;
        }
    };
    within(peer_after.send(fresh).unwrap()).await.unwrap();
    receive(&mut inbox).await;
    // Counted once the stack has said what became of it, which may be after the application has it.
    until(|| second.stats().delivered == 1).await;
}

/// Messages over a configured rate are dropped, and nobody is banned for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliverer_is_held_to_configured_rate() {
    let clock = clock();
    let application = Rate {
        per_second: 1,
        burst: 3,
    };
    let config = Config {
        rates: RateLimits {
            application,
            ..RateLimits::default()
        },
        ..config(false)
    };
    let strict = Node::builder(secret(1)).config(config);
    let strict = within(strict.clock(Arc::clone(&clock) as _).start())
        .await
        .unwrap();
    let eager = builder(2).clock(Arc::clone(&clock) as _);
    let eager = within(eager.start()).await.unwrap();
    connect(&eager, &strict).await;
    let mut inbox = strict.subscribe();
    let mut application = JoinSet::new();
    application.spawn(async move { while inbox.recv().await.is_some() {} });
    let send = async |n| {
        within(send(&eager, strict.public_key(), numbered(n, 8)))
            .await
            .unwrap();
    };
    let count = || {
        let stats = strict.stats();
        (stats.delivered, stats.drops.of(DropReason::Overload))
    };
    for n in 0..10 {
        send(n).await;
    }
    until(|| count() == (3, 7)).await;
    clock.advance(2);
    for n in 10..15 {
        send(n).await;
    }
    until(|| count() == (5, 10)).await;
    assert!(is_connected(&strict, &eager));
}
