//! Two processes use one key: both sides warn, and their connections do not alternate for ever.

use std::{io, sync::Arc, time::Duration};

use dht_node::Node;
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

/// Each dials the peer that it is configured with whenever the other has taken its place. At every look, which is each ten
/// seconds, that would be more than 700 connections in two hours.
#[tokio::test(start_paused = true)]
async fn two_processes_of_one_key_warn() {
    let log = Log::default();
    let writer = log.clone();
    let _logging = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_writer(move || writer.clone())
        .finish()
        .set_default();
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
