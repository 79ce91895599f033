//! Outcome of each copy of a message.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use dht_core::{DedupHash, DeliveryError, MessageTag, NodeId};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::oneshot;

pub use fan_out::{FanOut, FanOutFuture, FanOutLayer, OutboundMessage};

mod fan_out;

/// Reports what became of one copy, once. Dropped without a report it reports [`DeliveryError::Dropped`].
#[derive(Debug)]
pub struct DeliveryReply(oneshot::Sender<Result<(), DeliveryError>>);

/// One copy on its way. A future of its delivery, which always resolves.
#[derive(Debug)]
pub struct CopyDelivery {
    tag: MessageTag,
    recipient: NodeId,
    answer: oneshot::Receiver<Result<(), DeliveryError>>,
}

/// All copies of one message. They carry the same tag; [`CopyDelivery::recipient`] tells them apart.
///
/// Specification 04, section 7.
///
/// ```
/// use dht_core::{MessageTag, NodeId};
/// use dht_outbound::{DeliveryReply, Deliveries};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let (reply, state) = DeliveryReply::pair(MessageTag(7), NodeId::default());
/// let states = Deliveries::from(state);
/// reply.send(Ok(()));
/// assert_eq!(states.wait_all().await, (vec![MessageTag(7)], vec![]));
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Deliveries {
    copies: Vec<CopyDelivery>,
    hash: Option<DedupHash>,
}

/// Outcome of one copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeliveryOutcome {
    /// Tag of the message.
    pub tag: MessageTag,
    /// Node that receives the copy.
    pub recipient: NodeId,
    /// Whether its socket took the copy.
    pub result: Result<(), DeliveryError>,
}

// === impl DeliveryReply ===

impl DeliveryReply {
    /// Both ends of a delivery.
    #[must_use]
    pub fn pair(tag: MessageTag, recipient: NodeId) -> (Self, CopyDelivery) {
        let (sender, answer) = oneshot::channel();
        (
            Self(sender),
            CopyDelivery {
                tag,
                recipient,
                answer,
            },
        )
    }

    /// Reports. A sender that no longer listens is ignored.
    pub fn send(self, result: Result<(), DeliveryError>) {
        let _no_longer_listening = self.0.send(result);
    }

    /// Whether the other end was dropped. The message is still to be delivered.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

// === impl CopyDelivery ===

impl CopyDelivery {
    /// Tag of the message.
    #[must_use]
    pub const fn tag(&self) -> MessageTag {
        self.tag
    }

    /// Node that receives the copy.
    #[must_use]
    pub const fn recipient(&self) -> NodeId {
        self.recipient
    }

    /// Waits for the delivery.
    ///
    /// # Errors
    /// [`DeliveryError`].
    pub async fn wait_for_result(self) -> Result<(), DeliveryError> {
        self.await.result
    }
}

impl Future for CopyDelivery {
    type Output = DeliveryOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DeliveryOutcome> {
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|answer| DeliveryOutcome {
                tag: self.tag,
                recipient: self.recipient,
                result: answer.unwrap_or(Err(DeliveryError::Dropped)),
            })
    }
}

// === impl Deliveries ===

impl Deliveries {
    pub(crate) fn named(self, hash: Option<DedupHash>) -> Self {
        Self { hash, ..self }
    }

    /// The hash by which nodes recognise the message, if this node sealed it for several peers: what receipts are asked
    /// by.
    #[must_use]
    pub const fn hash(&self) -> Option<DedupHash> {
        self.hash
    }

    /// Number of copies of the message.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// True if the message has no copies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// The copy at this position.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&CopyDelivery> {
        self.copies.get(at)
    }

    /// The copies, in the order in which peers were selected.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &CopyDelivery> {
        self.copies.iter()
    }

    /// The tag of each copy.
    #[must_use]
    pub fn to_tags(&self) -> Vec<MessageTag> {
        self.copies.iter().map(CopyDelivery::tag).collect()
    }

    /// Returns the copies one by one.
    #[must_use]
    pub fn into_inner(self) -> Vec<CopyDelivery> {
        self.copies
    }

    /// The deliveries as they are decided.
    pub fn into_stream(self) -> FuturesUnordered<CopyDelivery> {
        self.copies.into_iter().collect()
    }

    /// Waits for all: tags that succeeded, tags that failed.
    pub async fn wait_all(self) -> (Vec<MessageTag>, Vec<MessageTag>) {
        self.wait_until(|_, _| false).await
    }

    /// Waits until the fraction `threshold` (0 to 1) of all copies has arrived, or everything is decided. Returns
    /// what is known by then.
    pub async fn wait_percentage_success(
        self,
        threshold: f32,
    ) -> (Vec<MessageTag>, Vec<MessageTag>) {
        let total = self.len();
        // Precise enough: no message goes to 2^24 peers.
        #[expect(clippy::cast_precision_loss, reason = "a count of peers")]
        self.wait_until(move |ok, _| ok as f32 / total as f32 >= threshold)
            .await
    }

    /// Waits until `n` copies have arrived, everything is decided, or `timeout` is over. Returns what is known by
    /// then: tags that succeeded, tags that failed. With `n` = 0 that is nothing, at once.
    pub async fn wait_n_timeout(
        self,
        timeout: Duration,
        n: usize,
    ) -> (Vec<MessageTag>, Vec<MessageTag>) {
        let mut tally = Tally::default();
        if n == 0 {
            return (tally.succeeded, tally.failed);
        }
        // Correctness: `next` loses nothing when it is dropped, and the tally is outside.
        let counting = tally.count(self.into_stream(), |ok, _| ok >= n);
        let _decided_or_over = tokio::time::timeout(timeout, counting).await;
        (tally.succeeded, tally.failed)
    }

    /// Whether the only copy arrived. Of several, whether all did; of none, `false`.
    pub async fn wait_single(self) -> bool {
        self.wait_single_result().await.is_ok()
    }

    /// Like [`wait_single`](Self::wait_single), with the reason.
    ///
    /// # Errors
    /// The first failure; [`DeliveryError::Dropped`] if there is no copy.
    pub async fn wait_single_result(self) -> Result<(), DeliveryError> {
        if self.is_empty() {
            return Err(DeliveryError::Dropped);
        }
        let mut deliveries = self.into_stream();
        while let Some(delivery) = deliveries.next().await {
            delivery.result?;
        }
        Ok(())
    }

    async fn wait_until(
        self,
        enough: impl Fn(usize, usize) -> bool,
    ) -> (Vec<MessageTag>, Vec<MessageTag>) {
        let mut tally = Tally::default();
        tally.count(self.into_stream(), enough).await;
        (tally.succeeded, tally.failed)
    }
}

impl From<Vec<CopyDelivery>> for Deliveries {
    fn from(copies: Vec<CopyDelivery>) -> Self {
        Self { copies, hash: None }
    }
}

impl From<CopyDelivery> for Deliveries {
    fn from(copy: CopyDelivery) -> Self {
        Self::from(vec![copy])
    }
}

impl IntoIterator for Deliveries {
    type Item = CopyDelivery;
    type IntoIter = std::vec::IntoIter<CopyDelivery>;

    fn into_iter(self) -> Self::IntoIter {
        self.copies.into_iter()
    }
}

/// Counts deliveries; a struct, so that a timeout leaves what was counted.
#[derive(Default)]
struct Tally {
    succeeded: Vec<MessageTag>,
    failed: Vec<MessageTag>,
}

impl Tally {
    /// Until it is enough, asked after every delivery, or everything is decided.
    async fn count(
        &mut self,
        mut deliveries: FuturesUnordered<CopyDelivery>,
        enough: impl Fn(usize, usize) -> bool,
    ) {
        while let Some(DeliveryOutcome { tag, result, .. }) = deliveries.next().await {
            match result {
                Ok(()) => self.succeeded.push(tag),
                Err(_) => self.failed.push(tag),
            }
            if enough(self.succeeded.len(), self.failed.len()) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
