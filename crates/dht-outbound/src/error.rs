//! Why a message was not sent.

use dht_core::{DeliveryError, SealError, SendQueueError};
use dht_stack::NoPlace;

/// Why a message was not sent.
///
/// Specification 04, section 7.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// This node is the only recipient.
    #[error("a node does not send messages to itself")]
    ToOurselves,
    /// The strategy selected no peer.
    #[error("no peer to send to")]
    NobodySelected,
    /// The recipient is not known and was not found in time.
    #[error("recipient could not be found")]
    NotFound,
    /// The message could not be sealed.
    #[error("message could not be sealed")]
    Seal(#[from] SealError),
    /// A complete header goes with a finished body: no encryption, no signature, no flags.
    #[error("a given header excludes encryption, signing and flags")]
    HeaderConflict,
    /// Receivers refuse, and may ban for, a clear message flagged as encrypted.
    #[error("a clear message cannot be flagged as encrypted")]
    FlagConflict,
    /// More than fits one frame of the messaging protocol.
    #[error("message of {bytes} bytes does not fit a frame of {max}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// Longest frame in bytes.
        max: usize,
    },
    /// No room for a request of this priority and cause, or too many callers wait for it.
    #[error("no room for another request")]
    Full,
    /// The message did not pass the pipeline within [`Config::pipeline_seconds`](crate::Config::pipeline_seconds).
    #[error("message did not leave the pipeline in time")]
    TimedOut,
    /// A layer of the pipeline failed; the log says why.
    #[error("outbound pipeline has failed")]
    PipelineFailed,
    /// No copy of the message was written to its peer's socket.
    #[error("message did not reach the peer: {0}")]
    NotDelivered(DeliveryError),
    /// The [`Worker`](crate::Worker) has ended, or the node is stopping.
    #[error("nothing is sent any more")]
    Closed,
}

impl SendError {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ToOurselves => "send_to_ourselves",
            Self::NobodySelected => "nobody",
            Self::NotFound => "discovery_failed",
            Self::Seal(_) | Self::HeaderConflict | Self::FlagConflict | Self::TooLarge { .. } => {
                "not_generated"
            }
            Self::Full => "full",
            Self::TimedOut => "timed_out",
            Self::PipelineFailed => "pipeline_failed",
            Self::NotDelivered(_) => "not_delivered",
            Self::Closed => "closed",
        }
    }
}

impl From<NoPlace> for SendError {
    fn from(reason: NoPlace) -> Self {
        match reason {
            NoPlace::Closed => Self::Closed,
            _ => Self::Full,
        }
    }
}

impl From<SendError> for SendQueueError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed => Self::Closed,
            _ => Self::Full,
        }
    }
}
