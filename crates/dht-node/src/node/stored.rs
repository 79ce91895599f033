//! Sending a message to a recipient that may be offline.

use std::fmt;

use dht_core::DeliveryError;
use dht_core::{
    DedupHash, Destination, DomainHeader, Encryption, Entropy as _, NodeId, Payload, PublicKey,
    SendParams, SendRequest, Strategy, domain_parts, encode_parts,
};
use dht_outbound::{Delivery, SendError};
use dht_saf::Receipt;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rand_core::Rng as _;

use super::Node;
use crate::{Message, saf::receipt::ReceiptAskers};

/// Progress of a [`StoredSend`]. Counts of one state grow; `Sent` and `Stored` may alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryState {
    /// The copies are in the queues of their peers. The first state.
    Queued,
    /// Number of copies written to their peers' sockets.
    Sent(usize),
    /// Number of nodes that confirmed that they store the message. Only nodes of this implementation confirm.
    Stored(usize),
    /// No copy was sent.
    Failed(DeliveryError),
}

/// Result of a [`StoredSend`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReport {
    /// Whether the recipient was connected and the message went to it; otherwise it went to the nodes closest to it.
    pub direct: bool,
    /// Copies written to their peers' sockets.
    pub sent: usize,
    /// Nodes that confirmed that they store the message.
    pub stored: usize,
    /// Copies that did not reach their peers.
    pub failed: usize,
}

/// A message sent with [`Node::send_stored`]. Dropping it ends the reports, not the sending.
pub struct StoredSend {
    /// Hash that receipts are requested with; `None` if the pipeline did not seal the message.
    hash: Option<DedupHash>,
    askers: ReceiptAskers,
    deliveries: FuturesUnordered<Delivery>,
    receipts: FuturesUnordered<BoxFuture<'static, Option<Receipt>>>,
    report: SendReport,
    failure: Option<DeliveryError>,
    state: DeliveryState,
}

impl Node {
    /// Encrypts a message for `to` and sends it directly if `to` is connected, otherwise to the nodes closest to it,
    /// which store it until `to` returns. Returns once every copy is queued.
    ///
    /// The message reaches the recipient's application at least once if one of the nodes that store it survives and it
    /// does not expire, which is three hours from now; and again only if the recipient ends between delivery and record.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodySelected`] if no node is connected or known.
    pub async fn send_stored(
        &self,
        to: &PublicKey,
        message: Message,
    ) -> Result<StoredSend, SendError> {
        self.check(&message)?;
        let target = to.node_id();
        let direct = self.shared.connections.contains(&target);
        let strategy = if direct {
            Strategy::DirectPublicKey(*to)
        } else {
            Strategy::ClosestNodes {
                target,
                exclude: vec![target],
                connected_only: false,
            }
        };
        // Every send has a nonce of its own, as direct messages have: sent again, it is another message.
        let header = DomainHeader {
            message_type: message.message_type,
            nonce: self.shared.entropy.rng().next_u64().max(1),
        };
        let body = encode_parts(&domain_parts(header, message.payload));
        let params = SendParams::builder()
            .strategy(strategy)
            .with_destination(Destination::PublicKey(*to))
            .with_encryption(Encryption::EncryptFor(*to));
        let request = SendRequest::new(params.finish(), Payload::Body(body));
        let deliveries = self.outbound.send(request).await?;
        Ok(StoredSend {
            hash: deliveries.hash(),
            askers: self.receipts.clone(),
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
    /// The current state.
    #[must_use]
    pub const fn state(&self) -> DeliveryState {
        self.state
    }

    /// Waits for the next state; `None` once no state will follow.
    ///
    /// # Cancel safety
    /// Dropping the future loses no state.
    pub async fn next(&mut self) -> Option<DeliveryState> {
        loop {
            tokio::select! {
                Some(delivery) = self.deliveries.next() => match delivery.result {
                    Ok(()) => {
                        self.report.sent = self.report.sent.saturating_add(1);
                        self.request_receipt(&delivery.recipient);
                        return Some(self.enter(DeliveryState::Sent(self.report.sent)));
                    }
                    Err(failure) => {
                        self.report.failed = self.report.failed.saturating_add(1);
                        self.failure = Some(failure);
                    }
                },
                Some(receipt) = self.receipts.next() => {
                    if receipt == Some(Receipt::Stored) {
                        self.report.stored = self.report.stored.saturating_add(1);
                        return Some(self.enter(DeliveryState::Stored(self.report.stored)));
                    }
                }
                else => {
                    if self.report.sent > 0 || matches!(self.state, DeliveryState::Failed(_)) {
                        return None;
                    }
                    let failure = self.failure.unwrap_or(DeliveryError::Dropped);
                    return Some(self.enter(DeliveryState::Failed(failure)));
                }
            }
        }
    }

    /// Waits until every copy is sent or has failed, and every node that gives receipts has answered.
    ///
    /// # Errors
    /// [`SendError::NotDelivered`] if no copy was sent.
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

    /// Requests a receipt from a peer that gives receipts. The recipient itself stores nothing for itself.
    fn request_receipt(&self, peer: &NodeId) {
        if let Some(hash) = self.hash
            && !self.report.direct
        {
            let (askers, peer) = (self.askers.clone(), *peer);
            self.receipts
                .push(Box::pin(async move { askers.ask(&peer, hash).await }));
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
