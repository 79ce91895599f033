//! What becomes of a request: specification 04, section 7.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use dht_core::SealError;
use futures::future::BoxFuture;

use crate::MessageSendStates;

/// The first answer to a request.
///
/// Specification 04, section 7.
#[derive(Debug)]
pub enum SendMessageResponse {
    /// Handed over for every selected peer, possibly nobody. Delivery is reported by the states.
    Queued(MessageSendStates),
    /// Nothing was sent.
    Failed(SendFailure),
    /// The recipient is being searched for; the real answer follows.
    PendingDiscovery(PendingDiscovery),
}

/// The answer to a request whose recipient is being searched for.
///
/// Obtained from the tower service, it does the searching itself: poll it, or nothing happens. Obtained from a
/// [`Requester`](crate::Requester), it only waits, and dropping it changes nothing.
#[must_use = "futures do nothing unless polled"]
pub struct PendingDiscovery(BoxFuture<'static, SendMessageResponse>);

/// Why nothing was sent.
///
/// Specification 04, section 7.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// This node is the only recipient.
    #[error("a node does not send messages to itself")]
    SendToOurselves,
    /// The pipeline went away with the answer.
    #[error("sending was cancelled")]
    SenderCancelled,
    /// The recipient is not known and was not found in time.
    #[error("recipient could not be found")]
    DiscoveryFailed,
    /// The message could not be made.
    #[error("message could not be generated")]
    FailedToGenerateMessages(#[from] GenerateError),
    /// Nobody was selected.
    #[error("no peer to send to")]
    NoMessagesQueued,
    /// The pipeline took too long.
    #[error("message did not leave the pipeline in time")]
    TimedOut,
    /// The pipeline is broken.
    #[error("outbound pipeline has failed")]
    PipelineFailed,
}

/// Why a message could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Encryption, or what it asks for, failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The sealing task went away.
    #[error("sealing was cancelled")]
    Cancelled,
    /// A complete header goes with a finished body: no encryption, no signature, no flags.
    #[error("a given header excludes encryption, signing and flags")]
    HeaderConflict,
    /// Receivers refuse, and may ban for, a clear message flagged as encrypted.
    #[error("a clear message cannot be flagged as encrypted")]
    FlagConflict,
    /// More than fits one frame of the messaging protocol.
    #[error("message of {bytes} bytes does not fit a frame of {max}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
}

// === impl SendMessageResponse ===

impl SendMessageResponse {
    /// The send states, at least one; waits for a discovery.
    ///
    /// # Errors
    /// [`SendFailure`]; that nobody was selected is one, [`SendFailure::NoMessagesQueued`].
    ///
    /// # Cancel safety
    /// See [`PendingDiscovery`].
    pub async fn resolve(self) -> Result<MessageSendStates, SendFailure> {
        match self {
            Self::PendingDiscovery(pending) => match pending.await {
                // A search does not end in another search.
                Self::PendingDiscovery(_) => Err(SendFailure::DiscoveryFailed),
                response => response.settle(),
            },
            response => response.settle(),
        }
    }

    /// Whether the recipient is being searched for.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self, Self::PendingDiscovery(_))
    }

    /// A short name for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued(states) if states.is_empty() => "nobody",
            Self::Queued(_) => "queued",
            Self::PendingDiscovery(_) => "pending_discovery",
            Self::Failed(failure) => failure.name(),
        }
    }

    fn settle(self) -> Result<MessageSendStates, SendFailure> {
        match self {
            Self::Queued(states) if states.is_empty() => Err(SendFailure::NoMessagesQueued),
            Self::Queued(states) => Ok(states),
            Self::Failed(failure) => Err(failure),
            Self::PendingDiscovery(_) => Err(SendFailure::DiscoveryFailed),
        }
    }
}

impl From<SendFailure> for SendMessageResponse {
    fn from(failure: SendFailure) -> Self {
        Self::Failed(failure)
    }
}

// === impl SendFailure ===

impl SendFailure {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SendToOurselves => "send_to_ourselves",
            Self::SenderCancelled => "sender_cancelled",
            Self::DiscoveryFailed => "discovery_failed",
            Self::FailedToGenerateMessages(_) => "not_generated",
            Self::NoMessagesQueued => "nobody",
            Self::TimedOut => "timed_out",
            Self::PipelineFailed => "pipeline_failed",
        }
    }
}

// === impl PendingDiscovery ===

impl PendingDiscovery {
    /// Waits for this future.
    pub fn new(answer: impl Future<Output = SendMessageResponse> + Send + 'static) -> Self {
        Self(Box::pin(answer))
    }
}

impl Future for PendingDiscovery {
    type Output = SendMessageResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SendMessageResponse> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PendingDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingDiscovery(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeliveryReply, MessageSendState};
    use dht_core::{MessageTag, NodeId};

    fn one() -> MessageSendStates {
        let (_reply, state) = DeliveryReply::pair(MessageTag(1), NodeId::default());
        MessageSendState::into(state)
    }

    fn pending(then: SendMessageResponse) -> SendMessageResponse {
        SendMessageResponse::PendingDiscovery(PendingDiscovery::new(async { then }))
    }

    #[tokio::test]
    async fn responses_resolve_as_the_table_says() {
        use SendMessageResponse::{Failed, Queued};
        assert_eq!(Queued(one()).resolve().await.unwrap().len(), 1);
        let empty = Queued(MessageSendStates::default());
        assert!(matches!(
            empty.resolve().await,
            Err(SendFailure::NoMessagesQueued)
        ));
        let failed = Failed(SendFailure::DiscoveryFailed);
        assert!(matches!(
            failed.resolve().await,
            Err(SendFailure::DiscoveryFailed)
        ));
        assert_eq!(pending(Queued(one())).resolve().await.unwrap().len(), 1);
        let cancelled = pending(Failed(SendFailure::SenderCancelled));
        assert!(matches!(
            cancelled.resolve().await,
            Err(SendFailure::SenderCancelled)
        ));
        let empty = pending(Queued(MessageSendStates::default()));
        assert!(matches!(
            empty.resolve().await,
            Err(SendFailure::NoMessagesQueued)
        ));
        let twice = pending(pending(Queued(one())));
        assert!(matches!(
            twice.resolve().await,
            Err(SendFailure::DiscoveryFailed)
        ));
    }
}
