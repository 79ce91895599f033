//! The node's side of discovery responses.

use std::sync::Arc;

use dht_core::{PublicKey, RemotePeer, SendQueueError};
use dht_proto::dht::DiscoveryResponseMessage;

/// Takes discovery responses: the service that sent the discoveries. Never waits.
///
/// It matches the nonce and, if it asked with that one, lets [`AnswerCheck`](crate::AnswerCheck) have the answer. A
/// nonce it does not know belongs to a question long forgotten: no reason to blame anybody.
///
/// Specification 03, section 3.12; 06, section 2.3.
pub trait DiscoveryHook: Send + Sync + 'static {
    /// Takes a response whose signer delivered it itself and claims no other key.
    ///
    /// # Errors
    /// [`SendQueueError`].
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), SendQueueError>;
}

/// Ignores every response, as no discovery has been sent.
impl DiscoveryHook for () {
    fn on_response(&self, _: DiscoveryAnswer) -> Result<(), SendQueueError> {
        Ok(())
    }
}

/// An answer to a discovery, not yet matched with the question.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveryAnswer {
    /// Key of the peer that answered; it signed the message and delivered it.
    pub responder: PublicKey,
    /// The same peer as the transport knows it.
    pub source: Arc<RemotePeer>,
    /// Content of the answer; its key is the responder's, nothing else has been checked.
    pub message: DiscoveryResponseMessage,
}

impl<H: DiscoveryHook + ?Sized> DiscoveryHook for Arc<H> {
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), SendQueueError> {
        (**self).on_response(answer)
    }
}
