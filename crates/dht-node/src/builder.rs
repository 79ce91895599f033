//! Builds a node from settings.

use std::{fmt, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use dht_core::{
    Address, Claim, Features, Network, OsEntropy, PeerAddress, SecretKey, SharedClock,
    SharedEntropy, SystemClock,
};
use dht_inbound::{Acceptance, DEFAULT_VALIDATION_DEADLINE, GossipValidator};
use dht_peers::policy::AttributionProfile;
use dht_spool::SpoolError;
use dht_transport::{IdentityError, Medium};

use crate::{
    config::Config,
    config_error::ConfigError,
    home::{Home, MemoryHome},
    interfaces::Interfaces,
    node::Node,
    received::Received,
    validator::AppValidator,
};

/// Looks up the IP addresses of a host name.
pub(crate) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Builds a [`Node`]. By default it is a full node of the local network that listens nowhere and only dials.
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    pub(crate) secret: SecretKey,
    pub(crate) features: Features,
    /// Presented instead of a new one.
    pub(crate) claim: Option<Claim>,
    pub(crate) config: Config,
    pub(crate) home: Option<Home>,
    pub(crate) reproducible: bool,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: SharedEntropy,
    /// Instead of TCP, if there is one.
    pub(crate) media: Vec<Arc<dyn Medium>>,
    /// Instead of the operating system's resolver.
    pub(crate) lookup: Option<Lookup>,
    /// Not read if there is none.
    pub(crate) interfaces: Option<Interfaces>,
    pub(crate) validator: Option<Arc<dyn GossipValidator>>,
    pub(crate) validation_deadline: Duration,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address that was configured.
        address: Address,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The store of messages for offline peers cannot be opened.
    #[cfg(feature = "saf")]
    #[error("cannot open the stored messages in {path}")]
    Store {
        /// Folder of the store; empty for a store in memory.
        path: PathBuf,
        /// Error of the store.
        source: dht_mailbox::StoreError,
    },
    /// The durable inbox cannot be opened.
    #[cfg(feature = "spool")]
    #[error("cannot open the inbox {path}")]
    Inbox {
        /// File of the inbox.
        path: PathBuf,
        /// Error of the inbox.
        source: SpoolError,
    },
    /// The outbox cannot be opened.
    #[error("cannot open the outbox in {path}")]
    Outbox {
        /// Home of the node; empty for an outbox in memory.
        path: PathBuf,
        /// Error of the outbox.
        source: SpoolError,
    },
    /// The key of the onion service cannot be read or made.
    #[cfg(feature = "tor")]
    #[error(transparent)]
    OnionKey(#[from] dht_tor::KeyError),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity of this node, with its addresses, is longer than peers accept.
    #[error("too many or too long public addresses")]
    Identity(#[from] IdentityError),
}

impl StartError {
    /// Advice on it. The text of the error names neither this nor the cause, which is its
    /// [`source`](std::error::Error::source).
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { source, .. } => Some(listen_hint(source.kind())),
            #[cfg(feature = "saf")]
            Self::Store { source, .. } => crate::saf::hint(source),
            #[cfg(feature = "spool")]
            Self::Inbox { source, .. } => spool_hint(source),
            Self::Outbox { source, .. } => spool_hint(source),
            #[cfg(feature = "tor")]
            Self::OnionKey(_) => None,
            Self::Config(_) => None,
            Self::Identity(_) => Some("set fewer or shorter public_addresses"),
        }
    }
}

/// Advice on an address that cannot be listened on.
const fn listen_hint(error: io::ErrorKind) -> &'static str {
    use io::ErrorKind as Kind;
    match error {
        Kind::AddrInUse => {
            "another program listens there: stop it, or choose another address with --listen, or port 0 for any free port"
        }
        Kind::AddrNotAvailable => {
            "this machine has no such address: choose one of its own with --listen, or /ip4/0.0.0.0 for all"
        }
        Kind::PermissionDenied => {
            "this user may not: choose a port from 1024 on with --listen, or port 0 for any free port"
        }
        Kind::NotFound => {
            "the name is not found in DNS: choose another with --listen, or an IP address"
        }
        _ => "choose another address with --listen, or port 0 for any free port",
    }
}

/// Advice on an error of the inbox or the outbox.
const fn spool_hint(error: &SpoolError) -> Option<&'static str> {
    Some(match error {
        SpoolError::Locked => "stop the node that runs with this home, or use another --home",
        SpoolError::NewerFormat { .. } => "use the newer version, or another --home",
        SpoolError::DiskFull => "make room on the disk, and start the node again",
        SpoolError::Io(io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory)
        | SpoolError::WrongFile
        | SpoolError::Leftover { .. } => "move it away, and a new one is made",
        SpoolError::Io(io::ErrorKind::NotFound) => {
            "it leads to a file that is missing: restore that file, or remove the link"
        }
        SpoolError::Io(io::ErrorKind::PermissionDenied) => "run as the owner of the home",
        SpoolError::Io(io::ErrorKind::ReadOnlyFilesystem) => {
            "make the disk writable, or use another --home"
        }
        _ => return None,
    })
}

impl Builder {
    fn new(secret: SecretKey) -> Self {
        let config = Config {
            listen: Vec::new(),
            ..Config::default()
        };
        Self {
            secret,
            features: Features::NODE,
            claim: None,
            config,
            home: None,
            reproducible: false,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            media: Vec::new(),
            lookup: None,
            interfaces: None,
            validator: None,
            validation_deadline: DEFAULT_VALIDATION_DEADLINE,
        }
    }

    /// Takes all settings from a configuration.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Network to join. Defaults to [`Network::LocalNet`].
    pub const fn network(mut self, network: Network) -> Self {
        self.config.network = network;
        self
    }

    /// Services that this node announces to peers, less those that its settings turn off. Defaults to [`Features::NODE`].
    pub const fn features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }

    /// Presents a claim that this key signed before, instead of signing one, so that peers go on to reach the addresses
    /// in it. For a short-lived node in the place of one that does not run: it listens nowhere and stores no messages for
    /// others, whatever the claim says.
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claim = Some(claim);
        self
    }

    /// Adds an address to listen on. By default there is none; port 0 takes any free port.
    pub fn listen(mut self, address: Address) -> Self {
        self.config.listen.push(address);
        self
    }

    /// Adds a peer that the node stays connected to.
    pub fn peer(mut self, peer: PeerAddress) -> Self {
        self.config.peers.push(peer);
        self
    }

    /// Adds a node at which this one begins when it knows no other; see [`Config::seeds`].
    pub fn seed(mut self, seed: PeerAddress) -> Self {
        self.config.seeds.push(seed);
        self
    }

    /// Whether the node, if it is a full one, finds peers and stays connected to some by itself. It does by default.
    #[cfg(feature = "overlay")]
    pub const fn overlay(mut self, enabled: bool) -> Self {
        self.config.overlay.enabled = enabled;
        self
    }

    /// Memory for messages in MiB. Defaults to [`DEFAULT_MEMORY_MIB`](crate::DEFAULT_MEMORY_MIB).
    pub const fn memory_mib(mut self, mib: usize) -> Self {
        self.config.memory_mib = mib;
        self
    }

    /// Folder for data that outlives a restart. With the feature `saf` the node keeps messages for offline peers in it;
    /// with the feature `spool`, its inbox, its outbox, the peers that it knows and the hashes of messages received. By default,
    /// and without these features, the node holds them in memory, and fewer of them.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(Home::Folder(folder.into()));
        self
    }

    /// Data that outlives the node, but not the process, instead of a folder.
    pub fn memory_home(mut self, home: MemoryHome) -> Self {
        self.home = Some(Home::Memory(home));
        self
    }

    /// Lets nothing depend on how fast the machine is, nor on how many cores it has: without a folder, on a runtime of one thread
    /// whose time is paused, the same clock, entropy and media give the same run. Off by default.
    pub const fn reproducible(mut self) -> Self {
        self.reproducible = true;
        self
    }

    /// Seconds in which an unknown recipient must be found, connected and sent to. Defaults to 120.
    pub const fn discovery_seconds(mut self, seconds: u64) -> Self {
        self.config.discovery_seconds = seconds;
        self
    }

    /// Number of copies of one message that are delivered; see [`Config::allowed_occurrences`]. Defaults to 1.
    pub const fn allowed_occurrences(mut self, times: u32) -> Self {
        self.config.allowed_occurrences = times;
        self
    }

    /// Clock that the node reads. Defaults to [`SystemClock`].
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Source of randomness. Defaults to [`OsEntropy`].
    pub fn entropy(mut self, entropy: SharedEntropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// Adds a carrier of bytes; the first that serves an address gets it. By default TCP serves all addresses.
    pub fn medium(mut self, medium: impl Medium) -> Self {
        self.media.push(Arc::new(medium));
        self
    }

    /// How the IP addresses of a host name are found. Defaults to the operating system's resolver. Called on a thread of its
    /// own, where it may block.
    pub fn lookup(
        mut self,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.lookup = Some(Arc::new(lookup));
        self
    }

    /// How the IP addresses of this machine are found, as `interface_addresses` of the feature `interfaces`; by default nobody looks.
    /// It is called every ten seconds, on a thread where it may block. When an address comes that was not there before, also one
    /// that had gone, the node joins again as soon as it may, and signs a new claim if `public_addresses`
    /// [follow](Config::public_addresses) the machine.
    pub fn interfaces(
        mut self,
        addresses: impl Fn() -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.interfaces = Some(Arc::new(addresses));
        self
    }

    /// Asks the application about gossip, which is clear messages without a destination, before it is delivered or
    /// passed on. A message is dropped unless the answer is [`Acceptance::Accept`]; [`Acceptance::Reject`] also bans its
    /// signer. By default all gossip is accepted.
    ///
    /// ```
    /// use dht_core::{Entropy, SecretKey};
    /// use dht_node::{Acceptance, Node, OsEntropy, Received};
    ///
    /// let secret = SecretKey::random(&mut OsEntropy.rng());
    /// let builder = Node::builder(secret).gossip_validator(|gossip: Received| async move {
    ///     match gossip.message.payload.len() {
    ///         0 => Acceptance::Reject,         // no honest node sends this
    ///         1..=1_000 => Acceptance::Accept, // delivered, and passed on if the node relays gossip
    ///         _ => Acceptance::Ignore,         // dropped without a ban
    ///     }
    /// });
    /// # drop(builder);
    /// ```
    pub fn gossip_validator<F>(
        mut self,
        validate: impl Fn(Received) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Acceptance> + Send + 'static,
    {
        self.validator = Some(Arc::new(AppValidator(validate)));
        self
    }

    /// How long the [validator](Self::gossip_validator) may take; a later answer counts as [`Acceptance::Ignore`].
    /// Defaults to [`DEFAULT_VALIDATION_DEADLINE`].
    pub const fn validation_deadline(mut self, deadline: Duration) -> Self {
        self.validation_deadline = deadline;
        self
    }

    /// Whether gossip that the validator accepts is passed on to other nodes. Off by default.
    pub const fn relay_gossip(mut self, relay: bool) -> Self {
        self.config.relay_gossip = relay;
        self
    }

    /// Party that a ban for an invalid message hits. Defaults to [`AttributionProfile::Strict`].
    pub const fn attribution(mut self, profile: AttributionProfile) -> Self {
        self.config.attribution = profile;
        self
    }
}

impl Node {
    /// Starts building a node with this key.
    pub fn builder(secret: SecretKey) -> Builder {
        Builder::new(secret)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("features", &self.features)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
