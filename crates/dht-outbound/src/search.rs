//! Finds one peer by its key: specification 06, sections 2.1 and 2.3.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use dht_core::{NodeIdentity, PublicKey, SendRequest, SharedEntropy};
use dht_stack::Watch;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand_core::Rng;
use tokio::time::timeout;
use tower::BoxError;

pub use self::connect::{Connector, Dial};
use self::table::{Joined, Table};
use crate::{
    config::DISCOVERY_SECONDS, discover::Discover, error::SendError, metrics, outbound::Outbound,
};

mod connect;
mod table;

/// Keys that are searched for at one time, unless configured otherwise. Each [`SearchCause`] has a share of them.
pub const MAX_SEARCHES: usize = 64;

/// Time between two discoveries for one key, unless configured otherwise. Callers that ask for the key meanwhile wait for
/// the answer to the first.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Bounds of a [`Searcher`].
///
/// A remote party may choose which keys this node sends to, and each discovery goes to eight nodes and on from there.
/// So callers for one key share a discovery, and no more than `searches` new keys are searched for in an `interval`,
/// of each cause no more than its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// Keys that are searched for at one time; defaults to [`MAX_SEARCHES`].
    pub searches: usize,
    /// Time between two discoveries for one key; defaults to [`SEARCH_INTERVAL`].
    pub interval: Duration,
    /// How long a caller waits; defaults to [`DISCOVERY_SECONDS`].
    pub timeout: Duration,
}

/// Searches for peers by key: sends a [discovery](SendRequest::discovery) and waits for the answer with its nonce, which
/// the inbound side hands in through [`take`](Self::take). Cheap to clone.
///
/// Specification 06, sections 2.1 and 2.3.
///
/// ```
/// use std::sync::Arc;
/// use dht_core::{Features, Entropy, NodeIdentity, SecretKey, SeededEntropy, UnixSeconds};
/// use dht_core::SendRequest;
/// use dht_outbound::{Config, Outbound, SearchError, SearchLimits, Searcher, SendError};
/// use tower::{BoxError, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let entropy = Arc::new(SeededEntropy::new(1));
/// let mut rng = entropy.rng();
/// let (secret, now) = (SecretKey::random(&mut rng), UnixSeconds(1_700_000_000));
/// let me = Arc::new(NodeIdentity::new(secret, Features::NODE, vec![], now, &mut rng));
/// // A pipeline that knows no peer; a node takes `dht_outbound::pipeline`.
/// let nobody = service_fn(|_: SendRequest| async { Err(BoxError::from(SendError::NobodySelected)) });
/// let (outbound, _worker) = Outbound::new(&Config::default(), nobody);
/// let searcher = Searcher::new(outbound, Arc::clone(&me), entropy, SearchLimits::default());
///
/// let refused = searcher.discover(me.public_key()).await;
/// assert!(matches!(refused, Err(SearchError::CannotDiscoverThisNode)));
/// # }
/// ```
#[derive(Clone)]
pub struct Searcher {
    shared: Arc<SearcherCore>,
    cause: SearchCause,
}

/// On whose behalf a key is searched for. Each has places of its own, so that none keeps out the others: a stranger that
/// connects and leaves makes this node try a message again, and takes no place of a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchCause {
    /// The operator, or a program, searches for a peer: a quarter of the places.
    Operator,
    /// The recipient of a new message is unknown: half of the places.
    Application,
    /// A message that was tried before is tried again, or its recipient's addresses do not answer: a quarter of the places.
    Retry,
}

struct SearcherCore {
    outbound: Outbound,
    me: Arc<NodeIdentity>,
    entropy: SharedEntropy,
    limits: SearchLimits,
    table: Mutex<Table>,
}

/// A search that has been answered. Its callers learn whether the answer was of use; dropped without a result, the search
/// begins anew.
#[derive(Debug)]
#[must_use = "the callers of the search wait for a result"]
pub struct Answered {
    sought: PublicKey,
    outcome: Watch<SearchProgress>,
}

/// How far a search is.
#[derive(Clone, Debug)]
enum SearchProgress {
    Waiting,
    /// Begun anew by those who wait.
    GivenUp,
    Ended(Outcome),
}

type Outcome = Result<(), SearchError>;

/// Why a peer was not found, or not connected to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The key is this node's own.
    #[error("a node does not search for itself")]
    CannotDiscoverThisNode,
    /// The share that the [`SearchCause`] has of [`SearchLimits::searches`] is in use.
    #[error("too many searches under way, try again later")]
    TooManySearches,
    /// The discovery was not sent; [`SendError::NobodySelected`] if no node is connected.
    #[error("discovery was not sent")]
    NotSent(#[source] SendError),
    /// No peer answered within [`SearchLimits::timeout`].
    #[error("nobody answered in time")]
    TimedOut,
    /// There was an answer, but the peer could not be taken from it.
    #[error("the answer is of no use: {0}")]
    BadAnswer(String),
    /// The [`Discover`] of a [`Connector`] did not find the peer.
    #[error("peer could not be found")]
    NotFound(#[source] Arc<dyn Error + Send + Sync>),
    /// Every known address of the peer failed. Other nodes may know newer ones.
    #[error("no address of the peer answers")]
    Exhausted(#[source] Arc<dyn Error + Send + Sync>),
    /// Every known address of the peer failed, and the search for newer ones found nothing.
    #[error("no known address of the peer answers ({dial}), and a search found no other")]
    NotReached {
        /// Failure of the dial with its causes, in words.
        dial: String,
        /// Failure of the search.
        #[source]
        search: Box<Self>,
    },
    /// The peer cannot be dialled, and newer addresses would not change that.
    #[error("peer cannot be dialled")]
    Dial(#[source] Arc<dyn Error + Send + Sync>),
}

impl Default for SearchLimits {
    fn default() -> Self {
        Self {
            searches: MAX_SEARCHES,
            interval: SEARCH_INTERVAL,
            timeout: Duration::from_secs(DISCOVERY_SECONDS),
        }
    }
}

// === impl SearchCause ===

impl SearchCause {
    /// Its part of all places, at least one.
    fn share(self, searches: usize) -> usize {
        let part = match self {
            Self::Operator | Self::Retry => searches / 4,
            Self::Application => searches / 2,
        };
        part.max(1)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Application => "application",
            Self::Retry => "retry",
        }
    }
}

// === impl Searcher ===

impl Searcher {
    /// Searches on behalf of `me`, for the operator. Nonces come from `entropy`: only who can read a discovery can know its nonce.
    #[must_use]
    pub fn new(
        outbound: Outbound,
        me: Arc<NodeIdentity>,
        entropy: SharedEntropy,
        limits: SearchLimits,
    ) -> Self {
        Self {
            shared: Arc::new(SearcherCore {
                outbound,
                me,
                entropy,
                limits,
                table: Mutex::default(),
            }),
            cause: SearchCause::Operator,
        }
    }

    /// The same searches, in the places of this cause.
    #[must_use]
    pub fn for_cause(&self, cause: SearchCause) -> Self {
        Self {
            cause,
            ..self.clone()
        }
    }

    /// Searches for the holder of `key`. Once found, it is in the directory.
    ///
    /// # Errors
    /// [`SearchError`]; at once if the discovery cannot be sent.
    ///
    /// # Cancel safety
    /// Dropping the future ends the waiting. The answer is still taken if it comes within the time limit.
    pub async fn discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        if key == self.shared.me.public_key() {
            return Err(SearchError::CannotDiscoverThisNode);
        }
        let found = timeout(
            self.shared.limits.timeout,
            self.shared.search(key, self.cause),
        )
        .await;
        found.unwrap_or(Err(SearchError::TimedOut))
    }

    /// The search an answer with this nonce belongs to, which it thereby ends; `None` if there is none, or not any
    /// more. An answer that is not from the holder of [`Answered::sought`] proves that the latter gave it away.
    #[must_use]
    pub fn take(&self, nonce: u64) -> Option<Answered> {
        self.shared.table.lock().take(nonce)
    }

    /// Keys that are searched for, or were until recently.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.table.lock().len()
    }

    /// True if no search is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Discover for Searcher {
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>> {
        let searcher = self.clone();
        Box::pin(async move { Ok(Self::discover(&searcher, &key).await?) })
    }
}

impl SearcherCore {
    async fn search(&self, key: &PublicKey, cause: SearchCause) -> Outcome {
        loop {
            let nonce = self.entropy.rng().next_u64();
            let joined = self.table.lock().join(key, nonce, cause, &self.limits);
            let joined = joined.inspect_err(|_| metrics::search_refused(cause.name()))?;
            let outcome = match joined {
                Joined::Waiting(outcome) => outcome,
                Joined::Leading {
                    nonce,
                    is_new,
                    outcome,
                } => {
                    let leading = Leading {
                        shared: self,
                        nonce: is_new.then_some(nonce),
                    };
                    leading.send(key, nonce).await?;
                    outcome
                }
            };
            let ended = outcome.until(|progress| match progress {
                SearchProgress::Waiting => None,
                // The caller that began the search gave up before it was sent. Begin it again.
                SearchProgress::GivenUp => Some(None),
                SearchProgress::Ended(outcome) => Some(Some(outcome.clone())),
            });
            if let Some(outcome) = ended.await {
                return outcome;
            }
        }
    }
}

/// The caller that asks the network. Dropped before the discovery is sent, it takes its search out of the table again.
struct Leading<'a> {
    shared: &'a SearcherCore,
    /// Of the search this began; none once it has been sent.
    nonce: Option<u64>,
}

impl Leading<'_> {
    async fn send(mut self, key: &PublicKey, nonce: u64) -> Outcome {
        let SearcherCore { outbound, me, .. } = self.shared;
        let request = SendRequest::discovery(me, key, nonce);
        // Does not wait for room: room may depend on the caller of this search.
        match outbound.send_now(request).await {
            Ok(copies) => {
                tracing::debug!(peer = %key, nodes = copies.len(), "discovery sent");
                self.nonce = None;
                Ok(())
            }
            Err(error) => {
                let error = SearchError::NotSent(error);
                if let Some(search) = self.take() {
                    search.fail_with(error.clone());
                }
                Err(error)
            }
        }
    }

    fn take(&mut self) -> Option<Answered> {
        self.shared.table.lock().take(self.nonce.take()?)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

// === impl Answered ===

impl Answered {
    /// Key that was searched for.
    #[must_use]
    pub const fn sought(&self) -> &PublicKey {
        &self.sought
    }

    /// The peer is in the directory.
    pub fn succeed(self) {
        self.end(SearchProgress::Ended(Ok(())));
    }

    /// It is not, because of this.
    pub fn fail(self, cause: &dyn fmt::Display) {
        self.fail_with(SearchError::BadAnswer(cause.to_string()));
    }

    fn fail_with(self, error: SearchError) {
        self.end(SearchProgress::Ended(Err(error)));
    }

    fn end(&self, progress: SearchProgress) {
        self.outcome.change(|held| {
            let first = matches!(held, SearchProgress::Waiting);
            if first {
                *held = progress;
            }
            first
        });
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.end(SearchProgress::GivenUp);
    }
}

impl fmt::Debug for Searcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Searcher")
            .field("cause", &self.cause)
            .field("limits", &self.shared.limits)
            .field("searches", &self.len())
            .finish_non_exhaustive()
    }
}
