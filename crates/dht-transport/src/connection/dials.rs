//! Dials under way, and the callers that wait for them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::{Deliverer, NodeId};
use dht_stack::Watch;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    cause::{DialCause, Requester},
    handle::Connection,
};
use crate::{error::DialError, limits::MAX_PEER_DIALS_PER_DELIVERER, metrics};

pub(super) type Outcome = Result<Arc<Connection>, DialError>;

/// Dials under way, at most one a peer. Each is a task that ends by its deadlines.
#[derive(Debug)]
pub(crate) struct Dials {
    pub(super) pending: Mutex<HashMap<NodeId, Pending>>,
    /// Dials that may run at one time, for each cause.
    places: [Semaphore; DialCause::ALL.len()],
    /// Dials that run for each deliverer.
    by_deliverer: Mutex<HashMap<Option<Deliverer>, usize>>,
}

/// The right of a dial to run, until dropped.
pub(super) struct DialPlace<'a> {
    _place: SemaphorePermit<'a>,
    _share: Option<DelivererShare<'a>>,
}

/// Place of a dial that a peer causes, among those of its deliverer.
struct DelivererShare<'a> {
    dials: &'a Dials,
    deliverer: Option<Deliverer>,
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
            by_deliverer: Mutex::default(),
        }
    }
}

impl Dials {
    /// Waits for a place among the dials of a cause, at most this long. A dial that a peer causes, or an announcement, waits for nothing.
    pub(super) async fn place(
        &self,
        Requester { cause, deliverer }: Requester,
        limit: Duration,
    ) -> Result<DialPlace<'_>, DialError> {
        let refused = |limit| {
            metrics::dial_refused(cause, limit);
            DialError::TooManyDials
        };
        let share = match cause {
            DialCause::Peer => {
                let share = self.share(deliverer);
                Some(share.ok_or_else(|| refused("dials_of_deliverer"))?)
            }
            _ => None,
        };
        let places = cause.of(&self.places);
        let place = match cause {
            DialCause::Peer | DialCause::Lan => places.try_acquire().ok(),
            _ => timeout(limit, places.acquire())
                .await
                .ok()
                .and_then(Result::ok),
        };
        Ok(DialPlace {
            _place: place.ok_or_else(|| refused("dials_of_cause"))?,
            _share: share,
        })
    }

    fn share(&self, deliverer: Option<Deliverer>) -> Option<DelivererShare<'_>> {
        let mut by_deliverer = self.by_deliverer.lock();
        let held = by_deliverer.get(&deliverer).copied().unwrap_or_default();
        if held >= MAX_PEER_DIALS_PER_DELIVERER {
            return None;
        }
        by_deliverer.insert(deliverer, held + 1);
        Some(DelivererShare {
            dials: self,
            deliverer,
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

impl Drop for DelivererShare<'_> {
    fn drop(&mut self) {
        let mut by_deliverer = self.dials.by_deliverer.lock();
        if let Some(held) = by_deliverer.get_mut(&self.deliverer) {
            *held -= 1;
            if *held == 0 {
                by_deliverer.remove(&self.deliverer);
            }
        }
    }
}
