//! A connection to a peer of which only the key is known: specification 04, section 9.

use std::{fmt, sync::Arc, time::Duration};

use dht_core::{Clock as _, NodeId, PublicKey, SharedClock, error_chain};
use dht_peers::Directory;
use futures::future::BoxFuture;
use tower::BoxError;

use super::SearchError;
use crate::discover::Discover;

/// Opens connections, or hands out the one there is: the transport.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A connection. It should not by itself keep the peer connected.
    type Connection: Send;

    /// Dials a known peer.
    fn dial(
        &self,
        peer: NodeId,
    ) -> impl Future<Output = Result<Self::Connection, SearchError>> + Send;
}

/// Dials a peer by its key, and searches for it where that can help.
///
/// Specification 04, section 9; 06, section 2.4.
#[derive(Clone)]
pub struct Connector<D> {
    dial: D,
    discover: Arc<dyn Discover>,
    directory: Directory,
    clock: SharedClock,
    timeout: Duration,
}

impl<D: Dial> Connector<D> {
    /// Dials with `dial` and searches with `discover`, for at most `timeout`.
    pub fn new(
        dial: D,
        discover: Arc<dyn Discover>,
        directory: Directory,
        clock: SharedClock,
        timeout: Duration,
    ) -> Self {
        Self {
            dial,
            discover,
            directory,
            clock,
            timeout,
        }
    }

    /// A connection to the holder of `key`.
    ///
    /// A known peer is dialled first and searched for only if all its addresses are exhausted; an unknown one is
    /// searched for at once.
    ///
    /// # Errors
    /// [`SearchError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the search or the dial.
    pub async fn connect(&self, key: &PublicKey) -> Result<D::Connection, SearchError> {
        let id = key.node_id();
        if id == *self.directory.me() {
            return Err(SearchError::CannotDiscoverThisNode);
        }
        let mut dial = None;
        if self.directory.find_by_key(key).is_some() {
            match self.dial.dial(id).await {
                Err(SearchError::Exhausted(cause)) => dial = Some(error_chain(&*cause)),
                result => return result,
            }
        }
        self.search(key).await.map_err(|search| match dial {
            Some(dial) => SearchError::NotReached {
                dial,
                search: Box::new(search),
            },
            None => search,
        })?;
        self.dial.dial(id).await
    }

    async fn search(&self, key: &PublicKey) -> Result<(), SearchError> {
        tokio::time::timeout(self.timeout, self.discover.discover(*key))
            .await
            .map_err(|_| SearchError::TimedOut)?
            .map_err(|cause| SearchError::NotFound(cause.into()))
    }
}

/// Finds and connects to the recipient of a message, so that one deadline covers finding, dialling and sending.
impl<D: Dial> Discover for Connector<D> {
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>> {
        let this = self.clone();
        Box::pin(async move {
            let id = key.node_id();
            // There is no point in looking for a peer this node does not talk to.
            if this.directory.is_banned(&id, this.clock.now()) {
                return Err("peer is banned".into());
            }
            this.discover.discover(key).await?;
            // It has just answered over a connection of its own, which is nearly always still there. If it cannot be
            // reached, the message's delivery says so.
            let _reached = this.dial.dial(id).await;
            Ok(())
        })
    }
}

impl<D: fmt::Debug> fmt::Debug for Connector<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("dial", &self.dial)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::pending};

    use dht_core::{Features, ManualClock, UnixSeconds};
    use dht_peers::test_util::{public_key, record};
    use parking_lot::Mutex;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
    const TIMEOUT: Duration = Duration::from_secs(120);

    /// Answers dials from a list and counts everything.
    #[derive(Clone, Debug, Default)]
    struct World(Arc<Mutex<Counts>>);

    #[derive(Debug, Default)]
    struct Counts {
        dials: usize,
        discoveries: usize,
        dial_answers: VecDeque<SearchError>,
    }

    impl Dial for World {
        type Connection = NodeId;

        async fn dial(&self, peer: NodeId) -> Result<NodeId, SearchError> {
            let mut counts = self.0.lock();
            counts.dials += 1;
            counts.dial_answers.pop_front().map_or(Ok(peer), Err)
        }
    }

    impl World {
        fn failing(answers: impl IntoIterator<Item = SearchError>) -> Self {
            let world = Self::default();
            world.0.lock().dial_answers.extend(answers);
            world
        }

        fn connector(&self, directory: &Directory, can_find: bool) -> Connector<Self> {
            let (counts, finds) = (Arc::clone(&self.0), directory.clone());
            let discover = move |_key| {
                counts.lock().discoveries += 1;
                if can_find {
                    finds.add_or_update(record(1, Features::NODE, NOW), NOW);
                }
                async move {
                    if can_find {
                        Ok(())
                    } else {
                        Err("nobody answers".into())
                    }
                }
            };
            Connector::new(
                self.clone(),
                Arc::new(discover),
                directory.clone(),
                clock(),
                TIMEOUT,
            )
        }

        fn counts(&self) -> (usize, usize) {
            let counts = self.0.lock();
            (counts.dials, counts.discoveries)
        }
    }

    fn clock() -> SharedClock {
        Arc::new(ManualClock::new(NOW))
    }

    fn directory(known: bool) -> Directory {
        let directory = Directory::new(public_key(0).node_id());
        if known {
            directory.add_or_update(record(1, Features::NODE, NOW), NOW);
        }
        directory
    }

    #[tokio::test]
    async fn b010_dp07_an_unknown_peer_is_discovered() {
        let world = World::default();
        let connector = world.connector(&directory(false), true);
        assert_eq!(
            connector.connect(&public_key(1)).await.unwrap(),
            public_key(1).node_id()
        );
        assert_eq!(world.counts(), (1, 1));
    }

    #[tokio::test]
    async fn a_known_peer_is_dialled() {
        let world = World::default();
        world
            .connector(&directory(true), true)
            .connect(&public_key(1))
            .await
            .unwrap();
        assert_eq!(world.counts(), (1, 0));
    }

    #[tokio::test]
    async fn b011_dp08_an_unfound_peer_is_not_dialled() {
        let world = World::default();
        let error = world
            .connector(&directory(false), false)
            .connect(&public_key(1))
            .await;
        assert!(matches!(error, Err(SearchError::NotFound(_))));
        assert_eq!(world.counts(), (0, 1));
    }

    fn exhausted() -> SearchError {
        SearchError::Exhausted(BoxError::from("connection refused").into())
    }

    /// The failure of the known address is told before that of the search.
    #[tokio::test]
    async fn unfound_peer_names_failed_dial() {
        let world = World::failing([exhausted()]);
        let connector = world.connector(&directory(true), false);
        let error = connector.connect(&public_key(1)).await.unwrap_err();
        let text = error_chain(&error);
        let (dial, search) = (text.find("connection refused"), text.find("nobody answers"));
        assert!(dial.is_some() && dial < search, "{text}");
        assert_eq!(world.counts(), (1, 1));
    }

    #[tokio::test]
    async fn only_exhausted_addresses_are_searched() {
        let world = World::failing([exhausted()]);
        world
            .connector(&directory(true), true)
            .connect(&public_key(1))
            .await
            .unwrap();
        assert_eq!(world.counts(), (2, 1));

        let world = World::failing([SearchError::Dial(BoxError::from("banned").into())]);
        let error = world
            .connector(&directory(true), true)
            .connect(&public_key(1))
            .await;
        assert!(matches!(error, Err(SearchError::Dial(_))));
        assert_eq!(world.counts(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_ends_in_time() {
        let world = World::default();
        let discover = Arc::new(|_key| pending::<Result<(), BoxError>>());
        let connector = Connector::new(world, discover, directory(false), clock(), TIMEOUT);
        let before = tokio::time::Instant::now();
        let error = connector.connect(&public_key(1)).await;
        assert!(matches!(error, Err(SearchError::TimedOut)));
        assert_eq!(before.elapsed(), TIMEOUT);
        let error = connector.connect(&public_key(0)).await;
        assert!(matches!(error, Err(SearchError::CannotDiscoverThisNode)));
    }

    #[tokio::test]
    async fn a_banned_peer_is_not_searched() {
        let world = World::default();
        let directory = directory(true);
        let until = UnixSeconds(NOW.0 + 10);
        directory.ban(public_key(1), until, dht_core::Severity::High, "test", NOW);
        let connector = world.connector(&directory, true);
        assert!(connector.discover(public_key(1)).await.is_err());
        assert_eq!(world.counts(), (0, 0));
    }

    #[tokio::test]
    async fn a_found_recipient_is_dialled() {
        let world = World::failing([exhausted()]);
        let connector = world.connector(&directory(false), true);
        connector.discover(public_key(1)).await.unwrap();
        assert_eq!(world.counts(), (1, 1));
    }
}
