//! A connection to a peer of which only the key is known: specification 04, section 9.

use std::{fmt, sync::Arc, time::Duration};

use dht_core::{Address, NodeId, PublicKey};
use dht_peers::{Directory, PeerRecord};
use dht_stack::BoxError;

use crate::Discover;

/// Opens connections, or hands out the one there is: the transport.
pub trait Dial {
    /// A connection. It should not by itself keep the peer connected.
    type Connection;

    /// Dials a known peer.
    fn dial(
        &self,
        peer: NodeId,
    ) -> impl Future<Output = Result<Self::Connection, DialError>> + Send;
}

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// All its addresses failed, as often as they may. Others may know newer ones.
    #[error("no address of the peer answers")]
    Exhausted,
    /// Something newer addresses do not change.
    #[error("peer cannot be dialled")]
    Failed(#[source] BoxError),
}

/// Dials a peer by its key, and searches for it where that can help.
///
/// Specification 04, section 9; 06, section 2.4.
#[derive(Clone)]
pub struct DialOrDiscover<D> {
    dial: D,
    discover: Arc<dyn Discover>,
    directory: Directory,
    excluded: Arc<[Address]>,
    timeout: Duration,
}

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The key is this node's own.
    #[error("a node does not search for itself")]
    CannotDiscoverThisNode,
    /// The operator has excluded every address it is known at.
    #[error("every address of the peer is excluded")]
    AddressesExcluded,
    /// Nobody knows it.
    #[error("peer could not be found")]
    DiscoveryFailed(#[source] BoxError),
    /// The search took too long.
    #[error("peer was not found in time")]
    DiscoveryTimedOut,
    /// It is known, but cannot be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl<D: Dial> DialOrDiscover<D> {
    /// Dials with `dial` and searches with `discover`, for at most `timeout`, but never at `excluded` addresses.
    pub fn new(
        dial: D,
        discover: Arc<dyn Discover>,
        directory: Directory,
        excluded: impl Into<Arc<[Address]>>,
        timeout: Duration,
    ) -> Self {
        Self {
            dial,
            discover,
            directory,
            excluded: excluded.into(),
            timeout,
        }
    }

    /// A connection to the holder of `key`.
    ///
    /// A known peer is dialled first and searched for only if all its addresses are exhausted; an unknown one is
    /// searched for at once.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the search or the dial.
    pub async fn connect(&self, key: &PublicKey) -> Result<D::Connection, ConnectError> {
        let id = key.node_id();
        if id == *self.directory.me() {
            return Err(ConnectError::CannotDiscoverThisNode);
        }
        if let Some(peer) = self.directory.find_by_key(key) {
            self.check_addresses(&peer)?;
            match self.dial.dial(id).await {
                Err(DialError::Exhausted) => {
                    tracing::debug!(peer = %id, "known addresses exhausted")
                }
                result => return Ok(result?),
            }
        }
        tokio::time::timeout(self.timeout, self.discover.discover(*key))
            .await
            .map_err(|_| ConnectError::DiscoveryTimedOut)?
            .map_err(ConnectError::DiscoveryFailed)?;
        if let Some(peer) = self.directory.find_by_key(key) {
            self.check_addresses(&peer)?;
        }
        Ok(self.dial.dial(id).await?)
    }

    /// The addresses of the peer to be dialled, not our own.
    fn check_addresses(&self, peer: &PeerRecord) -> Result<(), ConnectError> {
        let excluded = |address: &Address| self.excluded.contains(address);
        let mut addresses = peer.addresses().iter();
        if !self.excluded.is_empty() && addresses.all(|held| excluded(&held.address)) {
            return Err(ConnectError::AddressesExcluded);
        }
        Ok(())
    }
}

impl<D: fmt::Debug> fmt::Debug for DialOrDiscover<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialOrDiscover")
            .field("dial", &self.dial)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::pending};

    use dht_core::{Features, UnixSeconds};
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
        dial_answers: VecDeque<DialError>,
    }

    impl Dial for World {
        type Connection = NodeId;

        async fn dial(&self, peer: NodeId) -> Result<NodeId, DialError> {
            let mut counts = self.0.lock();
            counts.dials += 1;
            counts.dial_answers.pop_front().map_or(Ok(peer), Err)
        }
    }

    impl World {
        fn failing(answers: impl IntoIterator<Item = DialError>) -> Self {
            let world = Self::default();
            world.0.lock().dial_answers.extend(answers);
            world
        }

        fn connector(
            &self,
            directory: &Directory,
            excluded: &[Address],
            can_find: bool,
        ) -> DialOrDiscover<Self> {
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
            DialOrDiscover::new(
                self.clone(),
                Arc::new(discover),
                directory.clone(),
                excluded,
                TIMEOUT,
            )
        }

        fn counts(&self) -> (usize, usize) {
            let counts = self.0.lock();
            (counts.dials, counts.discoveries)
        }
    }

    fn directory(known: bool) -> Directory {
        let directory = Directory::new(public_key(0).node_id());
        if known {
            directory.add_or_update(record(1, Features::NODE, NOW), NOW);
        }
        directory
    }

    #[tokio::test]
    async fn b010_an_unknown_peer_is_found_with_one_discovery() {
        let world = World::default();
        let connector = world.connector(&directory(false), &[], true);
        assert_eq!(
            connector.connect(&public_key(1)).await.unwrap(),
            public_key(1).node_id()
        );
        assert_eq!(world.counts(), (1, 1));
    }

    #[tokio::test]
    async fn a_known_peer_takes_one_dial_and_no_discovery() {
        let world = World::default();
        world
            .connector(&directory(true), &[], true)
            .connect(&public_key(1))
            .await
            .unwrap();
        assert_eq!(world.counts(), (1, 0));
    }

    #[tokio::test]
    async fn b011_an_unknown_peer_that_is_not_found_is_not_dialled() {
        let world = World::default();
        let error = world
            .connector(&directory(false), &[], false)
            .connect(&public_key(1))
            .await;
        assert!(matches!(error, Err(ConnectError::DiscoveryFailed(_))));
        assert_eq!(world.counts(), (0, 1));
    }

    #[tokio::test]
    async fn only_exhausted_addresses_are_searched_anew() {
        let world = World::failing([DialError::Exhausted]);
        world
            .connector(&directory(true), &[], true)
            .connect(&public_key(1))
            .await
            .unwrap();
        assert_eq!(world.counts(), (2, 1));

        let world = World::failing([DialError::Failed("banned".into())]);
        let error = world
            .connector(&directory(true), &[], true)
            .connect(&public_key(1))
            .await;
        assert!(matches!(
            error,
            Err(ConnectError::Dial(DialError::Failed(_)))
        ));
        assert_eq!(world.counts(), (1, 0));
    }

    #[tokio::test]
    async fn f8_the_addresses_of_the_target_count() {
        let target: Vec<_> = record(1, Features::NODE, NOW)
            .addresses()
            .iter()
            .map(|held| held.address.clone())
            .collect();
        let world = World::default();
        let connector = world.connector(&directory(true), &target, true);
        let error = connector.connect(&public_key(1)).await;
        assert!(matches!(error, Err(ConnectError::AddressesExcluded)));
        assert_eq!(world.counts(), (0, 0));
        let others = [Address::memory(99)];
        world
            .connector(&directory(true), &others, true)
            .connect(&public_key(1))
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_ends_and_this_node_is_not_searched() {
        let world = World::default();
        let discover = Arc::new(|_key| pending::<Result<(), BoxError>>());
        let connector = DialOrDiscover::new(world, discover, directory(false), [], TIMEOUT);
        let before = tokio::time::Instant::now();
        let error = connector.connect(&public_key(1)).await;
        assert!(matches!(error, Err(ConnectError::DiscoveryTimedOut)));
        assert_eq!(before.elapsed(), TIMEOUT);
        let error = connector.connect(&public_key(0)).await;
        assert!(matches!(error, Err(ConnectError::CannotDiscoverThisNode)));
    }
}
