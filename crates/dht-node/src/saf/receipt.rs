//! Receipts over connections of this node: opens and accepts the streams for the protocol of `dht-saf`.

use std::{collections::HashMap, fmt, io, sync::Arc};

use dht_core::{DedupHash, NodeId};
use dht_saf::{RECEIPT_PROTOCOL, Receipt, ReceiptAsker};
use dht_transport::{Builder, InboundStream, Transport};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};

use super::SafHandle;
use crate::{adapters::ToApplication, channels, tasks::Tasks};

/// Streams on which peers ask for receipts.
pub(crate) struct ReceiptStreams(mpsc::Receiver<InboundStream>);

/// Makes the transport offer receipts.
pub(crate) fn offer(
    transport: Builder,
    config: &dht_saf::Config,
) -> (Builder, Option<ReceiptStreams>) {
    if !config.enabled {
        return (transport, None);
    }
    let (sender, streams) = channels::RECEIPT_STREAMS.open();
    let transport = transport.serve(RECEIPT_PROTOCOL, sender);
    (transport, Some(ReceiptStreams(streams)))
}

impl ReceiptStreams {
    /// Starts the task that answers. What the application's durable inbox has is received, also since an earlier start.
    pub(crate) fn serve(mut self, saf: &SafHandle, application: ToApplication, tasks: &Tasks) {
        let Some(saf) = saf.get().cloned() else {
            return;
        };
        let streams = futures::stream::poll_fn(move |cx| self.0.poll_recv(cx));
        let streams = streams.map(|inbound| (inbound.peer.node_id, inbound.stream));
        let in_inbox = move |hash: &DedupHash| application.has(hash);
        let serving = async move { saf.serve_receipts(in_inbox, streams).await };
        tasks.spawn("receipts", serving);
    }
}

/// Asks peers for receipts, each over one stream of its connection. Clones share the streams.
#[derive(Clone)]
pub(crate) struct ReceiptAskers(Arc<Askers>);

struct Askers {
    transport: Transport,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    askers: HashMap<NodeId, ReceiptAsker>,
    /// The tasks that carry questions and answers; each ends with its stream.
    streams: JoinSet<()>,
}

impl ReceiptAskers {
    pub(crate) fn new(transport: Transport) -> Self {
        Self(Arc::new(Askers {
            transport,
            open: Mutex::default(),
        }))
    }

    /// Asks a connected peer what has become of a message, and waits while the peer waits for it, at most 20 s. `None`
    /// if it is not connected, offers no receipts, or did not answer.
    pub(crate) async fn ask(&self, peer: &NodeId, hash: DedupHash) -> Option<Receipt> {
        self.asker(peer)?.ask(hash).await
    }

    /// The open stream to a peer, or a new one.
    fn asker(&self, peer: &NodeId) -> Option<ReceiptAsker> {
        let mut open = self.0.open.lock();
        if let Some(asker) = open.askers.get(peer)
            && !asker.is_closed()
        {
            return Some(asker.clone());
        }
        let connection = self.0.transport.connection(peer)?;
        if !connection.info().protocols.contains(&RECEIPT_PROTOCOL) {
            return None;
        }
        while open.streams.join_next().now_or_never().flatten().is_some() {}
        open.askers.retain(|_, asker| !asker.is_closed());
        let opening = async move {
            let stream = connection.open(&RECEIPT_PROTOCOL).await;
            stream.map_err(io::Error::other)
        };
        let (asker, carrying) = ReceiptAsker::new(opening);
        open.streams.spawn(carrying);
        open.askers.insert(*peer, asker.clone());
        Some(asker)
    }
}

impl fmt::Debug for ReceiptAskers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptAskers").finish_non_exhaustive()
    }
}
