//! Nodes for the tests.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses another part"
)]

pub mod peer;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Address, AddressPolicy, Claim, Entropy, Features, ManualClock, Network, NodeId, NodeIdentity,
    PublicKey, SecretKey, SeededEntropy, Severity, test_util::NOW,
};
use dht_peers::{
    Ban, Directory, InboundFrame, NetGroup, PeerRecord, policy::Offence, test_util::BanLog,
};
use dht_stack::ByteBudget;
use dht_transport::{
    Builder, Config, ConnectionEvent, IdentityRules, InboundStream, Medium, Memory, Outlets, Tcp,
    Transport,
};
use tokio::{sync::mpsc, time::timeout};

pub const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// A running transport with everything it was made of.
pub struct Node {
    pub transport: Transport,
    pub outlets: Outlets,
    pub identity: Arc<NodeIdentity>,
    pub directory: Directory,
    pub bans: BanLog,
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
    pub user_agent: &'static str,
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
            user_agent: "test/1",
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
        self.start_from(|builder| builder.medium(medium)).await
    }

    /// With a resolver of its own.
    pub async fn start_looking_up(
        self,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Node {
        self.start_from(|builder| builder.lookup(lookup)).await
    }

    async fn start_from(self, extend: impl FnOnce(Builder) -> Builder) -> Node {
        let identity = identity(self.seed);
        let directory = Directory::new(*identity.node_id());
        let bans = BanLog::of(&directory);
        let budget = ByteBudget::with_reserve(self.budget, self.reserve);
        let builder = Transport::builder(
            Arc::clone(&identity),
            self.network,
            Arc::new(SeededEntropy::new(self.seed)),
            Arc::new(ManualClock::new(NOW)),
            budget.clone(),
        )
        .config(self.config)
        .directory(directory.clone());
        let mut builder = extend(builder)
            .medium(self.memory)
            .medium(Tcp)
            .user_agent(self.user_agent);
        if let Some((protocol, handler)) = self.serve {
            builder = builder.serve(protocol, handler);
        }
        let (transport, outlets) = builder.start().unwrap();
        let address = transport.listen(&self.listen).await.unwrap();
        Node {
            transport,
            outlets,
            identity,
            directory,
            bans,
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
        self.knows_at(other.key(), [other.address.clone()]);
    }

    /// Makes a peer known here, with these addresses.
    pub fn knows_at(&self, key: &PublicKey, addresses: impl IntoIterator<Item = Address>) {
        let record = PeerRecord::seed(*key, Features::NODE, addresses, NOW);
        self.directory.add_or_update(record, NOW);
    }

    /// Makes a peer heard of here, by its claim of these addresses.
    pub fn hears_of(&self, peer: &NodeIdentity, addresses: impl IntoIterator<Item = Address>) {
        let record = claimed(peer, addresses);
        self.directory.hear(record, &self.id(), NOW);
    }

    /// Makes a peer known here that has connected, and claims these addresses.
    pub fn has_met(&self, peer: &NodeIdentity, addresses: impl IntoIterator<Item = Address>) {
        let record = claimed(peer, addresses);
        self.directory.authenticated(record, NetGroup::Unknown, NOW);
    }

    /// Bans a peer here for an hour.
    pub fn ban(&self, key: &PublicKey) {
        let until = NOW.saturating_add(3_600);
        self.directory
            .ban(*key, until, Severity::High, "a test", NOW);
    }

    /// Offences that this node banned for since the last call, all by the holder of `key`.
    pub fn offences(&self, key: &PublicKey) -> Vec<Offence> {
        let bans = self.bans.take();
        let offence = |ban: &Arc<Ban>| {
            assert_eq!(ban.public_key, Some((*key).into()));
            ban.offence
        };
        bans.iter().filter_map(offence).collect()
    }

    pub async fn message(&mut self) -> InboundFrame {
        soon(self.outlets.messages.recv()).await.expect("a message")
    }

    pub async fn event(&mut self) -> ConnectionEvent {
        soon(self.outlets.events.recv()).await.expect("an event")
    }

    /// Waits for the next connection; other events in between are an error.
    pub async fn connected(&mut self) {
        let event = self.event().await;
        assert!(
            matches!(event, ConnectionEvent::Connected { .. }),
            "{event:?}"
        );
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

fn claimed(peer: &NodeIdentity, addresses: impl IntoIterator<Item = Address>) -> PeerRecord {
    let mut rng = SeededEntropy::new(1).rng();
    let addresses = addresses.into_iter().collect();
    let secret = peer.secret_key();
    let claim = Claim::sign(secret, addresses, Features::NODE, NOW, &mut rng);
    PeerRecord::from_claim(*peer.public_key(), Arc::new(claim), NOW)
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
