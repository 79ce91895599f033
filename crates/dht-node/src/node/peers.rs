//! Peers of a node: made known, connected, searched for, allowed and banned.

use std::{io, sync::Arc};

use dht_core::{Clock as _, Features, NodeId, PeerAddress, PublicKey, RemotePeer};
use dht_outbound::{SearchCause, SearchError};
use dht_peers::{AllowListFull, BanOutcome, PeerRecord};
use dht_transport::DialError;

use super::Node;

/// Why the allow list is not as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllowError {
    /// There is no room for another peer.
    #[error(transparent)]
    Full(#[from] AllowListFull),
    /// The list has changed, but not in the home: it is as before after a restart, unless a later write succeeds.
    #[error("the allow list is changed until a restart only, as it was not written")]
    NotSaved(#[from] io::Error),
}

impl Node {
    /// Adds a peer to the directory, without connecting to it.
    pub fn add_peer(&self, peer: &PeerAddress) {
        let now = self.shared.clock.now();
        let addresses = peer.addresses.iter().cloned();
        let record = PeerRecord::seed(peer.public_key, Features::NODE, addresses, now);
        self.shared.directory.add_or_update(record, now);
    }

    /// Adds a peer to the directory and connects to it, unless it is connected. Then it is one of the
    /// [`peers`](Self::peers).
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect(&self, peer: &PeerAddress) -> Result<(), DialError> {
        self.add_peer(peer);
        let dial = self.transport.dial(&peer.public_key, &peer.addresses);
        dial.await?;
        // Without waiting for the watcher of connections.
        self.connection_mirror.ensure(&peer.public_key.node_id());
        Ok(())
    }

    /// Puts a peer on the allow list, which is kept with the home: it is never banned, and a ban in force is lifted. False if it was
    /// on it.
    ///
    /// # Errors
    /// [`AllowError`].
    pub async fn allow(&self, peer: NodeId) -> Result<bool, AllowError> {
        let is_new = self.shared.directory.allow(peer)?;
        self.known_peers.save().await?;
        Ok(is_new)
    }

    /// Takes a peer off the allow list; false if it was not on it.
    ///
    /// # Errors
    /// [`AllowError::NotSaved`].
    pub async fn disallow(&self, peer: &NodeId) -> Result<bool, AllowError> {
        let was_allowed = self.shared.directory.disallow(peer);
        self.known_peers.save().await?;
        Ok(was_allowed)
    }

    /// The seeds that [`Config::dns_seeds`](crate::Config::dns_seeds) stands for, asked for one name after another: whoever is between this node and its name
    /// servers may have made them up.
    #[cfg(feature = "dns-seeds")]
    pub async fn dns_seeds(&self) -> Vec<PeerAddress> {
        let config = self.config();
        let dns = crate::dns_seeds::DnsSeeds::new(config.dns_servers.clone());
        let mut seeds = Vec::new();
        for name in config.seed_names() {
            let claims = &self.connection_mirror.claims;
            seeds.extend(dns.seeds(&name, &self.shared, claims).await);
        }
        seeds
    }

    /// Forgets a peer and closes its connection; false if it was not known. A ban of it stays.
    pub fn remove_peer(&self, peer: &NodeId) -> bool {
        let known = self.shared.directory.remove(peer).is_some();
        self.transport.disconnect(peer);
        known
    }

    /// Searches for the node with this key, even if it is known: asks nodes ever closer to it, and the connected ones to pass on
    /// a discovery. Once found, it is in the [`directory`](Self::directory).
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        let discovery = self.discoveries.for_cause(SearchCause::Operator);
        discovery.discover(key).await
    }

    /// Connects to the node with this key: dials it if it is known, and searches for it if it is unknown or none of its
    /// addresses answers.
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn dial_or_discover(&self, key: &PublicKey) -> Result<(), SearchError> {
        self.connector.connect(key).await?;
        self.connection_mirror.ensure(&key.node_id());
        Ok(())
    }

    /// Bans the listed peers, and lifts the bans of those that were listed before.
    pub(crate) fn ban_listed(&self, before: &[PublicKey], listed: &[PublicKey]) {
        let (directory, now) = (&self.shared.directory, self.shared.clock.now());
        for key in before.iter().filter(|key| !listed.contains(key)) {
            directory.unban(*key);
        }
        for key in listed {
            match directory.ban_listed(*key, now) {
                BanOutcome::Banned(_) => {}
                outcome => {
                    tracing::warn!(
                        target: "dht_node::configured",
                        peer = %key.short(),
                        ?outcome,
                        "a listed peer is not banned"
                    )
                }
            }
        }
    }

    /// Every peer that is connected now.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<RemotePeer>> {
        let connected = self.shared.connections.snapshot();
        let peers = connected.iter().map(|connected| &connected.peer);
        peers.map(Arc::clone).collect()
    }
}
