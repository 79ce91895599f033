//! The handle of a running node.

#[cfg(feature = "saf")]
mod fetch;
mod ping;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::{
    Address, Claim, Clock as _, DedupHash, DeliveryError, Destination, Encryption, Entropy as _,
    Features, Message, MessageTag, NodeId, Payload, PeerAddress, PublicKey, RemotePeer, SendParams,
    SendRequest, Strategy,
};
use dht_inbound::RateLimiter;
use dht_outbound::{
    Candidates, Connector, Deliveries, DeliveryReply, Outbound, SearchCause, SearchError,
    SelectConfig, Selection, SendError, select,
};
use dht_peers::{AllowListFull, BanOutcome, Directory, PeerRecord};
use dht_spool::{EntryId, Outbox, SpoolError};
use dht_stack::ByteBudget;
use dht_transport::{DialError, Transport};
use parking_lot::Mutex;
use rand_core::Rng as _;
use tokio::time::{Instant, timeout_at};

#[cfg(feature = "saf")]
pub use self::fetch::FetchError;
pub use self::ping::{PingError, Pong};
use crate::{
    adapters::ToApplication,
    config::Config,
    config_error::ConfigError,
    connection_mirror::ConnectionMirror,
    context::NodeContext,
    counters::Stats,
    discovery::{Dialler, Discoveries},
    events::EventStream,
    inbox::{MAX_PAYLOAD_BYTES, Subscribers, Subscription, WhenFull},
    known_peers::KnownPeers,
    outbox::{Delivery, OutboxHandle, SendOptions, SubmitError},
    own_addresses::OwnAddresses,
    received::Received,
    saf::SafHandle,
    tasks::Tasks,
};

/// Longest time that [`Node::shutdown`] takes. Short of the five seconds in which a process should end.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);

/// Time within [`SHUTDOWN_LIMIT`] for messages that are being sent to be written and read.
const OUTBOX_LIMIT: Duration = Duration::from_millis(1500);

/// Time within [`SHUTDOWN_LIMIT`] for the tasks that remain after the connections have closed.
const TASKS_LIMIT: Duration = Duration::from_millis(500);

/// Time within [`SHUTDOWN_LIMIT`] for the files, at least.
const FILES_LIMIT: Duration = Duration::from_millis(750);

/// Why the allow list is not as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllowError {
    /// There is no room for another peer.
    #[error(transparent)]
    Full(#[from] AllowListFull),
    /// The list has changed, but not in the home: it is as before after a restart, unless a later write succeeds.
    #[error("the allow list is changed until a restart only, as it was not written")]
    NotSaved(#[from] io::Error),
}

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

    /// Adds a peer to the directory, without connecting to it.
    pub fn add_peer(&self, peer: &PeerAddress) {
        let now = self.shared.clock.now();
        let addresses = peer.addresses.iter().cloned();
        let record = PeerRecord::seed(peer.public_key, Features::NODE, addresses, now);
        self.shared.directory.add_or_update(record, now);
    }

    /// Adds a peer to the directory and connects to it, unless it is connected. Then it is one of the
    /// [`peers`](Self::peers).
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect(&self, peer: &PeerAddress) -> Result<(), DialError> {
        self.add_peer(peer);
        let dial = self.transport.dial(&peer.public_key, &peer.addresses);
        dial.await?;
        // Without waiting for the watcher of connections.
        self.connection_mirror.ensure(&peer.public_key.node_id());
        Ok(())
    }

    /// Puts a peer on the allow list, which is kept with the home: it is never banned, and a ban in force is lifted. False if it was
    /// on it.
    ///
    /// # Errors
    /// [`AllowError`].
    pub async fn allow(&self, peer: NodeId) -> Result<bool, AllowError> {
        let is_new = self.shared.directory.allow(peer)?;
        self.known_peers.save().await?;
        Ok(is_new)
    }

    /// Takes a peer off the allow list; false if it was not on it.
    ///
    /// # Errors
    /// [`AllowError::NotSaved`].
    pub async fn disallow(&self, peer: &NodeId) -> Result<bool, AllowError> {
        let was_allowed = self.shared.directory.disallow(peer);
        self.known_peers.save().await?;
        Ok(was_allowed)
    }

    /// The seeds that [`Config::dns_seeds`] stands for, asked for one name after another: whoever is between this node and its name
    /// servers may have made them up.
    #[cfg(feature = "dns-seeds")]
    pub async fn dns_seeds(&self) -> Vec<PeerAddress> {
        let config = self.config();
        let dns = crate::dns_seeds::DnsSeeds::new(config.dns_servers.clone());
        let mut seeds = Vec::new();
        for name in config.seed_names() {
            let claims = &self.connection_mirror.claims;
            seeds.extend(dns.seeds(&name, &self.shared, claims).await);
        }
        seeds
    }

    /// Forgets a peer and closes its connection; false if it was not known. A ban of it stays.
    pub fn remove_peer(&self, peer: &NodeId) -> bool {
        let known = self.shared.directory.remove(peer).is_some();
        self.transport.disconnect(peer);
        known
    }

    /// Encrypts a message for `to` and sends it: directly, and to the nodes closest to it, which store it, if its receipt
    /// does not come within seconds. A message that has not arrived, is not stored and has not expired is tried again, also after a
    /// restart of a node with a home. The recipient learns who sent the message; no other node does. A message of a node to
    /// itself is delivered locally.
    ///
    /// Returns when the message is in the outbox, on disk if the node has a home. Waits while many messages are being sent,
    /// or many to this recipient. An unknown recipient is searched for; [`Node::add_peer`] makes it known.
    ///
    /// A recipient without a home confirms a message once its application has taken it, which is when it asks its
    /// [`Subscription`] for the next one or acks it. A task that is both sender and recipient waits for itself if it waits
    /// for [`SendState::Received`](dht_spool::SendState) before it reads.
    ///
    /// # Errors
    /// [`SubmitError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the message may be sent or not.
    pub async fn send(
        &self,
        to: &PublicKey,
        message: Message,
        options: SendOptions,
    ) -> Result<Delivery, SubmitError> {
        self.check(&message)?;
        self.outbox.send(to, message, options).await
    }

    /// A message that was given to [`send`](Self::send), also before a restart; `None` if there is none with this id, or it
    /// ended long ago.
    ///
    /// # Errors
    /// An error of the outbox's file.
    pub async fn delivery(&self, id: EntryId) -> Result<Option<Delivery>, SpoolError> {
        self.outbox.delivery(id).await
    }

    /// Withdraws a message of [`send`](Self::send), so that its state becomes failed; answers whether it did. Copies that have
    /// left are not called back. One that holders store, which deliver it, or that has ended stays as it is. The answer comes
    /// once the outbox has it.
    ///
    /// # Errors
    /// The outbox does not have it: the message is withdrawn for this life of the node, and may be tried again after it. The
    /// outbox is written again within a minute, or by another call of this.
    ///
    /// # Cancel safety
    /// Dropping the future may withdraw the message nevertheless.
    pub async fn withdraw(&self, id: EntryId) -> Result<bool, SpoolError> {
        self.outbox.withdraw(id).await
    }

    /// The durable outbox; `None` for a node without a home or the feature `spool`.
    #[must_use]
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.spool()
    }

    /// Sends a clear, unsigned message to a few connected nodes, without those in `exclude`.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn broadcast(
        &self,
        message: Message,
        exclude: Vec<NodeId>,
    ) -> Result<Deliveries, SendError> {
        self.request(SendParams::builder().broadcast(exclude).finish(), message)
            .await
    }

    /// Passes a clear, unsigned message towards `destination`, or outwards to all nodes if it is unknown, without those
    /// in `exclude`. The bytes of a message do not depend on the node that passes it on, so that each node delivers it
    /// once. One towards this node is delivered here.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn propagate(
        &self,
        destination: Destination,
        message: Message,
        exclude: Vec<NodeId>,
    ) -> Result<Deliveries, SendError> {
        let params = SendParams::builder()
            .propagate(destination, exclude)
            .with_destination(destination);
        self.request(params.finish(), message).await
    }

    /// Announces this node to its neighbourhood: the nodes closest to it, and those on the way, learn its addresses.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodySelected`] if no node is connected or known.
    pub async fn join(&self) -> Result<Deliveries, SendError> {
        let nonce = self.shared.entropy.rng().next_u64();
        self.outbound.join(&self.shared.identity, nonce).await
    }

    /// Searches for the node with this key, even if it is known: asks nodes ever closer to it, and the connected ones to pass on
    /// a discovery. Once found, it is in the [`directory`](Self::directory).
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        let discovery = self.discoveries.for_cause(SearchCause::Operator);
        discovery.discover(key).await
    }

    /// Connects to the node with this key: dials it if it is known, and searches for it if it is unknown or none of its
    /// addresses answers.
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn dial_or_discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        self.connector.connect(key).await?;
        self.connection_mirror.ensure(&key.node_id());
        Ok(())
    }

    /// The peers that a message with this strategy would go to now, with the reasons. Strategies with a random choice
    /// choose anew in each call.
    ///
    /// ```
    /// use dht_core::{Entropy, SecretKey, Strategy};
    /// use dht_node::{Node, OsEntropy};
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listen = "/ip4/127.0.0.1/tcp/0".parse()?;
    /// let alice = Node::builder(SecretKey::random(&mut OsEntropy.rng())).start().await?;
    /// let bob = Node::builder(SecretKey::random(&mut OsEntropy.rng())).listen(listen).start().await?;
    /// alice.connect(&bob.peer_address()).await?;
    ///
    /// # // The table of connected peers follows the dial a moment later.
    /// # while alice.peers().is_empty() { tokio::task::yield_now().await }
    /// let selection = alice.explain(&Strategy::Flood { exclude: vec![] });
    /// let expected = format!("flood: 1 chosen\n  {}: connected node", bob.public_key().node_id());
    /// assert_eq!(selection.explain(), expected);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self, strategy: &Strategy) -> Selection {
        let shared = &self.shared;
        let candidates = Candidates {
            me: shared.directory.me(),
            connected: &shared.connections.snapshot(),
            directory: &shared.directory,
            now: shared.clock.now(),
        };
        let mut rng = shared.entropy.rng();
        select(strategy, candidates, &self.select, &mut rng)
    }

    /// Sends a message with any parameters. One that names this node as its destination, or is encrypted for it, is
    /// delivered here and leaves for no peer.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodySelected`] if the strategy selected no peer.
    pub async fn request(
        &self,
        params: SendParams,
        message: Message,
    ) -> Result<Deliveries, SendError> {
        self.check(&message)?;
        let me = *self.public_key();
        let is_own = params.destination == Destination::PublicKey(me)
            || params.encryption == Encryption::EncryptFor(me);
        if is_own {
            return Ok(self.deliver_own(&params, message).await);
        }
        let request = SendRequest::new(params, Payload::Domain(message));
        // Seals on the caller's task, so that many callers use many cores.
        self.outbound.send(request).await
    }

    /// Delivers a message of this node to itself, with the origin that a peer would have seen.
    async fn deliver_own(&self, params: &SendParams, message: Message) -> Deliveries {
        let me = self.public_key();
        let mut rng = self.shared.entropy.rng();
        let tag = params.tag.unwrap_or_else(|| MessageTag(rng.next_u64()));
        // Each message sent is another one, as each sealed one is.
        let mut hash = DedupHash([0; 32]);
        rng.fill_bytes(&mut hash.0);
        let is_signed = params.force_origin || params.encryption != Encryption::Clear;
        let received = Received {
            sender: is_signed.then_some(*me),
            via: me.node_id(),
            message,
        };
        let application = ToApplication {
            subscribers: Arc::clone(&self.subscribers),
            #[cfg(feature = "spool")]
            durable_inbox: self.durable_inbox.clone(),
        };
        let (reply, delivery) = DeliveryReply::pair(tag, me.node_id());
        reply.send(match application.deliver_own(received, hash).await {
            true => Ok(()),
            false => Err(DeliveryError::Dropped),
        });
        delivery.into()
    }

    /// Refuses a message that is too long, and every message once the node is stopping.
    fn check(&self, message: &Message) -> Result<(), SendError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        let (bytes, max) = (message.payload.len(), MAX_PAYLOAD_BYTES);
        if bytes > max {
            return Err(SendError::TooLarge { bytes, max });
        }
        Ok(())
    }

    /// The outbound pipeline, which sends any request.
    #[must_use]
    pub const fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Messages for the application, which are delivered once it has taken them; see [`Subscription`].
    ///
    /// With a home, the subscription reads the durable inbox as its default consumer, from the oldest row that is not
    /// acked, and acks what is taken: a message leaves the inbox when one of the subscriptions took it. Other consumers
    /// read it through [`inbox`](Self::inbox).
    ///
    /// Without a home, every subscription gets every message that arrives from now on, and the first that takes one
    /// makes it delivered. At most [`INBOX_CAPACITY`](crate::INBOX_CAPACITY) wait for a subscription: one that is slower
    /// than the others [misses](Subscription::missed) messages, and if all are that slow, they hold back the peers that
    /// send. A message that no subscriber takes is refused, and stays with the nodes that store it.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_with(WhenFull::default())
    }

    /// As [`subscribe`](Self::subscribe), and says what becomes of messages for which the subscription has no room. With a
    /// home all of them wait in the durable inbox, whatever is said here.
    #[must_use]
    pub fn subscribe_with(&self, when_full: WhenFull) -> Subscription {
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &self.durable_inbox {
            return self.subscribers.subscribe_to(durable_inbox);
        }
        let subscription = self.subscribers.subscribe(when_full);
        // Messages that other nodes store for this one can be delivered now.
        self.saf.listen();
        subscription
    }

    /// The durable inbox: received messages that not every consumer has acked. `None` without a home.
    #[cfg(feature = "spool")]
    #[must_use]
    pub fn inbox(&self) -> Option<&dht_spool::Inbox> {
        Some(&self.durable_inbox.as_ref()?.inbox)
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

    /// Bans the listed peers, and lifts the bans of those that were listed before.
    pub(crate) fn ban_listed(&self, before: &[PublicKey], listed: &[PublicKey]) {
        let (directory, now) = (&self.shared.directory, self.shared.clock.now());
        for key in before.iter().filter(|key| !listed.contains(key)) {
            directory.unban(*key);
        }
        for key in listed {
            match directory.ban_listed(*key, now) {
                BanOutcome::Banned(_) => {}
                outcome => {
                    tracing::warn!(
                        target: "dht_node::configured",
                        peer = %key.short(),
                        ?outcome,
                        "a listed peer is not banned"
                    )
                }
            }
        }
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

    /// Every peer that is connected now.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<RemotePeer>> {
        let connected = self.shared.connections.snapshot();
        let peers = connected.iter().map(|connected| &connected.peer);
        peers.map(Arc::clone).collect()
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
            queued_bytes: transport.queued_bytes,
            remembered_bytes: self.shared.remembered_bytes() + self.saf.ledger_bytes(),
            ..Stats::default()
        };
        self.shared.counters.fill(&mut stats);
        stats
    }

    /// Stops the node in order, within [`SHUTDOWN_LIMIT`]: refuses new messages, sends those queued, closes the
    /// connections, then the files. Inboxes end once they are empty.
    pub async fn shutdown(&self) {
        self.stopping.store(true, Ordering::Release);
        self.tasks.let_return();
        let end = Instant::now() + SHUTDOWN_LIMIT;
        // While the connections are there.
        self.shared.directory.update_anchors();
        self.outbox.wind_down(OUTBOX_LIMIT).await;
        let closed = end - TASKS_LIMIT - FILES_LIMIT;
        let left = closed.saturating_duration_since(Instant::now());
        self.transport.shutdown(left).await;
        self.tasks.stop(TASKS_LIMIT).await;
        // A device that hangs holds up a thread of the blocking pool, and not this.
        if timeout_at(end, self.close_files()).await.is_err() {
            tracing::error!("the files of this node could not be closed in time");
        }
        // The task that removes closed connections has ended.
        self.shared.connections.clear();
        self.subscribers.close();
    }

    async fn close_files(&self) {
        let messages = async {
            #[cfg(feature = "spool")]
            if let Some(durable_inbox) = &self.durable_inbox {
                durable_inbox.close().await;
            }
        };
        let seen = async {
            #[cfg(feature = "spool")]
            if let Some(snapshot) = &self.snapshot {
                snapshot.save().await;
            }
        };
        let peers = async {
            // A failure is logged.
            let _ = self.known_peers.save().await;
        };
        tokio::join!(self.outbox.close(), messages, self.saf.close(), seen, peers);
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
