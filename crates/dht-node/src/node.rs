//! The handle of a running node.

#[cfg(feature = "saf")]
mod fetch;
mod messages;
mod peers;
mod ping;
mod shutdown;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use dht_core::{Address, Claim, PeerAddress, PublicKey};
use dht_inbound::RateLimiter;
use dht_outbound::{Connector, Outbound, SelectConfig};
use dht_peers::Directory;
use dht_stack::ByteBudget;
use dht_transport::Transport;
use parking_lot::Mutex;

#[cfg(feature = "saf")]
pub use self::fetch::FetchError;
pub use self::{
    peers::AllowError,
    ping::{PingError, Pong},
    shutdown::SHUTDOWN_LIMIT,
};
use crate::{
    config::Config,
    config_error::ConfigError,
    connection_mirror::ConnectionMirror,
    context::NodeContext,
    counters::Stats,
    discovery::{Dialler, Discoveries},
    events::EventStream,
    inbox::Subscribers,
    known_peers::KnownPeers,
    outbox::OutboxHandle,
    own_addresses::OwnAddresses,
    saf::SafHandle,
    tasks::Tasks,
};

/// Damaged files of a home, beside those in use, by what they held. See the statistics of inbox and outbox for theirs.
#[cfg(feature = "spool")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DamagedFiles {
    /// Files of known peers: 0 or 1.
    pub peers: u64,
    /// Files of messages seen: 0 or 1.
    pub seen: u64,
    /// Ledgers of messages received: 0 to 16.
    pub ledgers: u64,
}

/// A running node. Dropping it stops the node at once; [`Node::shutdown`] stops it in order.
pub struct Node {
    pub(crate) shared: NodeContext,
    pub(crate) transport: Transport,
    pub(crate) outbound: Outbound,
    pub(crate) discoveries: Discoveries,
    pub(crate) connector: Connector<Dialler>,
    pub(crate) select: SelectConfig,
    pub(crate) connection_mirror: ConnectionMirror,
    /// Last report of the overlay; `None` if it does not run.
    #[cfg(feature = "overlay")]
    pub(crate) overlay: Option<Arc<Mutex<dht_overlay::Summary>>>,
    pub(crate) limiter: RateLimiter,
    /// Settings in force.
    pub(crate) config: Arc<Mutex<Config>>,
    pub(crate) subscribers: Arc<Subscribers>,
    /// The durable inbox; `None` without a home.
    #[cfg(feature = "spool")]
    pub(crate) durable_inbox: Option<crate::durable_inbox::DurableInbox>,
    pub(crate) budget: ByteBudget,
    pub(crate) saf: SafHandle,
    pub(crate) outbox: OutboxHandle,
    pub(crate) known_peers: KnownPeers,
    pub(crate) own_addresses: Arc<OwnAddresses>,
    /// Written when the node stops.
    #[cfg(feature = "spool")]
    pub(crate) snapshot: Option<dht_dedup::SnapshotFile>,
    /// Whether the onion service is there, if this node has one.
    #[cfg(feature = "tor")]
    pub(crate) onion: Option<tokio::sync::watch::Receiver<dht_tor::OnionState>>,
    pub(crate) tasks: Tasks,
    /// Set by [`Node::shutdown`] and never cleared.
    pub(crate) stopping: AtomicBool,
}

impl Node {
    /// The public key of this node.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.shared.identity.public_key()
    }

    /// The addresses that this node listens on, with the ports that it got.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<Address> {
        self.transport.listen_addresses()
    }

    /// Public key and addresses of this node, which others need to reach it; prints as `KEY::ADDRESS`.
    #[must_use]
    pub fn peer_address(&self) -> PeerAddress {
        let addresses = self.claim().addresses.clone();
        PeerAddress {
            public_key: *self.public_key(),
            addresses,
        }
    }

    /// Damaged files that were set aside when the node started, or before.
    #[cfg(feature = "spool")]
    #[must_use]
    pub fn damaged_files(&self) -> DamagedFiles {
        #[cfg(feature = "saf")]
        let ledgers = self.saf.get().map_or(0, |saf| saf.ledger().damaged_files());
        #[cfg(not(feature = "saf"))]
        let ledgers = 0;
        DamagedFiles {
            peers: self.known_peers.damaged_files(),
            seen: self
                .snapshot
                .as_ref()
                .map_or(0, |file| file.damaged_files()),
            ledgers,
        }
    }

    /// Events from now on: connections, getting online or offline, dropped messages with the reason, bans. At most [`EVENT_CAPACITY`] are queued for one
    /// subscriber; a slower one learns how many it [missed](crate::Event::Missed).
    ///
    /// [`EVENT_CAPACITY`]: crate::EVENT_CAPACITY
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.shared.events.subscribe()
    }

    /// Takes over the settings that can change while the node runs ([`RELOADABLE`](crate::RELOADABLE)): the rates, the limits
    /// of connections, the banned peers and the public addresses. The others are left alone. No connection is closed but those of
    /// banned peers. A node with other addresses signs a new claim and joins again as soon as it may.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that is wrong; then nothing changes.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        let before = {
            // Held until the claim is signed: who watches the interfaces signs one as well.
            let mut own = self.config.lock();
            let mut next = own.clone();
            next.reload(config);
            self.own_addresses.check(&next)?;
            if self.own_addresses.sign(&next, &self.shared) {
                tracing::info!(target: "dht_node::configured", "this node has other addresses");
                #[cfg(feature = "overlay")]
                self.connection_mirror.overlay.address_changed();
            }
            std::mem::replace(&mut *own, next).banned
        };
        self.limiter.set_limits(config.rates);
        self.transport.set_connection_limits(&config.transport);
        self.ban_listed(&before, &config.banned);
        Ok(())
    }

    /// Settings in force: those that the node was started with, and what [`reload`](Self::reload) took over since.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config.lock().clone()
    }

    /// Parts of this node that have stopped for good, by name, with the reason: an empty map if the node is whole. Each is
    /// published as [`Event::Failed`](crate::Event::Failed), too.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<&'static str, String> {
        self.shared.events.failures()
    }

    /// Why peers cannot find the onion service of this node, in words; `None` if they can, or there is to be none.
    #[must_use]
    pub fn onion_problem(&self) -> Option<String> {
        #[cfg(feature = "tor")]
        if let Some(onion) = &self.onion {
            return onion.borrow().problem();
        }
        None
    }

    /// The claim that this node presents to peers.
    #[must_use]
    pub fn claim(&self) -> Arc<Claim> {
        self.shared.identity.claim()
    }

    /// Whether the node is in the network, and whom it stays connected to; `None` if its settings turn the overlay off, or it
    /// is no full node.
    #[cfg(feature = "overlay")]
    #[must_use]
    pub fn overlay(&self) -> Option<dht_overlay::Summary> {
        Some(self.overlay.as_ref()?.lock().clone())
    }

    /// The directory of known peers and bans.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Totals since the start, and current sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let transport = self.transport.stats();
        let mut stats = Stats {
            connections: transport.connections,
            known_peers: self.shared.directory.len(),
            handshakes: transport.inbound + transport.outbound,
            bytes_received: transport.wire_received_bytes,
            bytes_sent: transport.wire_sent_bytes,
            memory_used_bytes: self.budget.total().saturating_sub(self.budget.available()),
            memory_limit_bytes: self.budget.total(),
            unread_bytes: self.subscribers.unread_bytes(),
            queued_bytes: transport.queued_bytes,
            remembered_bytes: self.shared.remembered_bytes() + self.saf.ledger_bytes(),
            ..Stats::default()
        };
        self.shared.counters.fill(&mut stats);
        stats
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.let_return();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("node_id", self.shared.identity.node_id())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
