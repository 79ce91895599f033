//! Building a transport.

use std::{fmt, io, net::IpAddr, sync::Arc};

use bytes::Bytes;
use dht_core::{Entropy as _, Network, NodeIdentity, SharedClock, SharedEntropy};
use dht_peers::{
    Directory,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_stack::ByteBudget;
use rand_core::Rng as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    channels,
    config::Config,
    connection::{
        IdentityError,
        admission::{Admission, Bounds},
        dials::Dials,
        encode_identity,
        names::{self, Lookup},
        table::Table,
        targets::Targets,
        upgrade::Upgrade,
    },
    limits::{MAX_UNREAD_BYTES, MOST_INBOUND_STREAMS},
    medium::{Media, Medium},
    messaging::{Limits, MESSAGING_PROTOCOL, PeerQueues, Receiver, SharedBytes},
    outlets::{InboundStream, Outlets},
    state::{Counters, State},
    tasks::Tasks,
    transport::Transport,
};

/// Collects the parts and settings of a [`Transport`].
pub struct Builder {
    identity: Arc<NodeIdentity>,
    network: Network,
    entropy: SharedEntropy,
    clock: SharedClock,
    budget: ByteBudget,
    config: Config,
    directory: Option<Directory>,
    bans: Option<BanPolicy>,
    media: Vec<Arc<dyn Medium>>,
    lookup: Lookup,
    user_agent: Arc<str>,
    reproducible: bool,
    handlers: Vec<(Bytes, mpsc::Sender<InboundStream>)>,
}

impl Transport {
    /// A transport for `identity` on `network`. Inbound messages are charged to `budget` before they are read.
    #[must_use]
    pub fn builder(
        identity: Arc<NodeIdentity>,
        network: Network,
        entropy: SharedEntropy,
        clock: SharedClock,
        budget: ByteBudget,
    ) -> Builder {
        Builder {
            identity,
            network,
            entropy,
            clock,
            budget,
            config: Config::default(),
            directory: None,
            bans: None,
            media: Vec::new(),
            lookup: Arc::new(names::system),
            user_agent: "".into(),
            reproducible: false,
            handlers: Vec::new(),
        }
    }
}

// === impl Builder ===

impl Builder {
    /// Settings. Defaults to [`Config::default`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Directory that holds the addresses of peers, how dials went, and bans. Defaults to an empty one.
    #[must_use]
    pub fn directory(mut self, directory: Directory) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Policy that offences are reported to. Defaults to one that bans in the [directory](Self::directory) with
    /// default terms.
    #[must_use]
    pub fn bans(mut self, bans: BanPolicy) -> Self {
        self.bans = Some(bans);
        self
    }

    /// Adds a medium; the first that serves an address gets it. Defaults to TCP, if that feature is on.
    #[must_use]
    pub fn medium(mut self, medium: impl Medium) -> Self {
        self.media.push(Arc::new(medium));
        self
    }

    /// How the IP addresses of a host name are found. Defaults to the operating system's resolver. Called on a thread of
    /// its own, where it may block.
    #[must_use]
    pub fn lookup(
        mut self,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.lookup = Arc::new(lookup);
        self
    }

    /// User agent of this node, at most 50 bytes. Empty by default.
    #[must_use]
    pub fn user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Lets nothing depend on how fast the machine is: on a runtime of one thread whose time is paused, the same clock,
    /// randomness and media give the same run. Windows of streams do not grow then, as the multiplexer measures round trips
    /// by the operating system's clock.
    #[must_use]
    pub const fn reproducible(mut self) -> Self {
        self.reproducible = true;
        self
    }

    /// Serves another protocol: it is advertised, and streams of it go to `handler`. While that is full
    /// further ones are reset.
    #[must_use]
    pub fn serve(mut self, protocol: Bytes, handler: mpsc::Sender<InboundStream>) -> Self {
        self.handlers.push((protocol, handler));
        self
    }

    /// Starts the transport. It listens nowhere yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`IdentityError::TooLong`] if addresses, protocols and user agent exceed what an identity may hold.
    pub fn start(self) -> Result<(Transport, Outlets), IdentityError> {
        let Self {
            identity,
            network,
            entropy,
            clock,
            budget,
            mut config,
            directory,
            bans,
            media,
            lookup,
            ..
        } = self;
        config.max_inbound_streams = config.max_inbound_streams.min(MOST_INBOUND_STREAMS);
        let directory = directory.unwrap_or_else(|| Directory::new(*identity.node_id()));
        let bans = bans.unwrap_or_else(|| {
            let profile = AttributionProfile::default();
            let terms = BanTerms::default();
            BanPolicy::new(profile, terms, directory.clone(), Arc::clone(&clock))
        });
        let protocols: Arc<[Bytes]> = std::iter::once(MESSAGING_PROTOCOL)
            .chain(self.handlers.iter().map(|(id, _)| id.clone()))
            .collect();
        encode_identity(
            config.identity.version,
            &identity.claim(),
            &self.user_agent,
            &protocols,
        )?;
        #[cfg(feature = "tcp")]
        let media = if media.is_empty() {
            vec![Arc::new(crate::Tcp) as Arc<dyn Medium>]
        } else {
            media
        };
        #[cfg(feature = "socks")]
        let media = match config.proxy {
            Some(proxy) => {
                let socks = Arc::new(crate::Socks::new(proxy, config.proxy_for));
                std::iter::once(socks as Arc<dyn Medium>)
                    .chain(media)
                    .collect()
            }
            None => media,
        };
        let (sink, messages) = channels::MESSAGES.open_for(config.inbound_channel);
        let (events, event_outlet) = channels::EVENTS.open_for(config.event_channel);
        let limits = Limits {
            messages: config.max_queued_messages,
            bytes: config.max_queued_bytes,
            lifetime: config.message_lifetime,
        };
        let mut rng = entropy.rng();
        let (mut seed, mut rank_key) = ([0; 16], [0; 16]);
        rng.fill_bytes(&mut seed);
        rng.fill_bytes(&mut rank_key);
        let tasks = Tasks::new();
        let is_public = network != Network::LocalNet;
        let state = State {
            table: Table::new(*identity.node_id()),
            admission: Admission::new(Bounds::of(&config)),
            dials: Dials::default(),
            targets: Targets::new(lookup, is_public, seed, Arc::clone(tasks.panics())),
            rank_key,
            queues: Arc::new(PeerQueues::new(
                limits,
                SharedBytes::new(config.max_queued_bytes_total),
            )),
            receiver: Receiver::new(budget, sink),
            unread: ByteBudget::new(config.max_unread_bytes_total.max(MAX_UNREAD_BYTES)),
            handlers: self.handlers,
            reproducible: self.reproducible,
            events,
            liveness: Arc::new(Semaphore::new(config.liveness_sessions)),
            tasks,
            stopping: CancellationToken::new(),
            halted: CancellationToken::new(),
            wire: Arc::default(),
            counters: Counters::default(),
            media: Media(media),
            upgrade: Upgrade {
                identity,
                network,
                entropy,
                clock,
                directory,
                bans,
                rules: config.identity,
                user_agent: self.user_agent,
                protocols,
            },
            config,
        };
        let transport = Transport::new(state);
        Ok((
            transport,
            Outlets {
                messages,
                events: event_outlet,
            },
        ))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("node_id", self.identity.node_id())
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
