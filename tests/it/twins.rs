//! Warnings for the operator: of two processes that use one key, of peers that refuse this node or are refused, and of those that
//! are not reached.

use std::{io, sync::Arc, time::Duration};

use dht_core::{Clock as _, ManualClock, PeerAddress};
use dht_node::{Config, Node, SystemClock};
use parking_lot::Mutex;
use tracing_subscriber::{filter::LevelFilter, util::SubscriberInitExt as _};

use crate::net::{config, node, secret, within};

/// Text that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Lines that contain a text.
    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock())
            .matches(text)
            .count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Warnings of the nodes of this thread, as long as the guard lives.
fn logging() -> (Log, impl Sized) {
    let log = Log::default();
    let writer = log.clone();
    let logging = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish()
        .set_default();
    (log, logging)
}

/// Each dials the peer that it is configured with whenever the other has taken its place. At every look, which is each ten
/// seconds, that would be more than 700 connections in two hours.
#[tokio::test(start_paused = true)]
async fn two_processes_of_one_key_warn() {
    let (log, _logging) = logging();
    let peer = node(1).await;
    let twin = || {
        let twin = Node::builder(secret(2)).config(config(false));
        within(twin.peer(peer.peer_address()).start())
    };
    let _twins = (twin().await.unwrap(), twin().await.unwrap());
    let mut handshakes = Vec::new();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(60 * 60)).await;
        handshakes.push(peer.stats().handshakes);
    }
    let of_the_peer = log.count("two processes may use its key");
    let of_the_twins = log.count("another process may use the key of this node");
    assert!(of_the_peer >= 1, "{handshakes:?}");
    assert!(of_the_twins >= 2, "{of_the_twins}, {handshakes:?}");
    assert!(handshakes[1] < 60, "{handshakes:?}");
    assert!(handshakes[1] - handshakes[0] < 20, "{handshakes:?}");
}

/// The two know the third node as a seed only, and each other not at all.
#[tokio::test(start_paused = true)]
async fn twins_at_a_seed_warn() {
    let (log, _logging) = logging();
    let seed = node(1).await;
    let twin = || {
        let config = Config {
            seeds: vec![seed.peer_address()],
            ..config(false)
        };
        within(Node::builder(secret(2)).config(config).start())
    };
    let _twins = (twin().await.unwrap(), twin().await.unwrap());
    let mut seconds = 0;
    while log.count("another process may use the key of this node") < 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seconds += 1;
        assert!(seconds < 30 * 60, "no warning of both");
    }
    assert!(log.count("two processes may use its key") >= 1);
}

/// Each names the other as its peer.
#[tokio::test(start_paused = true)]
async fn peers_of_own_key_warn() {
    let (log, _logging) = logging();
    let first = node(2).await;
    let second = Node::builder(secret(2)).config(config(false));
    let _second = within(second.peer(first.peer_address()).start()).await;
    tokio::time::sleep(Duration::from_secs(60 * 60)).await;
    assert_eq!(log.count("two processes use one key"), 1);
    assert_eq!(log.count("WARN"), 1);
}

/// The clock of one node is two days ahead of that of its peer. Each tells its operator; the one that dials does so once.
#[tokio::test(start_paused = true)]
async fn refused_clocks_are_told() {
    let (log, _logging) = logging();
    let bob = node(1).await;
    let ahead = SystemClock.now().saturating_add(2 * 24 * 60 * 60);
    let alice = Node::builder(secret(2)).config(config(false));
    let alice = alice.clock(Arc::new(ManualClock::new(ahead)));
    let _alice = within(alice.peer(bob.peer_address()).start())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60 * 60)).await;
    assert!(log.count("clock is more than a day ahead of the clock of this node") >= 1);
    assert_eq!(log.count("or a clock is wrong by more than a day"), 1);
    assert_eq!(log.count("may use"), 0, "nobody uses a key twice");
}

/// Peers and seeds that do not answer are told of with address and cause, however often they are dialled.
#[tokio::test(start_paused = true)]
async fn unreached_peers_are_told_once() {
    let (log, _logging) = logging();
    let at = |seed: u8| -> PeerAddress {
        let key = secret(seed).public_key();
        format!("{key}::/ip4/127.0.0.1/tcp/{seed}").parse().unwrap()
    };
    let config = Config {
        seeds: vec![at(8)],
        peers: vec![at(9)],
        ..config(false)
    };
    let _node = within(Node::builder(secret(1)).config(config).start())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60 * 60)).await;
    for place in ["/ip4/127.0.0.1/tcp/8 ", "/ip4/127.0.0.1/tcp/9 "] {
        assert_eq!(log.count(place), 1);
    }
    assert_eq!(log.count("connection refused"), 2);
}
