//! Finding peers: questions go out through the outbound pipeline, answers come in through the inbound stack.

use dht_core::{Clock as _, NodeId, OutboxError, PublicKey, SharedClock};
use dht_inbound::{AnswerCheck, DiscoveryAnswer, DiscoveryHook};
use dht_outbound::{Dial, DialError, Discover, Searcher};
use dht_peers::Directory;
use dht_transport::Transport;
use futures::future::BoxFuture;
use tower::BoxError;

/// Takes answers to the searches of this node.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) searcher: Searcher,
    pub(crate) check: AnswerCheck,
}

impl DiscoveryHook for Answers {
    fn on_response(&self, answer: DiscoveryAnswer) -> Result<(), OutboxError> {
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

/// Finds and connects to the recipient of a message, so that one deadline covers finding, dialling and sending.
pub(crate) struct Finder {
    pub(crate) searcher: Searcher,
    pub(crate) directory: Directory,
    pub(crate) transport: Transport,
    pub(crate) clock: SharedClock,
}

/// There is no point in looking for a peer this node does not talk to.
#[derive(Debug, thiserror::Error)]
#[error("peer is banned")]
struct Banned;

impl Discover for Finder {
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>> {
        let id = key.node_id();
        if self.directory.is_banned(&id, self.clock.now()) {
            return Box::pin(std::future::ready(Err(Banned.into())));
        }
        let (searcher, transport) = (self.searcher.clone(), self.transport.clone());
        Box::pin(async move {
            searcher.discover(&key).await?;
            // It has just answered over a connection of its own, which is nearly always still there. If it cannot
            // be reached, the message's delivery says so.
            let _reached = transport.dial_known(&id).await;
            Ok(())
        })
    }
}

/// The transport as dialler.
#[derive(Debug, Clone)]
pub(crate) struct Dialler(pub(crate) Transport);

impl Dial for Dialler {
    type Connection = ();

    async fn dial(&self, peer: NodeId) -> Result<(), DialError> {
        use dht_transport::DialError as Error;
        match self.0.dial_known(&peer).await {
            Ok(_connection) => Ok(()),
            // Others may know newer addresses.
            Err(Error::NoAddresses | Error::Failed(_)) => Err(DialError::Exhausted),
            Err(error) => Err(DialError::Failed(error.into())),
        }
    }
}
