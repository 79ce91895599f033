//! Peers from a seed, and the bans a directory put in force.

use std::sync::Arc;

use dht_core::{Claim, Features, NodeId, PublicKey, RemotePeer, SecretKey, UnixSeconds};

use parking_lot::Mutex;

use crate::{AddressRecord, Ban, Directory, PeerRecord};

/// Every ban that a directory put in force since [`BanLog::of`], in order.
#[derive(Clone, Debug, Default)]
pub struct BanLog(Arc<Mutex<Vec<Arc<Ban>>>>);

impl BanLog {
    /// Starts to record the bans of `directory`.
    #[must_use]
    pub fn of(directory: &Directory) -> Self {
        let log = Self::default();
        let bans = Arc::clone(&log.0);
        directory.on_ban(move |ban| bans.lock().push(Arc::clone(ban)));
        log
    }

    /// The bans recorded since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Ban>> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The secret key of this seed.
#[must_use]
pub fn secret(seed: u64) -> SecretKey {
    let mut bytes = [0; 64];
    for (to, from) in bytes.iter_mut().zip(seed.to_le_bytes()) {
        *to = from;
    }
    bytes[63] = 1;
    SecretKey::from_uniform_bytes(&bytes).unwrap_or_else(|_| unreachable!("64 bytes always reduce"))
}

/// The public key of this seed.
#[must_use]
pub fn public_key(seed: u64) -> PublicKey {
    secret(seed).public_key()
}

/// A peer at a chosen node id; its key does not belong to the id.
#[must_use]
pub fn peer_at(node_id: NodeId, features: Features) -> RemotePeer {
    // The identity point: cheap, and nobody signs in tests about ids.
    let public_key =
        PublicKey::from_bytes(&[0; 32]).unwrap_or_else(|_| unreachable!("zero is the identity"));
    RemotePeer {
        node_id,
        ..RemotePeer::new(public_key, features)
    }
}

/// The peer of this seed.
#[must_use]
pub fn peer(seed: u64, features: Features) -> RemotePeer {
    RemotePeer::new(public_key(seed), features)
}

/// A claim signed by the peer of this seed.
///
/// # Panics
/// If an address is not one.
#[must_use]
pub fn claim(seed: u64, addresses: &[&str], features: Features, at: UnixSeconds) -> Claim {
    let addresses = addresses.iter().map(|text| {
        text.parse()
            .unwrap_or_else(|error| unreachable!("{text} is an address: {error}"))
    });
    let nonce = secret(seed ^ at.0.rotate_left(20) ^ 0x5eed);
    Claim::sign_with_nonce(&secret(seed), addresses.collect(), features, at, &nonce)
}

/// The peer of this seed with one address, proven but not yet seen.
#[must_use]
pub fn record(seed: u64, features: Features, now: UnixSeconds) -> PeerRecord {
    let mut record = PeerRecord::new(public_key(seed), features, now);
    record.proven = true;
    let address = dht_core::Address::memory(seed.saturating_add(1));
    record.addresses = [AddressRecord::named(address)].into();
    record
}
