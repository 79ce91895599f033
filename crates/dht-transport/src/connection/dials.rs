//! Dials under way, and the callers that wait for them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::NodeId;
use dht_stack::Watch;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{cause::DialCause, handle::Connection};
use crate::{error::DialError, metrics};

pub(super) type Outcome = Result<Arc<Connection>, DialError>;

/// Dials under way, at most one a peer. Each is a task that ends by its deadlines.
#[derive(Debug)]
pub(crate) struct Dials {
    pub(super) pending: Mutex<HashMap<NodeId, Pending>>,
    /// Dials that may run at one time, for each cause.
    places: [Semaphore; DialCause::ALL.len()],
}

/// A dial under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) cause: DialCause,
    pub(super) outcome: Watch<Option<Outcome>>,
    pub(super) cancel: CancellationToken,
    /// Set once bytes were sent, so that the peer may know of the dial.
    pub(super) spoken: Arc<AtomicBool>,
}

impl Default for Dials {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            places: DialCause::ALL.map(|cause| Semaphore::new(cause.most_dials())),
        }
    }
}

impl Dials {
    /// Waits for a place among the dials of a cause, at most this long. A dial that a peer causes waits for nothing.
    pub(super) async fn place(
        &self,
        cause: DialCause,
        limit: Duration,
    ) -> Result<SemaphorePermit<'_>, DialError> {
        let places = cause.of(&self.places);
        let place = match cause {
            DialCause::Peer => places.try_acquire().ok(),
            _ => timeout(limit, places.acquire())
                .await
                .ok()
                .and_then(Result::ok),
        };
        place.ok_or_else(|| {
            metrics::dial_refused(cause, "dials_of_cause");
            DialError::TooManyDials
        })
    }

    /// Gives a dial up; its callers get [`DialError::Cancelled`].
    pub(crate) fn cancel(&self, peer: &NodeId) {
        if let Some(pending) = self.pending.lock().get(peer) {
            pending.cancel.cancel();
        }
    }

    /// The peer connected to this node: callers that wait for a dial get that connection.
    ///
    /// A dial the peer may have seen goes on. If the tie-break prefers it, the peer has given up its own in its
    /// favour; if not, the peer may have written messages to it already, which only an orderly end delivers.
    pub(crate) fn on_inbound(&self, connection: &Arc<Connection>) {
        let pending = self.pending.lock();
        if let Some(pending) = pending.get(connection.node_id()) {
            let inbound = Some(Ok(Arc::clone(connection)));
            pending.outcome.change(|held| {
                *held = inbound;
                true
            });
            if !pending.spoken.load(Ordering::SeqCst) {
                pending.cancel.cancel();
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.pending.lock().len()
    }

    /// Takes out the dial of `peer` with this `spoken` flag, and answers its callers. A later dial of the same peer
    /// stays.
    pub(super) fn finish(&self, peer: &NodeId, spoken: &Arc<AtomicBool>, outcome: Outcome) {
        let mut dials = self.pending.lock();
        let own = dials
            .get(peer)
            .is_some_and(|held| Arc::ptr_eq(&held.spoken, spoken));
        if own && let Some(pending) = dials.remove(peer) {
            // An inbound connection may have answered already.
            pending.outcome.change(|held| {
                let first = held.is_none();
                if first {
                    *held = Some(outcome);
                }
                first
            });
        }
    }
}
