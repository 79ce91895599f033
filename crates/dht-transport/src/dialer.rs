//! Dialling peers: one dial a peer at a time, whoever asks.
//! docs/protocol/02-transport-and-connectivity.md section 9.1.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::{Address, NodeId, PublicKey};
use dht_peers::{Direction, Sighting};
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Connection, DialError, DialFailure, Event, UpgradeError,
    limits::MAX_DIAL_ADDRESSES,
    metrics,
    shared::Shared,
    upgrade::{Upgrade, Upgraded},
};

type Outcome = Result<Arc<Connection>, DialError>;

/// Dials under way. Bounded by what this node asks for: each is one task and ends by its deadlines.
#[derive(Debug, Default)]
pub(crate) struct Dials(Mutex<HashMap<NodeId, Pending>>);

#[derive(Debug)]
struct Pending {
    outcome: watch::Sender<Option<Outcome>>,
    cancel: CancellationToken,
    /// Whether the peer may know of our dial already.
    spoken: Arc<AtomicBool>,
}

impl Dials {
    /// Gives a dial up; its callers get [`DialError::Cancelled`].
    pub(crate) fn cancel(&self, peer: &NodeId) {
        if let Some(pending) = self.0.lock().get(peer) {
            pending.cancel.cancel();
        }
    }

    /// The peer connected to us: whoever waits for our dial gets that connection.
    ///
    /// A dial the peer may have seen goes on. If the tie-break prefers it, the peer has given up its own in its
    /// favour; if not, the peer may have written messages to it already, which only an orderly end delivers.
    pub(crate) fn on_inbound(&self, connection: &Arc<Connection>) {
        let pending = self.0.lock();
        if let Some(pending) = pending.get(connection.node_id()) {
            let _nobody = pending.outcome.send(Some(Ok(Arc::clone(connection))));
            if !pending.spoken.load(Ordering::SeqCst) {
                pending.cancel.cancel();
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Takes `dial` out and answers its callers. A later dial of the same peer is none of its business.
    fn finish(&self, dial: &Dial, outcome: Outcome) {
        let mut dials = self.0.lock();
        let own = dials
            .get(&dial.peer)
            .is_some_and(|held| Arc::ptr_eq(&held.spoken, &dial.spoken));
        if own && let Some(pending) = dials.remove(&dial.peer) {
            // An inbound connection may have answered already.
            pending.outcome.send_if_modified(|held| {
                let first = held.is_none();
                if first {
                    *held = Some(outcome);
                }
                first
            });
        }
    }
}

impl Shared {
    /// As [`dial`](Self::dial), with the key and the addresses that the directory knows.
    pub(crate) async fn dial_known(self: &Arc<Self>, peer: &NodeId) -> Outcome {
        if let Some(connection) = self.table.find(peer) {
            return Ok(connection);
        }
        let Upgrade {
            directory, clock, ..
        } = &self.upgrade;
        let record = directory.find(peer).ok_or(DialError::UnknownPeer)?;
        let addresses = record.dial_order(clock.now());
        let addresses = addresses.into_iter().map(|known| known.address.clone());
        self.dial(record.public_key(), addresses.collect()).await
    }

    /// A connection to the holder of `key`: the live one, or a new one over the first address that works.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        key: &PublicKey,
        addresses: Vec<Address>,
    ) -> Outcome {
        if key == self.upgrade.identity.public_key() {
            return Err(DialError::OwnKey);
        }
        let peer = key.node_id();
        if let Some(connection) = self.table.find(&peer) {
            return Ok(connection);
        }
        if self.upgrade.is_banned(key) {
            return Err(DialError::Banned);
        }
        let mut outcome = {
            let mut dials = self.dials.0.lock();
            if self.halted.is_cancelled() {
                return Err(DialError::Cancelled);
            }
            if let Some(pending) = dials.get(&peer) {
                pending.outcome.subscribe()
            } else {
                let (sender, outcome) = watch::channel(None);
                let cancel = self.halted.child_token();
                let spoken = Arc::<AtomicBool>::default();
                let task = Dial {
                    shared: Arc::clone(self),
                    key: *key,
                    peer,
                    addresses,
                    spoken: Arc::clone(&spoken),
                    turn: tokio::sync::Mutex::default(),
                };
                dials.insert(
                    peer,
                    Pending {
                        outcome: sender,
                        cancel: cancel.clone(),
                        spoken,
                    },
                );
                self.tasks.spawn(task.run(cancel));
                outcome
            }
        };
        let outcome = outcome
            .wait_for(Option::is_some)
            .await
            .map_err(|_| DialError::Cancelled)?;
        outcome.clone().unwrap_or(Err(DialError::Cancelled))
    }
}

/// One dial.
struct Dial {
    shared: Arc<Shared>,
    key: PublicKey,
    peer: NodeId,
    addresses: Vec<Address>,
    spoken: Arc<AtomicBool>,
    /// Held by the attempt that may let the peer have a connection.
    turn: tokio::sync::Mutex<()>,
}

/// Takes the dial out of the table however its task ends.
struct Registered<'a>(&'a Dial);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0
            .shared
            .dials
            .finish(self.0, Err(DialError::Cancelled));
    }
}

impl Dial {
    async fn run(self, cancel: CancellationToken) {
        let _registered = Registered(&self);
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(DialError::Cancelled),
            outcome = self.attempt() => outcome,
        };
        let failure = outcome.as_ref().err().cloned();
        self.shared.dials.finish(&self, outcome);
        if let Some(error) = failure {
            self.shared
                .counters
                .dials_failed
                .fetch_add(1, Ordering::Relaxed);
            self.shared.tell(Event::DialFailed {
                node_id: self.peer,
                error,
            });
        }
    }

    /// Tries the addresses: the next one starts when the one before failed, or after a moment beside it.
    async fn attempt(&self) -> Outcome {
        let shared = &self.shared;
        let candidates: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| shared.media.serves(address))
            .take(MAX_DIAL_ADDRESSES)
            .collect();
        let mut waiting = candidates.into_iter();
        let slot = shared
            .admission
            .admit_outbound()
            .ok_or(DialError::TooManyConnections)?;
        let mut error = DialError::NoAddresses;
        let mut running = FuturesUnordered::new();
        loop {
            if running.is_empty() {
                match waiting.next() {
                    Some(address) => running.push(self.address(address)),
                    None => return Err(error),
                }
            }
            tokio::select! {
                biased;
                Some((address, started, result)) = running.next() => {
                    self.record(address, result.as_ref().map(|_| started.elapsed()));
                    match result {
                        Ok(upgraded) => {
                            // Cut the others off before the connection counts.
                            drop(running);
                            return Ok(shared.adopt(
                                upgraded,
                                Direction::Outbound,
                                address.clone(),
                                slot,
                                started.elapsed(),
                            ));
                        }
                        Err(DialFailure::Upgrade(UpgradeError::OwnKey)) => {
                            error = DialError::OwnKey;
                        }
                        Err(DialFailure::Upgrade(UpgradeError::Banned)) => {
                            return Err(DialError::Banned);
                        }
                        Err(failure) => error = DialError::Failed(failure),
                    }
                }
                () = sleep(shared.config.dial_stagger), if waiting.len() > 0 => {
                    if let Some(address) = waiting.next() {
                        running.push(self.address(address));
                    }
                }
            }
        }
    }

    async fn address<'a>(
        &'a self,
        address: &'a Address,
    ) -> (&'a Address, Instant, Result<Upgraded, DialFailure>) {
        let started = Instant::now();
        (address, started, self.reach(address).await)
    }

    async fn reach(&self, address: &Address) -> Result<Upgraded, DialFailure> {
        let shared = &self.shared;
        let socket = timeout(shared.config.connect_timeout, shared.media.dial(address))
            .await
            .map_err(|_| DialFailure::ConnectTimeout)?
            .map_err(|error| DialFailure::Connect(error.kind()))?
            .counted(Arc::clone(&shared.wire));
        self.spoken.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + shared.config.upgrade_timeout;
        shared
            .upgrade
            .outbound(socket, &self.key, &self.turn, deadline)
            .await
            .map_err(|failed| {
                metrics::upgrade_failed(Direction::Outbound);
                shared.upgrade.report(&failed, true);
                DialFailure::Upgrade(failed.error)
            })
    }

    /// Enters in the directory how dialling one address went. Success means the whole upgrade: a connected socket
    /// alone proves nothing about the peer.
    fn record(&self, address: &Address, outcome: Result<Duration, &DialFailure>) {
        let Upgrade {
            directory, clock, ..
        } = &self.shared.upgrade;
        let now = clock.now();
        match outcome {
            Ok(took) => {
                let sighting = Sighting {
                    latency: None,
                    dial_time: Some(took),
                };
                directory.mark_seen(&self.peer, address, sighting, now);
            }
            Err(failure) => {
                directory.mark_failed(&self.peer, address, &failure.to_string(), now);
            }
        }
    }
}
