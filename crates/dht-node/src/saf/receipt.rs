//! Receipts over connections of this node: opens the stream for the protocol of `dht-saf`.

use std::sync::Arc;

use dht_core::DedupHash;
use dht_saf::{RECEIPT_LIMIT, RECEIPT_PROTOCOL, ask_receipt};
use dht_transport::Connection;
use tokio::time::timeout;

/// Whether the peer of this connection answers receipts.
pub(super) fn is_offered(connection: &Connection) -> bool {
    connection.info().protocols.contains(&RECEIPT_PROTOCOL)
}

/// Asks the peer whether it stores a message. Every failure counts as no.
pub(super) async fn ask(connection: Arc<Connection>, hash: DedupHash) -> bool {
    let asking = async {
        let stream = connection.open(&RECEIPT_PROTOCOL).await.ok()?;
        ask_receipt(stream, &hash).await.ok()
    };
    matches!(timeout(RECEIPT_LIMIT, asking).await, Ok(Some(true)))
}
