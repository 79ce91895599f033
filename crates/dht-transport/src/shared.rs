//! What every part of a running transport shares, and the life of a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, NodeId};
use dht_peers::{
    Direction,
    policy::{Offence, Parties},
};
use dht_stack::ByteBudget;
use futures::future::join;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Connection, Event, InboundStream, MESSAGING_PROTOCOL, Substream,
    admission::{Admission, ConnectionSlot},
    channels,
    connection::Parts,
    dialer::Dials,
    limits::{CLOSE_TIMEOUT, DRAIN_TIMEOUT},
    medium::Media,
    messaging::{Connect, End, InboundSlot, Outboxes, PeerSession, Receiver},
    metrics,
    mux::{Backlog, Driver, LiveStreams, SendMeter},
    negotiate,
    socket::WireCounters,
    table::{Installed, IsLast, Table},
    tasks::Tasks,
    upgrade::{Upgrade, Upgraded},
};

/// The parts of a transport that its tasks hold.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) upgrade: Upgrade,
    pub(crate) media: Media,
    pub(crate) table: Table,
    pub(crate) admission: Arc<Admission>,
    pub(crate) dials: Dials,
    pub(crate) outboxes: Arc<Outboxes>,
    pub(crate) receiver: Receiver,
    /// For what peers sent and nobody has read yet.
    pub(crate) unread: ByteBudget,
    pub(crate) handlers: Vec<(Bytes, mpsc::Sender<InboundStream>)>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) liveness: Arc<Semaphore>,
    pub(crate) tasks: Tasks,
    /// Nothing new: sockets, messages, dials of the owner.
    pub(crate) stopping: CancellationToken,
    /// No more dials at all, not even for messages that still wait.
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
}

impl Shared {
    /// Puts an upgraded channel to use. Returns the connection that counts for the peer from now on, which is
    /// another one if the tie-break says so.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        upgraded: Upgraded,
        direction: Direction,
        address: Address,
        slot: ConnectionSlot,
        took: Duration,
    ) -> Arc<Connection> {
        let Upgraded {
            channel,
            peer,
            info,
        } = upgraded;
        let (requests, incoming) = channels::OPEN_REQUESTS.open();
        let live = Arc::<LiveStreams>::default();
        let meter = Arc::<SendMeter>::default();
        let connection = Arc::new(Connection::new(Parts {
            id: self
                .counters
                .next_connection
                .fetch_add(1, Ordering::Relaxed),
            peer,
            info,
            direction,
            address,
            requests,
            live: Arc::clone(&live),
            meter: Arc::clone(&meter),
        }));
        let driver = Driver::new(
            channel,
            direction == Direction::Outbound,
            incoming,
            live,
            meter,
            Backlog::new(self.unread.clone()),
            self.config.max_inbound_streams,
        );
        metrics::opened(direction, took.as_secs_f64());
        let total = match direction {
            Direction::Inbound => &self.counters.inbound,
            Direction::Outbound => &self.counters.outbound,
        };
        total.fetch_add(1, Ordering::Relaxed);
        let (winner, announce) = match self.table.install(&connection) {
            Installed::First => (Arc::clone(&connection), Some(false)),
            Installed::Replaced(old) => {
                old.retire();
                (Arc::clone(&connection), Some(true))
            }
            Installed::Lost(existing) => {
                connection.retire();
                (existing, None)
            }
        };
        // A shutdown closes what is in the table after this fired; what came too late for that ends here.
        if self.halted.is_cancelled() {
            connection.close(true);
        }
        let life = Life {
            shared: Arc::clone(self),
            connection,
            driver,
            slot,
        };
        self.tasks.spawn(life.run(announce));
        winner
    }

    /// Queues an event that may get lost.
    pub(crate) fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            metrics::event_lost();
        }
    }

    /// Queues an event that may not get lost.
    pub(crate) async fn announce(&self, event: Event) {
        // Fails only if nobody listens any more.
        let _nobody = self.events.send(event).await;
    }

    /// Closes a connection for an offence of the peer, and reports it.
    fn accuse(&self, connection: &Connection, offence: Offence) {
        connection.close(true);
        let peer = Parties::peer(connection.peer().public_key);
        self.upgrade.bans.report(offence, peer);
    }
}

/// One connection from its installation to its end.
struct Life {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    driver: Driver,
    /// Counts the connection until the very end.
    slot: ConnectionSlot,
}

/// Marks the end of a connection whatever way its task ends.
struct Ending<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
}

impl Ending<'_> {
    fn take_out(&self) -> Option<IsLast> {
        self.connection.set_ended();
        self.shared.table.remove(self.connection)
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.take_out();
        metrics::closed(self.connection.direction());
    }
}

impl Life {
    /// `announce`: tell the owner, and whether the connection replaced another.
    async fn run(self, announce: Option<bool>) {
        let Self {
            shared,
            connection,
            mut driver,
            slot,
        } = self;
        let ending = Ending {
            shared: &shared,
            connection: &connection,
        };
        let mut streams = JoinSet::new();
        let driven = drive(&shared, &connection, &mut driver, &mut streams);
        let announced = async {
            if let Some(replaced) = announce {
                let connection = Arc::clone(&connection);
                shared
                    .announce(Event::Connected {
                        connection,
                        replaced,
                    })
                    .await;
            }
        };
        // Correctness: the driver runs while the owner is waited for.
        let ((), ()) = join(driven, announced).await;
        // The socket does not wait for the owner.
        drop(driver);
        if let Some(IsLast(last)) = ending.take_out() {
            let node_id = *connection.node_id();
            let minimized = connection.is_minimized();
            shared
                .announce(Event::Disconnected { node_id, minimized })
                .await;
            if last {
                shared.tell(Event::Offline);
            }
        }
        // Messages that arrived completely are still worth delivering.
        let rest = async { while streams.join_next().await.is_some() {} };
        let _given_up = timeout(DRAIN_TIMEOUT, rest).await;
        streams.shutdown().await;
        drop(slot);
    }
}

/// Runs the multiplexer until the peer ends the connection or we do.
async fn drive(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    driver: &mut Driver,
    streams: &mut JoinSet<()>,
) {
    let slot = Arc::new(InboundSlot::new());
    let supported: Arc<[Bytes]> = Arc::clone(&shared.upgrade.protocols);
    let running = driver.run(|stream| {
        // Bounded: the driver resets streams over the limit of live ones.
        while streams.try_join_next().is_some() {}
        let inbound = Inbound {
            shared: Arc::clone(shared),
            connection: Arc::clone(connection),
            slot: Arc::clone(&slot),
            supported: Arc::clone(&supported),
        };
        streams.spawn(inbound.run(stream));
    });
    let drained = async {
        connection.retired().cancelled().await;
        sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        () = connection.closing().cancelled() => {}
        () = drained => {}
        result = running => {
            if let Err(error) = result {
                tracing::debug!(peer = %connection.node_id(), %error, "connection broke");
            }
            connection.set_ended();
            return;
        }
    }
    connection.set_ended();
    let _too_slow = timeout(CLOSE_TIMEOUT, driver.close()).await;
}

/// A stream the peer opened.
struct Inbound {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    slot: Arc<InboundSlot>,
    supported: Arc<[Bytes]>,
}

impl Inbound {
    async fn run(self, mut stream: Substream) {
        let protocol = match negotiate::respond(&mut stream, &self.supported).await {
            Ok(protocol) => protocol,
            Err(error) => {
                if error.is_offence() {
                    self.shared.accuse(&self.connection, Offence::Negotiation);
                }
                return;
            }
        };
        if protocol == MESSAGING_PROTOCOL {
            self.receive(stream).await;
        } else if let Some((_, handler)) =
            self.shared.handlers.iter().find(|(id, _)| *id == protocol)
        {
            let peer = Arc::clone(self.connection.peer());
            // A busy owner sheds: the stream is dropped, which resets it.
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
        let peer = Arc::clone(self.connection.peer());
        let receiver = &self.shared.receiver;
        let end = receiver.run(stream, peer, &self.slot, replaced).await;
        tracing::trace!(peer = %self.connection.node_id(), ?end, "messaging session ended");
        if let End::TooLong(_) = end {
            self.shared.accuse(&self.connection, Offence::FrameTooLong);
        }
    }
}

/// Connects peer sessions to peers of the directory.
pub(crate) struct DirectoryConnector(pub(crate) Arc<Shared>);

impl Connect for DirectoryConnector {
    async fn connect(&self, peer: &NodeId) -> Option<Arc<Connection>> {
        self.0.dial_known(peer).await.ok()
    }
}

/// The session of one peer's outbound messages.
pub(crate) type Session = PeerSession<DirectoryConnector>;
