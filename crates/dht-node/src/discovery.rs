//! Finding peers: questions go out through the outbound pipeline, answers come in through the inbound stack.

use std::sync::Arc;

use dht_core::{NodeId, SendQueueError};
use dht_inbound::{AnswerCheck, DiscoveryAnswer, DiscoveryHook};
use dht_outbound::{Dial, SearchError, Searcher};
use dht_transport::Transport;

/// Takes answers to the searches of this node.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) searcher: Searcher,
    pub(crate) check: AnswerCheck,
}

impl DiscoveryHook for Answers {
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), SendQueueError> {
        let Some(search) = self.searcher.take(answer.message.nonce) else {
            tracing::debug!(peer = %answer.responder, "answer to no question of ours");
            return Ok(());
        };
        match self.check.accept(&answer, search.sought()) {
            Ok(()) => search.succeed(),
            Err(cause) => {
                tracing::debug!(peer = %answer.responder, %cause, "answer refused");
                search.fail(&cause);
            }
        }
        Ok(())
    }
}

/// The transport as dialler.
#[derive(Debug, Clone)]
pub(crate) struct Dialler(pub(crate) Transport);

impl Dial for Dialler {
    type Connection = ();

    async fn dial(&self, peer: NodeId) -> Result<(), SearchError> {
        match self.0.dial_known(&peer).await {
            Ok(_connection) => Ok(()),
            Err(error) if error.is_exhausted() => Err(SearchError::Exhausted),
            Err(error) => Err(SearchError::Dial(Arc::new(error))),
        }
    }
}
