//! Dialling peers: one dial a peer at a time, however many callers ask.
//! docs/protocol/02-transport-and-connectivity.md section 9.1.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dht_core::{Address, Clock as _, NodeId, PublicKey};
use dht_peers::{DialTimes, Direction};
use dht_stack::Watch;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::Refusal,
    cause::{DialCause, Requester},
    dials::{Outcome, Pending},
    handle::{Connection, Origin},
    targets::{Candidate, TargetPlace, Targets, first_of},
    upgrade::{Upgrade, Upgraded},
};
use crate::{
    error::{DialError, UpgradeError},
    event::ConnectionEvent,
    limits::MAX_DIAL_ADDRESSES,
    medium::Socket,
    metrics,
    state::State,
};

impl State {
    /// As [`dial`](Self::dial), with the key and the addresses that the directory knows.
    pub(crate) async fn dial_known(
        self: &Arc<Self>,
        peer: &NodeId,
        requester: Requester,
    ) -> Outcome {
        if let Some(connection) = self.table.find(peer) {
            return Ok(used_for(connection, requester.cause));
        }
        let Upgrade {
            directory, clock, ..
        } = &self.upgrade;
        let record = directory.find(peer).ok_or(DialError::UnknownPeer)?;
        let key = record.public_key().decode();
        let key = key.map_err(|_| DialError::UnknownPeer)?;
        let candidates = record.dial_order(clock.now()).into_iter();
        let candidates = candidates.map(|known| Candidate {
            address: known.address.clone(),
            is_untrusted_target: match requester.cause {
                DialCause::Operator => false,
                DialCause::Application | DialCause::Overlay => known.is_hearsay(),
                DialCause::Peer | DialCause::Lan => true,
            },
        });
        self.dial(&key, candidates.collect(), requester).await
    }

    /// A connection to the holder of `key`: the live one, or a new one over the first address that works.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        key: &PublicKey,
        candidates: Vec<Candidate>,
        requester: Requester,
    ) -> Outcome {
        if key == self.upgrade.identity.public_key() {
            return Err(DialError::OwnKey);
        }
        let (peer, cause) = (key.node_id(), requester.cause);
        loop {
            if let Some(connection) = self.table.find(&peer) {
                return Ok(used_for(connection, cause));
            }
            if self.upgrade.is_banned(key) {
                return Err(DialError::Banned);
            }
            let (joined, outcome) = self.pending(key, &candidates, requester)?;
            match outcome.until(Option::clone).await {
                // It had narrower limits than a dial of this cause.
                Err(_) if cause < joined => {}
                outcome => return outcome.map(|connection| used_for(connection, cause)),
            }
        }
    }

    /// The dial of a peer that is under way, or a new one of this cause.
    fn pending(
        self: &Arc<Self>,
        key: &PublicKey,
        candidates: &[Candidate],
        requester: Requester,
    ) -> Result<(DialCause, Watch<Option<Outcome>>), DialError> {
        let peer = key.node_id();
        let mut dials = self.dials.pending.lock();
        if self.halted.is_cancelled() {
            return Err(DialError::Cancelled);
        }
        if let Some(pending) = dials.get(&peer) {
            return Ok((pending.cause, pending.outcome.clone()));
        }
        let outcome = Watch::new(None);
        let cancel = self.halted.child_token();
        let spoken = Arc::<AtomicBool>::default();
        let task = Dial {
            state: Arc::clone(self),
            requester,
            key: *key,
            peer,
            candidates: candidates.to_vec(),
            spoken: Arc::clone(&spoken),
            turn: tokio::sync::Mutex::default(),
        };
        let cause = requester.cause;
        let pending = Pending {
            cause,
            outcome: outcome.clone(),
            cancel: cancel.clone(),
            spoken,
        };
        dials.insert(peer, pending);
        self.tasks.spawn(task.run(cancel));
        Ok((cause, outcome))
    }
}

/// A connection that this node uses for more than an answer stays open.
fn used_for(connection: Arc<Connection>, cause: DialCause) -> Arc<Connection> {
    if cause != DialCause::Peer {
        connection.keep();
    }
    connection
}

/// One dial.
struct Dial {
    state: Arc<State>,
    requester: Requester,
    key: PublicKey,
    peer: NodeId,
    candidates: Vec<Candidate>,
    spoken: Arc<AtomicBool>,
    /// Held by the attempt that may let the peer have a connection.
    turn: tokio::sync::Mutex<()>,
}

/// A peer at the end of a dial.
struct Reached {
    upgraded: Upgraded,
    /// Address that was connected to, which no name stands for.
    target: Address,
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
        let most = match self.requester.cause {
            DialCause::Peer => 1,
            _ => MAX_DIAL_ADDRESSES,
        };
        let served = |candidate: &&Candidate| Targets::serves(&state.media, candidate);
        let candidates: Vec<_> = self.candidates.iter().filter(served).take(most).collect();
        let mut waiting = candidates.into_iter();
        let _place = (state
            .dials
            .place(self.requester, state.config.connect_timeout))
        .await?;
        let slot = state.admission.admit_dial(self.requester.cause);
        let slot = slot.map_err(|refusal| self.refused(refusal))?;
        let mut error = DialError::NoAddresses;
        let mut running = FuturesUnordered::new();
        loop {
            if running.is_empty() {
                match waiting.next() {
                    Some(candidate) => running.push(self.candidate(candidate)),
                    None => return Err(error),
                }
            }
            tokio::select! {
                biased;
                Some((address, started, result)) = running.next() => {
                    self.record(address, result.as_ref().map(|_| started.elapsed()));
                    match result {
                        Ok(Reached { upgraded, target }) => {
                            // Cut the others off before the connection counts.
                            drop(running);
                            let mut slot = slot;
                            if self.requester.cause == DialCause::Peer {
                                let source = state.admission.source_of(&target);
                                let counted = slot.count_for(source);
                                counted.map_err(|refusal| self.refused(refusal))?;
                            }
                            let group = state.admission.group_of(&target);
                            let origin = Origin::Dialled(self.requester.cause);
                            let address = address.clone();
                            return Ok(state.adopt(upgraded, origin, address, group, slot, started.elapsed()));
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
                    if let Some(candidate) = waiting.next() {
                        running.push(self.candidate(candidate));
                    }
                }
            }
        }
    }

    async fn candidate<'a>(
        &'a self,
        candidate: &'a Candidate,
    ) -> (&'a Address, Instant, Result<Reached, DialError>) {
        let started = Instant::now();
        (&candidate.address, started, self.reach(candidate).await)
    }

    async fn reach(&self, candidate: &Candidate) -> Result<Reached, DialError> {
        let state = &self.state;
        let limit = match self.requester.cause {
            // An onion service that does not answer soon holds up a place that others wait for.
            DialCause::Peer => state.config.connect_timeout,
            _ => state.config.connect_limit(&candidate.address),
        };
        let connected = timeout(limit, self.connect(candidate));
        let (socket, target, _place) = connected.await.map_err(|_| DialError::ConnectTimeout)??;
        let socket = socket.counted(Arc::clone(&state.wire));
        self.spoken.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + state.config.upgrade_timeout;
        state
            .upgrade
            .outbound(socket, &self.key, &self.turn, deadline)
            .await
            .map(|upgraded| Reached { upgraded, target })
            .map_err(|failed| {
                metrics::upgrade_failed(Direction::Outbound);
                state.upgrade.report(&failed, true);
                DialError::Upgrade(failed.error)
            })
    }

    /// A socket to the first target behind an address that answers.
    async fn connect(
        &self,
        candidate: &Candidate,
    ) -> Result<(Socket, Address, Option<TargetPlace>), DialError> {
        let state = &self.state;
        let resolved = (state.targets).resolve(&state.media, candidate, self.requester.cause);
        let targets = resolved.await.inspect_err(|error| {
            if *error == DialError::PrivateTarget {
                metrics::dial_refused(self.requester.cause, "private_target");
            }
        })?;
        let place = match targets.first() {
            Some(target) if candidate.is_untrusted_target => {
                let group = state.admission.group_of(target);
                let now = state.upgrade.clock.now();
                let place = (state.targets).claim(target, self.requester.cause, group, now);
                Some(place.ok_or_else(|| {
                    metrics::dial_refused(self.requester.cause, "dials_of_target");
                    DialError::TooManyDials
                })?)
            }
            _ => None,
        };
        let connect = |target: Address| async move {
            let socket = state.media.dial(&target).await?;
            Ok((socket, target))
        };
        let connected = first_of(targets, connect).await;
        let (socket, target) = connected.map_err(|error| DialError::of_socket(&error))?;
        Ok((socket, target, place))
    }

    fn refused(&self, refusal: Refusal) -> DialError {
        metrics::dial_refused(self.requester.cause, refusal.name());
        DialError::TooManyConnections
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
            // Say nothing about the address.
            Err(DialError::TooManyDials | DialError::Proxy(_)) => {}
            Err(failure) => {
                let reason = failure.failure().to_string();
                directory.mark_failed(&self.peer, address, &reason, now);
            }
        }
    }
}
