//! What the transport asks of the peer directory.

use std::time::Duration;

use dht_core::{Address, NodeId, PublicKey};

use crate::DialFailure;

/// The peer directory as the transport sees it. Every method is called from tasks that drive connections: it
/// must not block.
pub trait AddressBook: Send + Sync + 'static {
    /// Key and addresses of a peer, best address first; `None` if the peer is unknown.
    fn lookup(&self, peer: &NodeId) -> Option<(PublicKey, Vec<Address>)>;

    /// Whether connections with this key are refused at present.
    fn is_banned(&self, key: &PublicKey) -> bool;

    /// What became of dialling one address. Success means the *whole* upgrade, in this time; a connected
    /// socket alone proves nothing about the peer.
    fn record_dial(&self, peer: &NodeId, address: &Address, outcome: Result<Duration, DialFailure>);
}

/// Knows nobody and bans nobody, for uses that dial by key and address.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBook;

impl AddressBook for NoBook {
    fn lookup(&self, _: &NodeId) -> Option<(PublicKey, Vec<Address>)> {
        None
    }

    fn is_banned(&self, _: &PublicKey) -> bool {
        false
    }

    fn record_dial(&self, _: &NodeId, _: &Address, _: Result<Duration, DialFailure>) {}
}
