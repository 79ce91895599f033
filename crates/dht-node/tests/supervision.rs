//! A node tells of a part of it that has stopped.

use std::io;

use dht_core::{Address, Entropy as _, SecretKey, SeededEntropy};
use dht_node::{Config, Event, Node};
use dht_transport::{Accepted, Acceptor, BoxFuture, Medium, Socket};

/// A network whose listeners panic instead of accepting.
struct Fragile;

struct FragileAcceptor(Address);

impl Medium for Fragile {
    fn dial<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        let acceptor = FragileAcceptor(address.clone());
        Box::pin(async { Ok(Box::new(acceptor) as Box<dyn Acceptor>) })
    }

    fn serves(&self, _: &Address) -> bool {
        true
    }
}

impl Acceptor for FragileAcceptor {
    fn local_address(&self) -> Address {
        self.0.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        panic!("a test")
    }
}

#[tokio::test(start_paused = true)]
async fn failed_listener_fails_the_node() {
    let config = Config {
        listen: vec![Address::tcp([127, 0, 0, 1].into(), 18_189)],
        ..Config::default()
    };
    let secret = SecretKey::random(&mut SeededEntropy::new(1).rng());
    let node = Node::builder(secret).config(config).medium(Fragile);
    let node = node.start().await.unwrap();
    let mut events = node.events();
    // The listener is tried again a few times before it is given up.
    if node.failures().is_empty() {
        while !matches!(
            events.recv().await,
            Some(Event::Failed {
                part: "listener",
                ..
            })
        ) {}
    }
    let reason = node.failures().remove("listener");
    assert_eq!(reason.as_deref(), Some("its task panicked"));
    node.shutdown().await;
}
