//! The life of a connection, from its installation in the table to its end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, Deliverer, RemotePeer, SourceGroup};
use dht_peers::{
    Direction,
    policy::{Offence, Parties},
};
use futures::future::join3;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    admission::ConnectionSlot,
    cause::DialCause,
    contest::Contest,
    handle::{Connection, Origin, Parts},
    table::{Installed, Removed},
    upgrade::Upgraded,
};
use crate::{
    channels,
    event::ConnectionEvent,
    limits::{ANSWER_LINGER, CLOSE_TIMEOUT, DRAIN_TIMEOUT, PROBE_TIMEOUT},
    messaging::{End, InboundSlot, MESSAGING_PROTOCOL},
    metrics,
    mux::{Backlog, LiveStreams, MuxSettings, MuxTask, SendMeter, Substream},
    negotiate,
    outlets::InboundStream,
    state::State,
};

impl State {
    /// Makes a connection of an upgraded channel, and spawns its task. Returns the connection in the table, which is
    /// an earlier one if that wins the tie-break (02 section 9.5).
    pub(crate) fn adopt(
        self: &Arc<Self>,
        upgraded: Upgraded,
        origin: Origin,
        address: Address,
        group: Option<SourceGroup>,
        mut slot: ConnectionSlot,
        took: Duration,
    ) -> Arc<Connection> {
        slot.connected();
        let Upgraded {
            channel,
            peer,
            info,
            round_trip,
        } = upgraded;
        let peer = peer.at(group);
        let direction = origin.direction();
        let (requests, incoming) = channels::OPEN_REQUESTS.open();
        let live = Arc::<LiveStreams>::default();
        let meter = Arc::<SendMeter>::default();
        let connection = Arc::new(Connection::new(Parts {
            id: self
                .counters
                .next_connection
                .fetch_add(1, Ordering::Relaxed),
            rank: self.rank(&peer),
            peer: Arc::new(peer),
            info,
            origin,
            address,
            round_trip,
            requests,
            live: Arc::clone(&live),
            meter: Arc::clone(&meter),
        }));
        let mux_task = MuxTask::new(
            channel,
            MuxSettings {
                we_dialled: direction == Direction::Outbound,
                max_inbound: self.config.max_inbound_streams,
                measures: !self.reproducible,
            },
            incoming,
            live,
            meter,
            Backlog::new(self.unread.clone()),
        );
        metrics::opened(direction, took.as_secs_f64());
        let total = match direction {
            Direction::Inbound => &self.counters.inbound,
            Direction::Outbound => &self.counters.outbound,
        };
        total.fetch_add(1, Ordering::Relaxed);
        let Installed {
            winner,
            loser,
            is_first,
        } = self.table.install(&connection);
        self.make_room(&connection);
        // A shutdown closes the connections in the table once; one installed later is closed here.
        if self.halted.is_cancelled() {
            connection.close(true);
        }
        let life = Life {
            state: Arc::clone(self),
            replaced: (winner.id() == connection.id()).then_some(!is_first),
            contest: loser.map(|loser| Contest {
                winner: Arc::clone(&winner),
                loser,
                limit: PROBE_TIMEOUT + took,
            }),
            connection,
            mux_task,
            slot,
        };
        self.tasks.spawn(life.run());
        winner
    }

    /// Place of a peer's source group in an order that only this node knows.
    fn rank(&self, peer: &RemotePeer) -> u64 {
        if peer.source.is_none() {
            return 0;
        }
        let mut hash = blake2b_simd::Params::new();
        let hash = hash
            .hash_length(8)
            .key(&self.rank_key)
            .hash(Deliverer::from(peer).as_bytes());
        hash.as_bytes()
            .iter()
            .fold(0, |rank, byte| rank << 8 | u64::from(*byte))
    }

    /// Tells the owner that another connection of a peer counts from now on.
    async fn announce_reinstated(&self, connection: Arc<Connection>) {
        let replaced = true;
        self.announce(ConnectionEvent::Connected {
            connection,
            replaced,
        })
        .await;
    }

    /// Closes the connections of a peer for an offence, and reports it.
    fn accuse(&self, connection: &Connection, offence: Offence) {
        connection.close(true);
        self.table.close(connection.node_id());
        let peer = Parties::peer(connection.peer().public_key);
        self.upgrade.bans.report(offence, peer);
    }
}

/// One connection from its installation to its end.
struct Life {
    state: Arc<State>,
    connection: Arc<Connection>,
    mux_task: MuxTask,
    /// `None` if it does not count at first, else whether it replaced another.
    replaced: Option<bool>,
    /// With the peer's other connection.
    contest: Option<Contest>,
    /// Slot in the limit of connections, freed when the socket is closed.
    slot: ConnectionSlot,
}

/// Takes a connection out of the table when dropped, so also when its task panics or is aborted.
struct Ending<'a> {
    state: &'a State,
    connection: &'a Connection,
}

impl Ending<'_> {
    fn take_out(&self) -> Removed {
        self.connection.set_ended();
        self.state.table.remove(self.connection)
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.take_out();
        metrics::closed(self.connection.direction());
    }
}

impl Life {
    async fn run(self) {
        let Self {
            state,
            connection,
            mut mux_task,
            replaced,
            contest,
            mut slot,
        } = self;
        let ending = Ending {
            state: &state,
            connection: &connection,
        };
        let mut streams = JoinSet::new();
        let driven = async {
            let driven = drive(&state, &connection, &mut mux_task, &mut streams, &mut slot);
            if state.tasks.panics().catch(driven).await.is_none() {
                connection.set_ended();
            }
        };
        let announced = async {
            if let Some(replaced) = replaced {
                let connection = Arc::clone(&connection);
                state
                    .announce(ConnectionEvent::Connected {
                        connection,
                        replaced,
                    })
                    .await;
            }
        };
        let contested = async {
            let Some(contest) = contest else {
                return;
            };
            let other = tokio::select! {
                biased;
                other = contest.run(&state.table) => other,
                () = connection.closed() => None,
            };
            if let Some(other) = other {
                state.announce_reinstated(other).await;
            }
        };
        // Correctness: the mux task runs while this task waits for room in the event channel.
        let ((), (), ()) = join3(driven, announced, contested).await;
        // Closes the socket before this task waits for room in the event channel again.
        drop(mux_task);
        match ending.take_out() {
            Removed::Uncounted => {}
            Removed::Reinstated(other) => state.announce_reinstated(other).await,
            Removed::Gone { was_last } => {
                let node_id = *connection.node_id();
                state
                    .announce(ConnectionEvent::Disconnected {
                        node_id,
                        minimized: connection.is_minimized(),
                        refused: connection.was_refused(),
                    })
                    .await;
                if was_last {
                    state.tell(ConnectionEvent::Offline);
                }
            }
        }
        // The socket is closed, and another connection waits for the slot.
        drop(slot);
        // Messages that arrived completely are still delivered.
        let rest = async { while streams.join_next().await.is_some() {} };
        let _given_up = timeout(DRAIN_TIMEOUT, rest).await;
        streams.shutdown().await;
    }
}

/// Runs the multiplexer until either side ends the connection.
async fn drive(
    state: &Arc<State>,
    connection: &Arc<Connection>,
    mux_task: &mut MuxTask,
    streams: &mut JoinSet<()>,
    slot: &mut ConnectionSlot,
) {
    let inbound = Arc::new(InboundSlot::new());
    let supported: Arc<[Bytes]> = Arc::clone(&state.upgrade.protocols);
    let running = mux_task.run(|stream| {
        // Bounded: the task resets streams over the limit of live ones.
        while streams.try_join_next().is_some() {}
        let inbound = Inbound {
            state: Arc::clone(state),
            connection: Arc::clone(connection),
            slot: Arc::clone(&inbound),
            supported: Arc::clone(&supported),
        };
        streams.spawn(inbound.supervised(stream));
    });
    // A peer that had this node dial it either talks to it, and counts as if it had dialled, or is let go.
    let passed = async {
        if connection.is_passing() {
            sleep(ANSWER_LINGER).await;
            let queued_for = state.queues.cause(connection.node_id());
            let by_others = queued_for.is_some_and(|cause| cause != DialCause::Peer);
            if connection.is_passing() && !by_others {
                return;
            }
            slot.leave_cause();
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = connection.closing().cancelled() => {}
        () = connection.until_drained() => {}
        () = passed => connection.close(true),
        result = running => {
            if let Err(error) = result {
                tracing::debug!(peer = %connection.node_id(), %error, "connection broke");
            }
            connection.set_ended();
            return;
        }
    }
    connection.set_ended();
    if connection.is_evicted() {
        return;
    }
    let _too_slow = timeout(CLOSE_TIMEOUT, mux_task.close()).await;
}

/// A stream that the peer opened.
struct Inbound {
    state: Arc<State>,
    connection: Arc<Connection>,
    slot: Arc<InboundSlot>,
    supported: Arc<[Bytes]>,
}

impl Inbound {
    /// A panic ends the connection.
    async fn supervised(self, stream: Substream) {
        let (state, connection) = (Arc::clone(&self.state), Arc::clone(&self.connection));
        if state.tasks.panics().catch(self.run(stream)).await.is_none() {
            connection.close(false);
        }
    }

    async fn run(self, mut stream: Substream) {
        let protocol = match negotiate::respond(&mut stream, &self.supported).await {
            Ok(protocol) => protocol,
            Err(error) => {
                if error.is_offence() {
                    self.state.accuse(&self.connection, Offence::Negotiation);
                }
                return;
            }
        };
        if protocol == MESSAGING_PROTOCOL {
            self.receive(stream).await;
        } else if let Some((_, handler)) =
            self.state.handlers.iter().find(|(id, _)| *id == protocol)
        {
            let peer = Arc::clone(self.connection.peer());
            // If the channel is full the stream is dropped, which resets it.
            if handler
                .try_send(InboundStream {
                    peer,
                    protocol,
                    stream,
                })
                .is_err()
            {
                metrics::stream_shed();
            }
        }
    }

    async fn receive(self, stream: Substream) {
        let Some(replaced) = self.slot.claim(Instant::now()) else {
            metrics::stream_shed();
            return;
        };
        self.connection.keep();
        let peer = Arc::clone(self.connection.peer());
        let receiver = &self.state.receiver;
        let end = receiver.run(stream, peer, &self.slot, replaced).await;
        tracing::trace!(peer = %self.connection.node_id(), ?end, "messaging session ended");
        if let End::TooLong(_) = end {
            self.state.accuse(&self.connection, Offence::FrameTooLong);
        }
    }
}
