//! The way out of messages to one recipient: each is kept until its recipient has it, holders store it, or its time to
//! live is over.
//!
//! `sending.rs` decides what is done for one message, `worker.rs` does it for all: `worker/record.rs` writes down and tells what
//! became of them, `messages.rs` holds them and their timers,
//! `actions.rs` is what attempts do over the network.

mod actions;
mod admission;
mod delivery;
mod event;
mod listings;
mod messages;
mod reachability;
mod retry_queue;
mod sealed;
mod send_budget;
mod sending;
mod stored;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

pub(crate) use actions::WorkerParts;
pub use delivery::{Delivery, Undelivered};
use dht_core::{Clock as _, Message, NodeId, PublicKey, UnixSeconds};
use dht_outbound::SendError;
use dht_proto::limits::MAX_STORED_BODY_BYTES;
use dht_spool::{Entry, EntryId, NewEntry, Outbox, OutboxConfig, Put, SpoolError};
use dht_stack::off_thread;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout_at},
};
pub(crate) use worker::OutboxWorker;

use self::{
    delivery::DeliveryStatus,
    reachability::{ByReachability, ReachabilityTracker},
    sealed::SealedFrame,
    send_budget::{SendBudget, SendPermit},
    sending::too_large_for_holders,
};
use crate::{channels, context::NodeContext};

/// The file of the outbox, within a node's home.
#[cfg(feature = "spool")]
const FILE: &str = "outbox.redb";
/// Entries of an outbox that ends with the node.
const MEMORY_ROWS: u64 = 16_384;
/// Entries of it that have ended and can be asked for.
const MEMORY_ENDED_ROWS: usize = 4_096;
/// Time a caller waits for room in a full outbox.
const FULL_WAIT: Duration = Duration::from_secs(10);

/// How a message is sent; see [`Node::send`](crate::Node::send).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendOptions {
    /// Seconds for which it is tried, at most and by default [three days](dht_spool::config::MAX_TTL_SECONDS).
    pub ttl_seconds: u64,
    /// Whether it goes to the recipient only, never to holders. Defaults to false.
    pub direct_only: bool,
    /// Holders that should store a copy while the recipient cannot be reached, 0 to 255; with 0, no node is asked to. Defaults
    /// to the size of a neighbourhood.
    pub replicas: Option<u8>,
    /// The application's own name for the message, 1 to [`MAX_KEY_BYTES`](dht_spool::config::MAX_KEY_BYTES) bytes: sent
    /// again with the same name and content, it is the same message.
    pub key: Option<String>,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It is too large, or the node is stopping.
    #[error(transparent)]
    Send(#[from] SendError),
    /// This node bans the recipient, and talks to it again only once the ban is over or lifted.
    #[error("this node bans the recipient{}: {reason}", remaining(*.seconds))]
    Banned {
        /// Seconds until the ban ends; `None` if it does not.
        seconds: Option<u64>,
        /// Reason of the ban.
        reason: Arc<str>,
    },
    /// The outbox is full for long, has too much for this recipient, cannot be written, or knows the idempotency key of
    /// another message.
    #[error(transparent)]
    Outbox(#[from] SpoolError),
}

fn remaining(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(" for {seconds} s more"))
}

/// Gives messages to the [`OutboxWorker`]. Clones share it.
#[derive(Clone)]
pub(crate) struct OutboxHandle(Arc<OutboxShared>);

/// State shared by the handles and the worker.
struct OutboxShared {
    spool: Outbox,
    is_durable: bool,
    /// The spool is not this node's alone, and stays open.
    outlives: bool,
    node: NodeContext,
    /// Of half the memory each.
    budgets: ByReachability<SendBudget>,
    reachability: Arc<ReachabilityTracker>,
    fresh: mpsc::Sender<Fresh>,
    /// Messages that the worker knows. Bounded by the rows of the spool.
    live: Mutex<HashMap<EntryId, watch::Sender<DeliveryStatus>>>,
    signals: Mutex<Signals>,
    signalled: Notify,
    /// Changed when the worker has read entries of the spool; closed when it has ended.
    listed: watch::Receiver<()>,
    /// Messages of which a copy is being sent, or whose recipient is about to answer, and states that are being written down.
    busy: watch::Sender<usize>,
    /// Until when a connection on which a copy was sent is too young to be closed.
    linger: Mutex<Option<Instant>>,
}

/// Changes of connections since the worker last looked.
#[derive(Debug, Default)]
struct Signals {
    /// Bounded by the connections of the transport.
    appeared: BTreeSet<NodeId>,
    ended: BTreeSet<NodeId>,
    /// Messages to be withdrawn; told whether they were. Bounded by their callers.
    withdrawn: BTreeMap<EntryId, Withdrawal>,
    /// Entries that were asked for and are not in [`OutboxShared::live`].
    wanted: BTreeSet<EntryId>,
}

/// Tells whether a message was withdrawn, once that is written down, or why it was not written.
type Withdrawal = watch::Sender<Option<Result<bool, SpoolError>>>;

/// A message that is in the spool since a moment.
struct Fresh {
    entry: Entry,
    sealed: SealedFrame,
    permit: SendPermit,
}

impl Default for SendOptions {
    fn default() -> Self {
        let dht_spool::EntryOptions {
            ttl_seconds,
            direct_only,
            replicas,
        } = dht_spool::EntryOptions::default();
        Self {
            ttl_seconds,
            direct_only,
            replicas,
            key: None,
        }
    }
}

/// Opens the outbox of a home, or one that ends with the node. Blocks.
pub(crate) fn open(
    home: Option<&Path>,
    memory: usize,
    now: UnixSeconds,
) -> Result<Outbox, SpoolError> {
    #[cfg(feature = "spool")]
    if let Some(home) = home {
        std::fs::create_dir_all(home)?;
        return Outbox::open(home.join(FILE), OutboxConfig::default(), now);
    }
    #[cfg(not(feature = "spool"))]
    let _no_file = (home, now);
    Ok(Outbox::in_memory(OutboxConfig {
        max_rows: MEMORY_ROWS,
        max_bytes: memory as u64,
        ended_rows: MEMORY_ENDED_ROWS,
        ..OutboxConfig::default()
    }))
}

impl OutboxHandle {
    /// A handle, and what the worker receives by.
    pub(crate) fn new(
        spool: Outbox,
        is_durable: bool,
        outlives: bool,
        parts: WorkerParts,
        bytes: usize,
    ) -> (Self, OutboxWorker) {
        let (fresh, arriving) = channels::SENDS.open();
        let (listing, listed) = watch::channel(());
        let shared = Arc::new(OutboxShared {
            spool,
            is_durable,
            outlives,
            node: parts.node.clone(),
            budgets: ByReachability::new(|| SendBudget::new(bytes / 2)),
            reachability: Arc::new(ReachabilityTracker::new(parts.node.connections.clone())),
            fresh,
            live: Mutex::default(),
            signals: Mutex::default(),
            signalled: Notify::new(),
            listed,
            busy: watch::Sender::default(),
            linger: Mutex::new(None),
        });
        let worker = OutboxWorker::new(Arc::clone(&shared), parts, arriving, listing);
        (Self(shared), worker)
    }

    pub(crate) async fn send(
        &self,
        to: &PublicKey,
        message: Message,
        options: SendOptions,
    ) -> Result<Delivery, SubmitError> {
        let shared = &*self.0;
        let bytes = message.payload.len();
        let recipient = to.node_id();
        let (directory, now) = (&shared.node.directory, shared.node.clock.now());
        // A message that was accepted before the ban is the same one: only a new one is refused.
        if let Some(ban) = directory.ban_in_force(&recipient, now)
            && !self.has(options.key.clone()).await?
        {
            return Err(SubmitError::Banned {
                seconds: ban.seconds_left(now),
                reason: Arc::clone(&ban.reason),
            });
        }
        let budget = shared.budgets.of(shared.reachability.of(&recipient));
        let permit = budget.acquire(&recipient, bytes).await;
        let permit = permit.ok_or(SendError::Closed)?;
        let now = shared.node.clock.now();
        let SendOptions {
            ttl_seconds,
            direct_only,
            replicas,
            key,
        } = options;
        let options = dht_spool::EntryOptions {
            ttl_seconds,
            direct_only,
            replicas,
        };
        let expires_at = options.expires_at(now);
        let (message_type, payload) = (message.message_type, message.payload.clone());
        // On the caller's task, so that many callers use many cores.
        let sealed = SealedFrame::seal(&shared.node, to, message, expires_at);
        let sealed = sealed.map_err(SendError::from)?;
        let entry = NewEntry {
            key,
            recipient: *to,
            message_type,
            payload,
            options,
            created_at: now,
            frame: Some(sealed.frame.clone()),
        };
        let until = Instant::now() + FULL_WAIT;
        let put = admission::put(
            &shared.spool,
            &shared.budgets,
            &shared.reachability,
            &entry,
            until,
        )
        .await?;
        let id = match put {
            Put::New(id) => id,
            Put::Existing(id) => {
                let existing = self.delivery(id).await?;
                return Ok(existing.ok_or(SpoolError::UnknownId)?);
            }
        };
        let mut entry = Entry::new(id, &entry);
        let is_for_holders = !entry.options.direct_only && entry.options.replicas != Some(0);
        if is_for_holders && sealed.body_bytes > MAX_STORED_BODY_BYTES {
            entry.last_error = Some(too_large_for_holders(sealed.body_bytes));
        }
        let delivery = Delivery::new(id, shared.watch(&entry)).with_entry(entry.clone());
        let fresh = Fresh {
            entry,
            sealed,
            permit,
        };
        // The message is queued: if the worker has ended meanwhile, the next life of a node with a home sends it.
        if shared.fresh.send(fresh).await.is_err() && !shared.is_durable {
            return Err(SendError::Closed.into());
        }
        Ok(delivery)
    }

    /// Whether a message has this idempotency key.
    async fn has(&self, key: Option<String>) -> Result<bool, SpoolError> {
        let Some(key) = key else { return Ok(false) };
        let spool = self.0.spool.clone();
        let entry = off_thread(spool.blocks(), move || spool.get_by_key(&key)).await;
        Ok(entry.unwrap_or(Err(SpoolError::Closed))?.is_some())
    }

    /// The message of an entry; `None` if there is none, or it ended long ago.
    pub(crate) async fn delivery(&self, id: EntryId) -> Result<Option<Delivery>, SpoolError> {
        let mut listed = self.0.listed.clone();
        loop {
            listed.mark_unchanged();
            if let Some(status) = self.0.live.lock().get(&id) {
                return Ok(Some(Delivery::new(id, status.subscribe())));
            }
            let spool = self.0.spool.clone();
            let entry = off_thread(spool.blocks(), move || spool.get(id)).await;
            let Some(entry) = entry.unwrap_or(Err(SpoolError::Closed))? else {
                return Ok(None);
            };
            if entry.ended_at.is_some() {
                return Ok(Some(Delivery::ended(id, entry.state, entry.last_error)));
            }
            // The worker does not know of it yet, or has ended it in between.
            self.0.signals.lock().wanted.insert(id);
            self.0.signalled.notify_one();
            listed.changed().await.map_err(|_| SpoolError::Closed)?;
        }
    }

    pub(crate) fn spool(&self) -> Option<&Outbox> {
        self.0.is_durable.then_some(&self.0.spool)
    }

    /// Ends if the spool ends before it is closed.
    pub(crate) fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.spool.failed()
    }

    /// A peer is connected.
    pub(crate) fn appeared(&self, peer: &NodeId) {
        self.0.signals.lock().appeared.insert(*peer);
        self.0.signalled.notify_one();
    }

    /// A connection that this node did not close has ended.
    pub(crate) fn connection_ended(&self, peer: &NodeId) {
        self.0.signals.lock().ended.insert(*peer);
        self.0.signalled.notify_one();
    }

    /// Withdraws a message; answers whether it was, once that is written down.
    pub(crate) async fn withdraw(&self, id: EntryId) -> Result<bool, SpoolError> {
        let mut answer = {
            let mut signals = self.0.signals.lock();
            signals.withdrawn.entry(id).or_default().subscribe()
        };
        self.0.signalled.notify_one();
        let mut listed = self.0.listed.clone();
        let worker_ended = async { while listed.changed().await.is_ok() {} };
        let told = async {
            let told = answer.wait_for(Option::is_some).await;
            let told = told.ok().and_then(|told| told.clone());
            told.unwrap_or(Err(SpoolError::Closed))
        };
        tokio::select! {
            biased;
            is_withdrawn = told => is_withdrawn,
            () = worker_ended => Err(SpoolError::Closed),
        }
    }

    /// Takes no more messages. Waits until copies under way are written and, where they can be, confirmed, and until peers
    /// have had time to read them; at most for `limit`.
    pub(crate) async fn wind_down(&self, limit: Duration) {
        self.0.budgets.reachable.close();
        self.0.budgets.unreachable.close();
        let until = Instant::now() + limit;
        let quiet = async {
            // Correctness: the sender is in `self`.
            let _ = self.0.busy.subscribe().wait_for(|busy| *busy == 0).await;
            let linger = *self.0.linger.lock();
            if let Some(linger) = linger {
                tokio::time::sleep_until(linger).await;
            }
        };
        let _cut_off = timeout_at(until, quiet).await;
    }

    /// Ends every delivery and closes the spool.
    pub(crate) async fn close(&self) {
        self.0.live.lock().clear();
        if !self.0.outlives {
            let spool = self.0.spool.clone();
            // It fails only if the runtime goes down, with all files.
            let _ = off_thread(spool.blocks(), move || spool.close()).await;
        }
    }
}

impl OutboxShared {
    /// Begins to tell of a message.
    fn watch(&self, entry: &Entry) -> watch::Receiver<DeliveryStatus> {
        let mut live = self.live.lock();
        let sender = live
            .entry(entry.id)
            .or_insert_with(|| watch::Sender::new(DeliveryStatus::before(entry)));
        sender.subscribe()
    }
}
