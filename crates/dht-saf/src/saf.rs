//! Store-and-forward of a node: keeping, serving and fetching joined to one handle.

use std::{fmt, sync::Arc};

use dht_core::{
    Clock as _, CompressedKey, DedupHash, Entropy as _, Features, NodeId, NodeIdentity, RemotePeer,
    SendQueue, SendQueueError, SharedClock, SharedEntropy,
};
use dht_dedup::DedupTable;
use dht_mailbox::Store;
use dht_peers::{Connections, Directory, policy::BanPolicy};
use dht_stack::{ByteBudget, TokenBuckets};
use futures::Stream;
use rand_core::Rng as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};

use crate::{
    config::Config,
    fetch::{FetchParts, Fetcher, SafEvent},
    keep::{KeepParts, Keeper, StoreLayer},
    layer::SafLayer,
    ledger::Ledger,
    receipt::{self, Decisions, Receipt},
    serve::Server,
};

/// Parts that store-and-forward works with.
pub struct SafParts {
    /// This node; it stores for others only with [`Features::DHT_STORE_FORWARD`].
    pub identity: Arc<NodeIdentity>,
    /// Known and banned peers, and this node's region.
    pub directory: Directory,
    /// Peers that are connected now.
    pub connections: Connections,
    /// Wall clock, in seconds.
    pub clock: SharedClock,
    /// Randomness for request ids and for the choice of peers to ask.
    pub entropy: SharedEntropy,
    /// Messages for other peers; `None` on a node that stores none.
    pub store: Option<Store>,
    /// Messages received from the stores of others.
    pub ledger: Arc<Ledger>,
    /// Sends requests and responses.
    pub send_queue: Arc<dyn SendQueue>,
    /// Memory for responses that wait to be sent; beyond it requests are answered with an empty response.
    pub responses: ByteBudget,
    /// Policy that offences of responders are reported to. Its profile decides which responses are refused.
    pub bans: BanPolicy,
    /// Dedup table of the inbound stack.
    pub dedup: DedupTable,
}

/// Store-and-forward of one node. Cloning shares it.
#[derive(Clone)]
pub struct Saf(Arc<Inner>);

struct Inner {
    clock: SharedClock,
    storing: Option<Storing>,
    fetcher: Arc<Fetcher>,
    decisions: Arc<Decisions>,
    dedup: DedupTable,
    /// Seed of the table of peers that ask for receipts; unknown to them.
    asker_seed: [u8; 16],
}

/// The half of a node that stores messages for others.
struct Storing {
    store: Store,
    keeper: Arc<Keeper>,
    server: Arc<Server>,
}

impl Saf {
    /// Joins the parts. No peer is asked before [`Saf::listen`].
    #[must_use]
    pub fn new(config: &Config, parts: SafParts) -> Self {
        let SafParts {
            identity,
            directory,
            connections,
            clock,
            entropy,
            store,
            ledger,
            send_queue,
            responses,
            bans,
            dedup,
        } = parts;
        let seed = || {
            let mut seed = [0; 16];
            entropy.rng().fill_bytes(&mut seed);
            seed
        };
        let decisions = Arc::<Decisions>::default();
        let asker_seed = seed();
        let stores = identity.features().contains(Features::DHT_STORE_FORWARD);
        let storing = store.filter(|_| stores).map(|store| Storing {
            keeper: Arc::new(Keeper::new(
                KeepParts {
                    identity: Arc::clone(&identity),
                    directory: directory.clone(),
                    clock: Arc::clone(&clock),
                    store: store.clone(),
                    decisions: Arc::clone(&decisions),
                    dedup: dedup.clone(),
                },
                seed(),
                config,
            )),
            server: Arc::new(Server::new(
                Arc::clone(&clock),
                store.clone(),
                Arc::clone(&send_queue),
                responses,
                seed(),
                config,
            )),
            store,
        });
        let fetch = FetchParts {
            identity,
            directory,
            connections,
            clock: Arc::clone(&clock),
            entropy,
            ledger,
            send_queue,
            bans,
            dedup: dedup.clone(),
            decisions: Arc::clone(&decisions),
        };
        Self(Arc::new(Inner {
            clock,
            storing,
            fetcher: Arc::new(Fetcher::new(fetch, config)),
            decisions,
            dedup,
            asker_seed,
        }))
    }

    /// The layer that stores messages for offline peers, outside the forward layer; `None` on a node that stores none.
    #[must_use]
    pub fn store_layer(&self) -> Option<StoreLayer> {
        let storing = self.0.storing.as_ref()?;
        Some(StoreLayer::new(Arc::clone(&storing.keeper)))
    }

    /// The layer that serves requests and takes responses, inside the forward layer.
    #[must_use]
    pub fn layer(&self) -> SafLayer {
        let storing = self.0.storing.as_ref();
        let server = storing.map(|storing| Arc::clone(&storing.server));
        SafLayer::new(server, Arc::clone(&self.0.fetcher))
    }

    /// The store of messages for others; `None` on a node that stores none.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        Some(&self.0.storing.as_ref()?.store)
    }

    /// The messages received from the stores of others.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.0.fetcher.ledger()
    }

    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<SafEvent> {
        self.0.fetcher.subscribe()
    }

    /// The application listens from now on: asks the connected peers for stored messages, and every peer that connects.
    ///
    /// Before that no peer is asked, as the messages would be refused, and fetched again.
    pub fn listen(&self) {
        self.0.fetcher.listen();
    }

    /// Messages have left the application's inbox: peers that store what had no place in it are asked again within ten
    /// seconds.
    pub fn room_made(&self) {
        self.0.fetcher.room_made();
    }

    /// The application's inbox has lost messages that it had: forgets in every place that these were received, so that
    /// their next copies are taken, and has connected peers asked for what they store. `is_lost` names the messages. False
    /// if the ledger could not write it; what it remembers then is as before.
    pub async fn forget_lost(
        &self,
        is_lost: impl Fn(&DedupHash) -> bool + Clone + Send + 'static,
    ) -> bool {
        let has_forgotten = self.0.fetcher.forget_lost(is_lost.clone()).await;
        if has_forgotten {
            self.0.dedup.forget(&is_lost);
            self.0.decisions.forget(&is_lost);
            self.0.fetcher.ask_connected();
        }
        has_forgotten
    }

    /// A peer has connected and is in the connection table: asks it for stored messages, if the settings say so.
    pub fn connected(&self, peer: &RemotePeer) {
        self.0.fetcher.connected(peer);
    }

    /// The connection to a peer has ended. `key` is the peer's key, if it is known.
    pub fn disconnected(&self, peer: &NodeId, key: Option<&CompressedKey>) {
        if let (Some(storing), Some(key)) = (&self.0.storing, key) {
            storing.server.disconnected(key);
        }
        self.0.fetcher.disconnected(peer);
    }

    /// Asks a peer for everything new, whatever the settings say.
    ///
    /// # Errors
    /// [`SendQueueError`].
    pub fn request_from(&self, peer: &RemotePeer) -> Result<(), SendQueueError> {
        self.0.fetcher.request_from(peer)
    }

    /// Asks up to [`PEERS_ASKED`](crate::PEERS_ASKED) connected peers at random; returns how many.
    pub fn request_from_random_peers(&self) -> usize {
        self.0.fetcher.request_from_random_peers()
    }

    /// This node is online with `n` peers. The first call sets how many responses [`SafEvent::Received`] waits for.
    pub fn online(&self, n: usize) {
        self.0.fetcher.online(n);
    }

    /// Whether a response is awaited.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.0.fetcher.is_fetching()
    }

    /// State of a message at this node: stored for its recipient, or received. Waits until `asker` has handed over a copy,
    /// the decision is made and the commit is done. `in_inbox` says whether the application's durable inbox has it, or had.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing. It does not end for a message that `asker` never hands over, so set a limit.
    pub async fn receipt(
        &self,
        asker: &NodeId,
        hash: &DedupHash,
        in_inbox: impl FnOnce(&DedupHash) -> bool + Send,
    ) -> Receipt {
        // Before the copy comes: that it was refused is told only to those that wait.
        let decision = self.0.decisions.find(hash, self.0.clock.now());
        self.0.dedup.handed_over(asker, hash).await;
        if in_inbox(hash) || self.ledger().contains(hash) {
            return Receipt::Received;
        }
        decision.await.unwrap_or(Receipt::Neither)
    }

    /// Answers every stream on which a peer asks for receipts, until `streams` ends; answers then under way are dropped.
    /// Each stream comes with the peer that opened it, and gets the answers of [`Saf::receipt`], or [`Receipt::Neither`]
    /// after [`RECEIPT_LIMIT`](crate::RECEIPT_LIMIT). A peer that has two streams open gets no further one.
    pub async fn serve_receipts<T>(
        &self,
        in_inbox: impl Fn(&DedupHash) -> bool + Clone + Send + Sync + 'static,
        streams: impl Stream<Item = (NodeId, T)>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let saf = self.clone();
        let decide = move |asker, hash| {
            let (saf, in_inbox) = (saf.clone(), in_inbox.clone());
            async move { saf.receipt(&asker, &hash, in_inbox).await }
        };
        let rate = TokenBuckets::new([receipt::RATE], receipt::MAX_ASKERS, self.0.asker_seed);
        receipt::serve(decide, rate, streams).await;
    }

    /// Gives up silent peers, and writes received messages down. To be called every second or so.
    pub async fn tick(&self) {
        self.0.fetcher.tick().await;
    }

    /// Deletes expired messages, and forgets received ones that no peer can store any more. To be called
    /// every ten minutes (05 section 4) while the clock is believed.
    pub async fn clean_up(&self) {
        if let Some(storing) = &self.0.storing
            && let Err(error) = storing.store.expire(self.0.clock.now()).await
        {
            tracing::warn!(%error, "expired messages were not deleted");
        }
        self.0.fetcher.forget_old().await;
    }
}

impl fmt::Debug for Saf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saf")
            .field("store", &self.store())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SafParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafParts")
            .field("identity", &self.identity)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
