//! Nodes for the tests.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses another part"
)]

pub mod peer;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Address, AddressPolicy, Entropy, Features, ManualClock, Network, NodeId, NodeIdentity,
    PublicKey, SecretKey, SeededEntropy, test_util::NOW,
};
use dht_stack::ByteBudget;
use dht_transport::{
    AddressBook, Config, DialFailure, Event, IdentityRules, InboundMessage, InboundStream, Medium,
    Memory, Outlets, Tcp, Transport,
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};

pub const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// A directory the test fills.
#[derive(Default)]
pub struct Book {
    pub peers: Mutex<HashMap<NodeId, (PublicKey, Vec<Address>)>>,
    pub banned: Mutex<Vec<PublicKey>>,
    pub dials: Mutex<Vec<(Address, Result<Duration, DialFailure>)>>,
}

impl AddressBook for Book {
    fn lookup(&self, peer: &NodeId) -> Option<(PublicKey, Vec<Address>)> {
        self.peers.lock().get(peer).cloned()
    }

    fn is_banned(&self, key: &PublicKey) -> bool {
        self.banned.lock().contains(key)
    }

    fn record_dial(&self, _: &NodeId, address: &Address, outcome: Result<Duration, DialFailure>) {
        self.dials.lock().push((address.clone(), outcome));
    }
}

/// A running transport with everything it was made of.
pub struct Node {
    pub transport: Transport,
    pub outlets: Outlets,
    pub identity: Arc<NodeIdentity>,
    pub book: Arc<Book>,
    pub budget: ByteBudget,
    pub address: Address,
}

pub struct Setup {
    pub seed: u64,
    pub memory: Memory,
    pub config: Config,
    pub listen: Address,
    pub budget: usize,
    /// Of the budget.
    pub reserve: usize,
    pub network: Network,
    pub serve: Option<(Bytes, mpsc::Sender<InboundStream>)>,
}

pub fn identity(seed: u64) -> Arc<NodeIdentity> {
    let mut rng = SeededEntropy::new(seed).rng();
    let address = Address::memory(seed.max(1));
    let secret = SecretKey::random(&mut rng);
    Arc::new(NodeIdentity::new(
        secret,
        Features::NODE,
        vec![address],
        NOW,
        &mut rng,
    ))
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.identity = IdentityRules {
        version: 0,
        addresses: AddressPolicy { allow_test: true },
    };
    config
}

impl Setup {
    pub fn memory(seed: u64, memory: &Memory) -> Self {
        Self {
            seed,
            memory: memory.clone(),
            config: config(),
            listen: Address::memory(0),
            budget: BUDGET_BYTES,
            reserve: 0,
            network: Network::LocalNet,
            serve: None,
        }
    }

    pub fn tcp(seed: u64) -> Self {
        Self {
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            ..Self::memory(seed, &Memory::default())
        }
    }

    pub async fn start(self) -> Node {
        let memory = self.memory.clone();
        self.start_with(memory).await
    }

    /// With another medium in front of the usual ones.
    pub async fn start_with(self, medium: impl Medium) -> Node {
        let identity = identity(self.seed);
        let book = Arc::<Book>::default();
        let budget = ByteBudget::with_reserve(self.budget, self.reserve);
        let mut builder = Transport::builder(
            Arc::clone(&identity),
            self.network,
            Arc::new(SeededEntropy::new(self.seed)),
            Arc::new(ManualClock::new(NOW)),
            budget.clone(),
        )
        .config(self.config)
        .book(book.clone())
        .medium(medium)
        .medium(self.memory)
        .medium(Tcp)
        .user_agent("test/1");
        if let Some((protocol, handler)) = self.serve {
            builder = builder.serve(protocol, handler);
        }
        let (transport, outlets) = builder.start().unwrap();
        let address = transport.listen(&self.listen).await.unwrap();
        Node {
            transport,
            outlets,
            identity,
            book,
            budget,
            address,
        }
    }
}

impl Node {
    pub async fn memory(seed: u64, memory: &Memory) -> Self {
        Setup::memory(seed, memory).start().await
    }

    pub fn id(&self) -> NodeId {
        *self.identity.node_id()
    }

    pub fn key(&self) -> &PublicKey {
        self.identity.public_key()
    }

    /// Makes `other` known here.
    pub fn knows(&self, other: &Self) {
        let record = (*other.key(), vec![other.address.clone()]);
        self.book.peers.lock().insert(other.id(), record);
    }

    pub async fn message(&mut self) -> InboundMessage {
        soon(self.outlets.messages.recv()).await.expect("a message")
    }

    pub async fn event(&mut self) -> Event {
        soon(self.outlets.events.recv()).await.expect("an event")
    }

    /// Waits for the next connection; other events in between are an error.
    pub async fn connected(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, Event::Connected { .. }), "{event:?}");
    }

    /// Waits until nothing runs but `tasks` tasks.
    pub async fn settles_to(&self, tasks: usize) {
        let settled = async {
            while self.transport.stats().tasks > tasks {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), settled)
            .await
            .unwrap_or_else(|_| panic!("tasks remain: {:?}", self.transport.stats()));
    }
}

/// A generous limit, so that a hang fails and a slow machine does not.
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("within a minute")
}

pub fn body(byte: u8, length: usize) -> Bytes {
    vec![byte; length].into()
}
