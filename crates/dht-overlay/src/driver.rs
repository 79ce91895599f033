//! The task that does what the [`Overlay`] decides.

use std::{io, sync::Arc};

use dht_core::{Clock as _, Entropy as _, NodeId, SharedClock, SharedEntropy};
use dht_peers::Connections;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    overlay::{DialOutcome, Notice, Overlay, OverlayAction, OverlayEvent, Summary},
    sync::{Learner, SyncFailure, SyncReport},
    view::View,
};

/// Access to a node that the overlay needs.
pub trait Ports: Send + Sync + 'static {
    /// A stream to a peer.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Connects to a known peer. A peer that is connected in the end is in the table of [connections](Connections) before this
    /// returns.
    fn dial(&self, peer: NodeId) -> impl Future<Output = DialOutcome> + Send;

    /// Opens a stream of [`PEER_SYNC_PROTOCOL`](crate::sync::PEER_SYNC_PROTOCOL) to a connected peer.
    fn open_sync(&self, peer: NodeId) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Sends a join; whether anybody was there to send it to.
    fn join(&self) -> impl Future<Output = bool> + Send;

    /// Looks up a name of seeds, within a limit of time, and enters these in the directory: they are hearsay.
    fn look_up(&self, name: String) -> impl Future<Output = Vec<NodeId>> + Send;

    /// Closes the connection to a peer on purpose.
    fn disconnect(&self, peer: &NodeId);

    /// Takes note of the state of the overlay, after each change.
    fn changed(&self, summary: &Summary);

    /// Tells the application.
    fn notify(&self, notice: Notice);
}

/// Runs the [`Overlay`] of one node over its [`Ports`].
pub struct Driver<P> {
    /// Access to the node.
    pub ports: Arc<P>,
    /// State machine that decides.
    pub overlay: Overlay,
    /// Enters what peers tell.
    pub learner: Learner,
    /// Peers that are connected.
    pub connections: Connections,
    /// Clock that the directory goes by.
    pub clock: SharedClock,
    /// Source of the randomness.
    pub entropy: SharedEntropy,
}

impl<P: Ports> Driver<P> {
    /// Runs until the senders of events are gone. Events may be lost: what is connected is looked up.
    pub async fn run(mut self, mut events: mpsc::Receiver<OverlayEvent>) {
        let mut rng = self.entropy.rng();
        let mut running: FuturesUnordered<BoxFuture<'static, OverlayEvent>> =
            FuturesUnordered::new();
        let mut event = OverlayEvent::Tick;
        let mut summary = Summary::default();
        loop {
            let at = Instant::now();
            let view = View {
                directory: &self.learner.directory,
                connected: &self.connections.snapshot(),
                at,
                now: self.clock.now(),
            };
            self.overlay.on(event, &view, &mut rng);
            let now = self.overlay.summary();
            if now != summary {
                summary = now;
                self.ports.changed(&summary);
            }
            while let Some(action) = self.overlay.poll_action() {
                running.extend(self.perform(action));
            }
            let timeout = self.overlay.next_timeout(at);
            event = tokio::select! {
                // In this order, so that the same seed gives the same run.
                biased;
                event = events.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
                Some(event) = running.next() => event,
                () = sleep_until(timeout) => OverlayEvent::Tick,
            };
        }
    }

    /// Begins what an action asks for; the future ends with the event that follows.
    fn perform(&self, action: OverlayAction) -> Option<BoxFuture<'static, OverlayEvent>> {
        let ports = Arc::clone(&self.ports);
        match action {
            OverlayAction::Dial(peer) => Some(
                async move {
                    let outcome = ports.dial(peer).await;
                    OverlayEvent::Dialled { peer, outcome }
                }
                .boxed(),
            ),
            OverlayAction::Sync(peer, ask) => {
                let learner = self.learner.clone();
                Some(
                    async move {
                        let failed = SyncReport {
                            failure: Some(SyncFailure::Session),
                            ..SyncReport::of(peer)
                        };
                        OverlayEvent::Synced(match ports.open_sync(peer).await {
                            Ok(stream) => learner.ask(stream, peer, ask).await,
                            Err(_) => failed,
                        })
                    }
                    .boxed(),
                )
            }
            OverlayAction::Join => Some(
                async move {
                    OverlayEvent::Joined {
                        was_sent: ports.join().await,
                    }
                }
                .boxed(),
            ),
            OverlayAction::LookUp(name) => {
                Some(async move { OverlayEvent::Found(ports.look_up(name).await) }.boxed())
            }
            OverlayAction::Disconnect(peer) => {
                ports.disconnect(&peer);
                None
            }
            OverlayAction::Notify(notice) => {
                ports.notify(notice);
                None
            }
        }
    }
}

impl<P> std::fmt::Debug for Driver<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("overlay", &self.overlay)
            .finish_non_exhaustive()
    }
}
