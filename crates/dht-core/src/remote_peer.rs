//! A connected peer.

use std::{fmt, net::IpAddr};

use crate::{
    address::{Address, Host},
    features::Features,
    keys::PublicKey,
    node_id::NodeId,
};

/// A connected peer whose key the transport has authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemotePeer {
    /// Public key that the peer proved to hold.
    pub public_key: PublicKey,
    /// Node id of the public key.
    pub node_id: NodeId,
    /// Features that the peer claims in the identity exchange.
    pub features: Features,
    /// Group that its connection counts for; `None` for a private address in the transport's `trusted_sources`, and for a
    /// name that a proxy resolves.
    pub source: Option<SourceGroup>,
}

/// The group of addresses that a connection comes from, by which its share of a pool is counted: the first 24 bits of an
/// IPv4 address, the first 56 of an IPv6 address, the first 4 of an onion service's key. Keys are free; addresses in many
/// groups are not.
///
/// ```
/// use dht_core::SourceGroup;
///
/// let group = |text: &str| text.parse().map(|address| SourceGroup::of(&address));
/// assert_eq!(group("/ip4/1.2.3.4/tcp/5")?, group("/ip4/1.2.3.200/tcp/6")?);
/// assert_ne!(group("/ip4/1.2.3.4/tcp/5")?, group("/ip4/1.2.4.4/tcp/5")?);
/// assert_eq!(group("/ip4/127.0.0.1/tcp/5")?, None);
/// # Ok::<(), dht_core::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceGroup([u8; 8]);

/// By whom shares of what this node has are counted: the [group](SourceGroup) of a connection, or the key of its peer
/// where the address says nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deliverer([u8; 32]);

// === impl RemotePeer ===

impl RemotePeer {
    /// Derives the node id from the key. The address says nothing.
    #[must_use]
    pub fn new(public_key: PublicKey, features: Features) -> Self {
        Self {
            public_key,
            node_id: public_key.node_id(),
            features,
            source: None,
        }
    }

    /// The same peer on a connection that counts for this group.
    #[must_use]
    pub const fn at(self, source: Option<SourceGroup>) -> Self {
        Self { source, ..self }
    }
}

// === impl SourceGroup ===

impl SourceGroup {
    /// The group of everybody who connects to this node's onion service: circuits cost nothing, and tell nobody apart.
    pub const ONION_SERVICE: Self = Self([0; 8]);

    /// The group of a public IP address or an onion service. `None` for any other: a name costs nothing, and behind a loopback
    /// or private address there may be a proxy or a NAT gateway with anybody behind it.
    #[must_use]
    pub fn of(address: &Address) -> Option<Self> {
        match address.host()? {
            Host::Ip(ip, _) => address.is_public().then(|| Self::of_ip(ip)),
            Host::Onion3 {
                address: [first, ..],
                ..
            } => Some(Self([1, first >> 4, 0, 0, 0, 0, 0, 0])),
            Host::Dns { .. } | Host::Memory(_) => None,
        }
    }

    /// The group of an IP address, public or not.
    #[must_use]
    pub const fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self([4, a, b, c, 0, 0, 0, 0])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, ..] = ip.octets();
                Self([6, a, b, c, d, e, f, g])
            }
        }
    }
}

// === impl Deliverer ===

impl Deliverer {
    /// The deliverer with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The group or key as 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<&RemotePeer> for Deliverer {
    fn from(peer: &RemotePeer) -> Self {
        let Some(source) = peer.source else {
            return Self::from(&peer.public_key);
        };
        // The last byte of no key has its first bit set.
        let mut bytes = [0xff; 32];
        let (group, _) = bytes.split_at_mut(source.0.len());
        group.copy_from_slice(&source.0);
        Self(bytes)
    }
}

impl From<&PublicKey> for Deliverer {
    fn from(key: &PublicKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl fmt::Debug for Deliverer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deliverer(")?;
        let mut start = self.0.iter().take(4);
        start.try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;

    fn public_key(seed: u8) -> PublicKey {
        SecretKey::from_bytes(&[seed; 32]).unwrap().public_key()
    }

    #[test]
    fn keys_of_one_group_are_one() {
        let at = |seed, address: &str| {
            let peer = RemotePeer::new(public_key(seed), Features::NODE);
            Deliverer::from(&peer.at(SourceGroup::of(&address.parse().unwrap())))
        };
        let one = at(1, "/ip4/1.2.3.4/tcp/5");
        assert_eq!(one, at(2, "/ip4/1.2.3.200/tcp/6"));
        assert_ne!(one, at(1, "/ip4/1.2.4.4/tcp/5"));
        let six = at(1, "/ip6/2a00:1:2:300::1/tcp/5");
        assert_eq!(six, at(2, "/ip6/2a00:1:2:3ff::9/tcp/5"));
        assert_ne!(six, at(1, "/ip6/2a00:1:2:400::1/tcp/5"));
        let onion = at(
            1,
            "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1",
        );
        assert_ne!(onion, Deliverer::from(&public_key(1)));
        // Anybody may be behind these.
        for nothing in ["/ip4/127.0.0.1/tcp/5", "/ip4/10.0.0.1/tcp/5"] {
            assert_eq!(at(1, nothing), Deliverer::from(&public_key(1)));
        }
    }
}
