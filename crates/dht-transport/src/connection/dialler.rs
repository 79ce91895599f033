//! Dialling peers: one dial a peer at a time, however many callers ask.
//! docs/protocol/02-transport-and-connectivity.md section 9.1.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::{Address, NodeId, PublicKey};
use dht_peers::{DialTimes, Direction};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    dials::{Outcome, Pending},
    upgrade::{Upgrade, Upgraded},
};
use crate::{
    error::{DialError, UpgradeError},
    event::ConnectionEvent,
    limits::MAX_DIAL_ADDRESSES,
    metrics,
    state::State,
};

impl State {
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
                    state: Arc::clone(self),
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
    state: Arc<State>,
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
            .state
            .dials
            .finish(&self.0.peer, &self.0.spoken, Err(DialError::Cancelled));
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
        self.state.dials.finish(&self.peer, &self.spoken, outcome);
        if let Some(error) = failure {
            self.state
                .counters
                .dials_failed
                .fetch_add(1, Ordering::Relaxed);
            self.state.tell(ConnectionEvent::DialFailed {
                node_id: self.peer,
                error,
            });
        }
    }

    /// Tries the addresses: the next one starts when the one before failed, or after a moment beside it.
    async fn attempt(&self) -> Outcome {
        let state = &self.state;
        let candidates: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| state.media.serves(address))
            .take(MAX_DIAL_ADDRESSES)
            .collect();
        let mut waiting = candidates.into_iter();
        let slot = state
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
                            return Ok(state.adopt(
                                upgraded,
                                Direction::Outbound,
                                address.clone(),
                                state.admission.source_of(address),
                                slot,
                                started.elapsed(),
                            ));
                        }
                        Err(DialError::Upgrade(UpgradeError::OwnKey)) => {
                            error = DialError::OwnKey;
                        }
                        Err(DialError::Upgrade(UpgradeError::Banned)) => {
                            return Err(DialError::Banned);
                        }
                        Err(failure) => error = failure,
                    }
                }
                () = sleep(state.config.dial_stagger), if waiting.len() > 0 => {
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
    ) -> (&'a Address, Instant, Result<Upgraded, DialError>) {
        let started = Instant::now();
        (address, started, self.reach(address).await)
    }

    async fn reach(&self, address: &Address) -> Result<Upgraded, DialError> {
        let state = &self.state;
        let socket = timeout(state.config.connect_timeout, state.media.dial(address))
            .await
            .map_err(|_| DialError::ConnectTimeout)?
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => DialError::Lookup,
                kind => DialError::Connect(kind),
            })?
            .counted(Arc::clone(&state.wire));
        self.spoken.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + state.config.upgrade_timeout;
        state
            .upgrade
            .outbound(socket, &self.key, &self.turn, deadline)
            .await
            .map_err(|failed| {
                metrics::upgrade_failed(Direction::Outbound);
                state.upgrade.report(&failed, true);
                DialError::Upgrade(failed.error)
            })
    }

    /// Enters in the directory how dialling one address went. Success means the whole upgrade: a connected socket
    /// alone proves nothing about the peer.
    fn record(&self, address: &Address, outcome: Result<Duration, &DialError>) {
        let Upgrade {
            directory, clock, ..
        } = &self.state.upgrade;
        let now = clock.now();
        match outcome {
            Ok(took) => {
                let times = DialTimes {
                    latency: None,
                    dial_time: Some(took),
                };
                directory.mark_seen(&self.peer, address, times, now);
            }
            Err(failure) => {
                directory.mark_failed(&self.peer, address, &failure.to_string(), now);
            }
        }
    }
}
