//! What becomes of a message that is sent to a peer that may be away.

use std::fmt;

use dht_core::{
    DedupHash, Destination, DomainHeader, Encryption, Entropy as _, Payload, PublicKey, SendParams,
    SendRequest, Strategy, domain_parts, encode_parts,
};
use dht_outbound::{Delivery, DeliveryFailure};
use dht_transport::Transport;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rand_core::Rng as _;

use super::receipt;
use crate::{MAX_PAYLOAD_BYTES, Message, Node, SendError};

/// How far a message has come. The states come in this order, each as often as a number grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryState {
    /// It waits for the sockets of its peers; what [`Node::post`] begins with.
    Queued,
    /// So many peers' sockets have taken it.
    Sent(usize),
    /// So many nodes have said that they keep it; only nodes of this implementation do.
    Stored(usize),
    /// Nobody took it.
    Failed(DeliveryFailure),
}

/// What became of a message in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReport {
    /// The recipient itself was connected and was sent the message; else it went to nodes close to it.
    pub direct: bool,
    /// Peers whose sockets took the message.
    pub sent: usize,
    /// Nodes that have said that they keep it.
    pub stored: usize,
    /// Peers that could not be reached.
    pub failed: usize,
}

/// A message on its way. Dropping it stops nothing but the news.
pub struct StoredSend {
    /// What receipts are asked by; `None` for a message that went to its recipient.
    hash: Option<DedupHash>,
    transport: Transport,
    deliveries: FuturesUnordered<Delivery>,
    receipts: FuturesUnordered<BoxFuture<'static, bool>>,
    report: SendReport,
    failure: Option<DeliveryFailure>,
    state: DeliveryState,
}

impl Node {
    /// Sends a message that only `to` can read, whether or not it is there: directly if it is connected, else to
    /// the nodes closest to it, which keep it until it returns. Returns once it is queued.
    ///
    /// It reaches the recipient's node at least once while one of the nodes that keep it survives and it has not
    /// expired, three hours from now; the application there gets it at most once.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodyConnected`] if there is nobody to send it to.
    pub async fn post(&self, to: &PublicKey, message: Message) -> Result<StoredSend, SendError> {
        if self.is_stopping() {
            return Err(SendError::Stopping);
        }
        let Message {
            message_type,
            payload,
        } = message;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(SendError::TooLong(payload.len()));
        }
        let target = to.node_id();
        let direct = self.connections.contains(&target);
        let strategy = if direct {
            Strategy::DirectPublicKey(*to)
        } else {
            Strategy::ClosestNodes {
                target,
                exclude: vec![target],
                connected_only: false,
            }
        };
        // The nonce of a direct message whoever gets it: sent again, it is another message.
        let header = DomainHeader {
            message_type,
            nonce: self.entropy.rng().next_u64().max(1),
        };
        let body = encode_parts(&domain_parts(header, payload));
        let params = SendParams::builder()
            .strategy(strategy)
            .with_destination(Destination::PublicKey(*to))
            .with_encryption(Encryption::EncryptFor(*to));
        let request = SendRequest::new(params.finish(), Payload::Body(body));
        let deliveries = self.outbound.send(request).await?;
        Ok(StoredSend {
            hash: deliveries.hash(),
            transport: self.transport.clone(),
            deliveries: deliveries.into_stream(),
            receipts: FuturesUnordered::new(),
            report: SendReport {
                direct,
                ..SendReport::default()
            },
            failure: None,
            state: DeliveryState::Queued,
        })
    }
}

impl StoredSend {
    /// The state now.
    #[must_use]
    pub const fn state(&self) -> DeliveryState {
        self.state
    }

    /// Waits for the next state; `None` once nothing will change any more.
    ///
    /// # Cancel safety
    /// Dropping the future loses no state.
    pub async fn next(&mut self) -> Option<DeliveryState> {
        loop {
            tokio::select! {
                Some(delivery) = self.deliveries.next() => match delivery.result {
                    Ok(()) => {
                        self.report.sent = self.report.sent.saturating_add(1);
                        self.ask(&delivery.recipient);
                        return Some(self.enter(DeliveryState::Sent(self.report.sent)));
                    }
                    Err(failure) => {
                        self.report.failed = self.report.failed.saturating_add(1);
                        self.failure = Some(failure);
                    }
                },
                Some(kept) = self.receipts.next() => {
                    if kept {
                        self.report.stored = self.report.stored.saturating_add(1);
                        return Some(self.enter(DeliveryState::Stored(self.report.stored)));
                    }
                }
                else => {
                    if self.report.sent > 0 || matches!(self.state, DeliveryState::Failed(_)) {
                        return None;
                    }
                    let failure = self.failure.unwrap_or(DeliveryFailure::Dropped);
                    return Some(self.enter(DeliveryState::Failed(failure)));
                }
            }
        }
    }

    /// Waits until nothing will change any more: every copy has left or failed, and every node of ours has said
    /// whether it keeps it.
    ///
    /// # Errors
    /// [`SendError::NotDelivered`] if nobody took it.
    pub async fn finish(mut self) -> Result<SendReport, SendError> {
        while let Some(state) = self.next().await {
            if let DeliveryState::Failed(failure) = state {
                return Err(SendError::NotDelivered(failure));
            }
        }
        Ok(self.report)
    }

    fn enter(&mut self, state: DeliveryState) -> DeliveryState {
        self.state = state;
        state
    }

    /// Asks a peer for a receipt, if it gives any. The recipient itself keeps nothing for itself.
    fn ask(&self, peer: &dht_core::NodeId) {
        if let Some(hash) = self.hash
            && let Some(connection) = self.transport.connection(peer)
            && !self.report.direct
            && receipt::is_offered(&connection)
        {
            self.receipts.push(Box::pin(receipt::ask(connection, hash)));
        }
    }
}

impl fmt::Debug for StoredSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSend")
            .field("state", &self.state)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
