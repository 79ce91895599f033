//! The addresses that a node claims.

use dht_core::{Address, Clock as _, Entropy as _, NodeIdentity, OutOfRange};
use dht_peers::MAX_CLAIM_BYTES;
use dht_proto::limits::MAX_CLAIM_ADDRESSES;

use crate::{config::Config, shared::Shared};

/// Signs the claims of a node.
pub(crate) struct OwnAddresses {
    /// Those that it listens on, without that of the onion service.
    pub(crate) listening: Vec<Address>,
    /// Address of its onion service, which comes first.
    pub(crate) onion: Option<Address>,
    /// Whether it presents a claim that was signed before, and signs none.
    pub(crate) is_fixed: bool,
}

impl OwnAddresses {
    /// The addresses of the claim, of which there must be one.
    pub(crate) fn claimed(&self, config: &Config) -> Vec<Address> {
        let mut claimed = config.claimed_addresses(&self.listening);
        if let Some(onion) = &self.onion
            && !claimed.contains(onion)
        {
            claimed.insert(0, onion.clone());
            claimed.truncate(MAX_CLAIM_ADDRESSES);
        }
        if claimed.is_empty() {
            claimed.push(Address::nowhere());
        }
        claimed
    }

    /// Signs a claim with the addresses of these settings, unless they are those of the present one; whether it did.
    pub(crate) fn sign(&self, config: &Config, shared: &Shared) -> bool {
        if self.is_fixed {
            return false;
        }
        let identity: &NodeIdentity = &shared.identity;
        let (before, now) = (identity.claim(), shared.clock.now());
        let addresses = self.claimed(config);
        identity.set_addresses(addresses, now, &mut shared.entropy.rng());
        *before != *identity.claim()
    }

    /// Refuses addresses that are too long for the claim of a running node.
    pub(crate) fn check(&self, config: &Config) -> Result<(), OutOfRange> {
        let addresses = self.claimed(config);
        let bytes: usize = addresses
            .iter()
            .map(|address| address.as_bytes().len())
            .sum();
        OutOfRange::check(
            "bytes of public_addresses",
            bytes as u64,
            0..=MAX_CLAIM_BYTES as u64,
        )
    }
}
