//! State that the tasks of one transport share.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use dht_stack::ByteBudget;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    connection::{
        admission::Admission, dials::Dials, table::Table, targets::Targets, upgrade::Upgrade,
    },
    event::ConnectionEvent,
    medium::{Media, WireCounters},
    messaging::{PeerQueues, Receiver},
    metrics,
    outlets::InboundStream,
    tasks::Tasks,
};

/// State of one transport, held by its handle and by each of its tasks.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) upgrade: Upgrade,
    pub(crate) media: Media,
    pub(crate) table: Table,
    pub(crate) admission: Arc<Admission>,
    pub(crate) dials: Dials,
    pub(crate) targets: Targets,
    /// Key of the order of source groups, by which some are kept from eviction.
    pub(crate) rank_key: [u8; 16],
    pub(crate) queues: Arc<PeerQueues>,
    pub(crate) receiver: Receiver,
    /// Bytes that peers sent and no stream has read yet, for all connections.
    pub(crate) unread: ByteBudget,
    pub(crate) handlers: Vec<(Bytes, mpsc::Sender<InboundStream>)>,
    /// Whether nothing may depend on how fast the machine is.
    pub(crate) reproducible: bool,
    pub(crate) events: mpsc::Sender<ConnectionEvent>,
    pub(crate) liveness: Arc<Semaphore>,
    pub(crate) tasks: Tasks,
    /// Cancelled first at shutdown: no new sockets, messages, or dials by the owner.
    pub(crate) stopping: CancellationToken,
    /// Cancelled once the queues were flushed: no more dials, not even for queued messages.
    pub(crate) halted: CancellationToken,
    pub(crate) wire: Arc<WireCounters>,
    pub(crate) counters: Counters,
}

/// Totals since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) next_connection: AtomicU64,
    pub(crate) inbound: AtomicU64,
    pub(crate) outbound: AtomicU64,
    pub(crate) inbound_failed: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
}

impl State {
    /// Queues an event, or drops and counts it if the channel is full.
    pub(crate) fn tell(&self, event: ConnectionEvent) {
        if self.events.try_send(event).is_err() {
            metrics::event_lost();
        }
    }

    /// Queues an event, and waits while the channel is full.
    pub(crate) async fn announce(&self, event: ConnectionEvent) {
        // Fails only if the owner dropped the receiver.
        let _nobody = self.events.send(event).await;
    }
}
