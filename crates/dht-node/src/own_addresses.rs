//! The addresses that a node claims.

use std::{collections::BTreeSet, net::IpAddr};

use dht_core::{Address, Clock as _, Entropy as _, NodeIdentity, OutOfRange};
use dht_peers::MAX_CLAIM_BYTES;
use dht_proto::limits::MAX_CLAIM_ADDRESSES;
use parking_lot::Mutex;

use crate::{config::Config, context::NodeContext, events::Event};

/// Signs the claims of a node.
pub(crate) struct OwnAddresses {
    /// Those that it listens on, without that of the onion service.
    pub(crate) listening: Vec<Address>,
    /// Address of its onion service, which comes first.
    pub(crate) onion: Option<Address>,
    /// IP addresses of this machine; none if nothing reads them.
    pub(crate) machine: Mutex<BTreeSet<IpAddr>>,
    /// Whether it presents a claim that was signed before, and signs none.
    pub(crate) is_fixed: bool,
}

impl OwnAddresses {
    /// The addresses of the claim, of which there must be one.
    pub(crate) fn claimed(&self, config: &Config) -> Vec<Address> {
        let mut claimed = config.claimed_addresses_on(&self.machine.lock(), &self.listening);
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

    /// Takes note of the IP addresses that this machine has now; whether one is among them that it did not have before.
    pub(crate) fn set_machine(&self, now: BTreeSet<IpAddr>) -> bool {
        let mut machine = self.machine.lock();
        let has_come = !now.is_subset(&machine);
        *machine = now;
        has_come
    }

    /// Signs a claim with the addresses of these settings, unless they are those of the present one; whether it did.
    pub(crate) fn sign(&self, config: &Config, shared: &NodeContext) -> bool {
        if self.is_fixed {
            return false;
        }
        let identity: &NodeIdentity = &shared.identity;
        let (before, now) = (identity.claim(), shared.clock.now());
        let addresses = self.claimed(config);
        identity.set_addresses(addresses, now, &mut shared.entropy.rng());
        let is_new = *before != *identity.claim();
        if is_new {
            shared.events.publish(|| Event::AddressesChanged);
        }
        is_new
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
