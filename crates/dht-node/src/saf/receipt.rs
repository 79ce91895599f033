//! Receipts over connections of this node: opens and accepts the streams for the protocol of `dht-saf`.

use std::sync::Arc;

use dht_core::{DedupHash, Features};
use dht_saf::{RECEIPT_LIMIT, RECEIPT_PROTOCOL, ask_receipt, serve_receipts};
use dht_transport::{Builder, Connection, InboundStream};
use futures::StreamExt as _;
use tokio::{sync::mpsc, time::timeout};

use super::SafHandle;
use crate::{channels, tasks::Tasks};

/// Streams on which peers ask for receipts.
pub(crate) struct ReceiptStreams(mpsc::Receiver<InboundStream>);

/// Makes the transport of a node that stores messages offer receipts.
pub(crate) fn offer(
    transport: Builder,
    config: &dht_saf::Config,
    features: Features,
) -> (Builder, Option<ReceiptStreams>) {
    if !config.enabled || !features.contains(Features::DHT_STORE_FORWARD) {
        return (transport, None);
    }
    let (sender, streams) = channels::RECEIPT_STREAMS.open();
    let transport = transport.serve(RECEIPT_PROTOCOL, sender);
    (transport, Some(ReceiptStreams(streams)))
}

impl ReceiptStreams {
    /// Starts the task that answers.
    pub(crate) fn serve(mut self, saf: &SafHandle, tasks: &Tasks) {
        if let Some(saf) = saf.get() {
            let streams = futures::stream::poll_fn(move |cx| self.0.poll_recv(cx));
            let streams = streams.map(|inbound| inbound.stream);
            tasks.spawn(serve_receipts(saf.clone(), streams));
        }
    }
}

/// Whether the peer of this connection answers receipts.
pub(crate) fn is_offered(connection: &Connection) -> bool {
    connection.info().protocols.contains(&RECEIPT_PROTOCOL)
}

/// Asks the peer whether it stores a message. Every failure counts as no.
pub(crate) async fn ask(connection: Arc<Connection>, hash: DedupHash) -> bool {
    let asking = async {
        let stream = connection.open(&RECEIPT_PROTOCOL).await.ok()?;
        ask_receipt(stream, &hash).await.ok()
    };
    matches!(timeout(RECEIPT_LIMIT, asking).await, Ok(Some(true)))
}
