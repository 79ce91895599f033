//! Network groups of addresses: what the directory counts by, as keys are free.

use std::net::IpAddr;

use dht_core::{Address, Host};

/// The network group that an address belongs to. Addresses in one group cost little more than one address; addresses
/// in many groups are hard to get.
///
/// ```
/// use dht_peers::NetGroup;
///
/// let group = |text: &str| text.parse().map(|address| NetGroup::of_address(&address));
/// assert_eq!(group("/ip4/1.2.3.4/tcp/5")?, group("/ip4/1.2.200.200/tcp/6")?);
/// assert_ne!(group("/ip4/1.2.3.4/tcp/5")?, group("/ip4/1.3.3.4/tcp/5")?);
/// # Ok::<(), dht_core::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetGroup {
    /// The address is not known, or says nothing.
    #[default]
    Unknown,
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address.
    V6([u8; 4]),
    /// All host names: they cost nothing.
    Name,
    /// The first 4 bits of an onion service's key: keys cost nothing.
    Onion(u8),
    /// All listeners of this process.
    Memory,
    /// Everybody who connected to this node's onion service.
    OnionService,
}

impl NetGroup {
    /// The group of an IP address.
    #[must_use]
    pub fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// The group of an address of a peer or connection.
    #[must_use]
    pub fn of_address(address: &Address) -> Self {
        match address.host() {
            None => Self::Unknown,
            Some(Host::Ip(ip, _)) => Self::of_ip(ip),
            Some(Host::Dns { .. }) => Self::Name,
            Some(Host::Onion3 { address, .. }) => {
                Self::Onion(address.first().map_or(0, |byte| byte >> 4))
            }
            Some(Host::Memory(_)) => Self::Memory,
        }
    }
}
