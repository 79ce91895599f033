//! Finding peers: nodes ever closer to one are asked for it, and a discovery is sent, which only the one that is sought can
//! read. Discoveries go out through the outbound pipeline, answers come in through the inbound stack.

use std::sync::Arc;
#[cfg(feature = "overlay")]
use std::{pin::pin, time::Duration};

use dht_core::{NodeId, PublicKey, SendQueueError};
use dht_inbound::{AnswerCheck, DiscoveryAnswer, DiscoveryHook};
use dht_outbound::{Dial, Discover, SearchCause, SearchError, Searcher};
#[cfg(feature = "overlay")]
use dht_overlay::lookup::Finder;
use dht_transport::Transport;
use futures::future::BoxFuture;
use tower::BoxError;

#[cfg(feature = "overlay")]
use crate::overlay::SyncLinks;

/// Time that a lookup has before a discovery is sent as well. A discovery goes to many nodes, but one that is found by it need not
/// be known to any node, and finds this one although none can dial it.
#[cfg(feature = "overlay")]
const HEAD_START: Duration = Duration::from_secs(5);

/// Lookups that each cause may have under way.
#[cfg(feature = "overlay")]
pub(crate) const LOOKUPS: usize = 4;

/// Searches for peers by key: looks them up, and sends a discovery if that does not find them soon.
#[derive(Clone)]
pub(crate) struct Discovery {
    searcher: Searcher,
    /// `None` if the settings turn lookups off.
    #[cfg(feature = "overlay")]
    finder: Option<Finder<SyncLinks>>,
}

/// A [`Discovery`] for each cause; none takes the places of another.
#[derive(Clone)]
pub(crate) struct Discoveries {
    /// Takes the answers.
    pub(crate) searcher: Searcher,
    operator: Discovery,
    application: Discovery,
    retry: Discovery,
}

// === impl Discovery ===

impl Discovery {
    /// Searches for the holder of `key`. Once found, it is in the directory.
    pub(crate) async fn discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        #[cfg(feature = "overlay")]
        if let Some(finder) = &self.finder {
            let mut lookup = pin!(finder.find(key));
            match tokio::time::timeout(HEAD_START, &mut lookup).await {
                Ok(Ok(())) => return Ok(()),
                // Of its errors, none is one of the search.
                Ok(Err(_not_found)) => {}
                Err(_slow) => {
                    let mut search = pin!(self.searcher.discover(key));
                    return tokio::select! {
                        biased;
                        found = &mut lookup => match found {
                            Ok(()) => Ok(()),
                            Err(_not_found) => search.await,
                        },
                        found = &mut search => match found {
                            Ok(()) => Ok(()),
                            Err(error) => lookup.await.map_err(|_not_found| error),
                        },
                    };
                }
            }
        }
        self.searcher.discover(key).await
    }
}

impl Discover for Discovery {
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>> {
        let discovery = self.clone();
        Box::pin(async move { Ok(Self::discover(&discovery, &key).await?) })
    }
}

// === impl Discoveries ===

impl Discoveries {
    pub(crate) fn new(
        searcher: Searcher,
        #[cfg(feature = "overlay")] finder: Option<&Finder<SyncLinks>>,
    ) -> Self {
        let discovery = |cause| Discovery {
            searcher: searcher.for_cause(cause),
            #[cfg(feature = "overlay")]
            finder: finder.map(|finder| finder.with_places(LOOKUPS)),
        };
        Self {
            operator: discovery(SearchCause::Operator),
            application: discovery(SearchCause::Application),
            retry: discovery(SearchCause::Retry),
            searcher,
        }
    }

    pub(crate) const fn for_cause(&self, cause: SearchCause) -> &Discovery {
        match cause {
            SearchCause::Operator => &self.operator,
            SearchCause::Application => &self.application,
            SearchCause::Retry => &self.retry,
        }
    }
}

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
            Err(error) if error.is_exhausted() => Err(SearchError::Exhausted(Arc::new(error))),
            Err(error) => Err(SearchError::Dial(Arc::new(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{
        ManualClock, NodeIdentity, RemotePeer, SeededEntropy, UnixSeconds,
        test_util::{NOW, identity},
    };
    use dht_outbound::{Outbound, SearchLimits};
    use dht_peers::{
        ClaimPolicy, Directory,
        policy::{AttributionProfile, BanPolicy, BanTerms},
    };
    use dht_proto::dht::DiscoveryResponseMessage;

    use super::*;

    #[test]
    fn dp04_unasked_answer_is_ignored() {
        let directory = Directory::new(*identity(0).node_id());
        let clock = Arc::new(ManualClock::new(UnixSeconds(NOW.0)));
        let (profile, terms) = (AttributionProfile::Legacy, BanTerms::default());
        let nobody = tower::service_fn(|_| std::future::pending());
        let (outbound, _worker) = Outbound::new(&dht_outbound::Config::default(), nobody);
        let me: Arc<NodeIdentity> = Arc::new(identity(0));
        let entropy = Arc::new(SeededEntropy::new(1));
        let answers = Answers {
            searcher: Searcher::new(outbound, me, entropy, SearchLimits::default()),
            check: AnswerCheck {
                directory: directory.clone(),
                bans: BanPolicy::new(profile, terms, directory.clone(), clock.clone()),
                clock,
                claims: ClaimPolicy::default(),
            },
        };
        let responder = identity(1);
        let answer = DiscoveryAnswer {
            responder: *responder.public_key(),
            source: Arc::new(RemotePeer::new(
                *responder.public_key(),
                dht_core::Features::NODE,
            )),
            message: DiscoveryResponseMessage {
                public_key: Bytes::copy_from_slice(responder.public_key().as_bytes()),
                nonce: 77,
                ..DiscoveryResponseMessage::default()
            },
        };
        answers.on_response(answer).unwrap();
        assert!(directory.banned(NOW).is_empty() && directory.is_empty());
    }
}
