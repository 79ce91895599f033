//! Which addresses a peer may advertise (01 section 5.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha3::{Digest, Sha3_256};

use super::{Address, DnsKind, Host};
use crate::error::ClaimError;

/// Kinds of addresses that a claim may contain besides public ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Accept `/memory/n` and unspecified IP addresses. For tests only; off by default.
    pub allow_test: bool,
}

impl Address {
    /// Whether a peer may advertise this address. Loopback and private ranges may.
    ///
    /// # Errors
    /// [`ClaimError`] naming the rule, of those that [`ClaimError::is_address`] answers true for.
    pub fn check_policy(&self, policy: &AddressPolicy) -> Result<(), ClaimError> {
        let (port, refusal) = match self.host().ok_or(ClaimError::AddressShape)? {
            Host::Dns {
                kind: DnsKind::Dns, ..
            } => return Err(ClaimError::AddressShape),
            Host::Dns { port, .. } => (port, None),
            Host::Ip(ip, port) => {
                let refused = ip.is_unspecified() && !policy.allow_test;
                (port, refused.then_some(ClaimError::AddressUnspecified))
            }
            Host::Onion3 { address, port } => (
                port,
                (!onion_is_valid(&address)).then_some(ClaimError::AddressOnion),
            ),
            Host::Memory(number) => {
                let refusal = (!policy.allow_test).then_some(ClaimError::AddressTestOnly);
                (u16::from(number != 0), refusal)
            }
        };
        match refusal {
            Some(refusal) => Err(refusal),
            None if port == 0 => Err(ClaimError::AddressPort),
            None => Ok(()),
        }
    }
}

impl Address {
    /// The address in the claim of a node that listens nowhere, as a claim must have an address: port 9 of the broadcast
    /// address, at which nobody can listen. Stock nodes accept it; ours neither dial it nor tell others of it.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::tcp(Ipv4Addr::BROADCAST.into(), 9)
    }

    /// Whether this is an address [at which nobody can listen](Self::nowhere).
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        matches!(
            self.host(),
            Some(Host::Ip(IpAddr::V4(Ipv4Addr::BROADCAST), _))
        )
    }

    /// Whether a node can dial this address: an IP address, but not the unspecified one, a name or an onion service, with a
    /// port.
    ///
    /// # Errors
    /// [`ClaimError`] naming the rule, as [`check_policy`](Self::check_policy).
    pub fn check_dialled(&self) -> Result<(), ClaimError> {
        match self.host() {
            Some(Host::Dns {
                kind: DnsKind::Dns,
                port: 1..,
                ..
            }) => Ok(()),
            Some(Host::Dns {
                kind: DnsKind::Dns6 | DnsKind::DnsAddr,
                ..
            }) => Err(ClaimError::AddressShape),
            _ => self.check_policy(&AddressPolicy::default()),
        }
    }

    /// Whether anybody on the internet could mean the same place by this address: no loopback, private, link-local,
    /// shared, multicast or unspecified IP, no name of a local network, no `/memory/n`.
    ///
    /// ```
    /// use dht_core::Address;
    ///
    /// let public: Address = "/ip4/1.2.3.4/tcp/18189".parse()?;
    /// let internal: Address = "/ip4/10.0.0.1/tcp/18189".parse()?;
    /// assert!(public.is_public() && !internal.is_public());
    /// # Ok::<(), dht_core::ParseError>(())
    /// ```
    #[must_use]
    pub fn is_public(&self) -> bool {
        match self.host() {
            Some(Host::Ip(IpAddr::V4(ip), _)) => is_public_v4(ip),
            Some(Host::Ip(IpAddr::V6(ip), _)) => is_public_v6(ip),
            Some(Host::Dns { name, .. }) => !is_local_name(&name),
            Some(Host::Onion3 { .. }) => true,
            Some(Host::Memory(_)) | None => false,
        }
    }
}

const fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // 100.64/10 is shared between the customers of a provider, 240/4 is of no use.
    let shared = a == 100 && b & 0xc0 == 64;
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
        && !(a == 0 || ip.is_multicast() || a >= 240)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(ip) = ip.to_ipv4_mapped() {
        return is_public_v4(ip);
    }
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || ip.is_unique_local()
        || ip.is_unicast_link_local())
}

/// Names that mean something else on every network (RFC 6761, RFC 6762, RFC 8375), and names without a dot.
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let suffixes = [".localhost", ".local", ".internal", ".home.arpa"];
    !name.contains('.') || suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// Version byte 3, and the checksum of rend-spec-v3: the first two bytes of
/// SHA3-256(".onion checksum" ‖ key ‖ version).
fn onion_is_valid(address: &[u8; 35]) -> bool {
    let Some((key, [c0, c1, version])) = address.split_last_chunk::<3>() else {
        return false;
    };
    *version == 3 && onion_checksum(key) == [*c0, *c1]
}

/// Key, checksum and version of an onion service.
pub(super) fn onion_of(key: &[u8; 32]) -> [u8; 35] {
    let mut address = [3; 35];
    if let Some((head, _version)) = address.split_first_chunk_mut::<32>() {
        *head = *key;
    }
    if let Some(checksum) = address.get_mut(32..34) {
        checksum.copy_from_slice(&onion_checksum(key));
    }
    address
}

fn onion_checksum(key: &[u8]) -> [u8; 2] {
    let hash: [u8; 32] = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(key)
        .chain_update([3])
        .finalize()
        .into();
    [hash[0], hash[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dp19_advertised_addresses_are_checked() {
        let policy = AddressPolicy::default();
        let cases = [
            ("/ip4/10.0.0.1/tcp/5", true),
            ("/ip4/0.0.0.0/tcp/5", false),
            ("/memory/5", false),
            ("/dns4/node.example.com", false),
            ("/dns4/node.example.com/tcp/5", true),
        ];
        for (text, is_valid) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.check_policy(&policy).is_ok(), is_valid, "{text}");
        }
    }

    #[test]
    fn nowhere_may_be_advertised() {
        let nowhere = Address::nowhere();
        assert_eq!(nowhere.to_string(), "/ip4/255.255.255.255/tcp/9");
        assert!(nowhere.is_nowhere() && !nowhere.is_public());
        assert_eq!(nowhere.check_policy(&AddressPolicy::default()), Ok(()));
        assert!(!Address::tcp(Ipv4Addr::LOCALHOST.into(), 9).is_nowhere());
    }

    #[test]
    fn dead_addresses_are_not_dialled() {
        for (text, expected) in [
            ("/ip4/10.0.0.1/tcp/5", Ok(())),
            ("/dns/a.example/tcp/5", Ok(())),
            ("/dns4/a.example/tcp/5", Ok(())),
            ("/ip6/::/tcp/5", Err(ClaimError::AddressUnspecified)),
            ("/ip4/10.0.0.1/tcp/0", Err(ClaimError::AddressPort)),
            ("/dns/a.example/tcp/0", Err(ClaimError::AddressShape)),
            ("/dns6/a.example/tcp/5", Err(ClaimError::AddressShape)),
            ("/ip4/10.0.0.1", Err(ClaimError::AddressShape)),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.check_dialled(), expected, "{text}");
        }
    }

    #[test]
    fn local_addresses_are_not_public() {
        let public = [
            "/ip4/1.2.3.4/tcp/5",
            "/ip4/100.128.0.1/tcp/5",
            "/ip6/2606:4700::1/tcp/5",
            "/ip6/::ffff:1.2.3.4/tcp/5",
            "/dns4/node.example.com/tcp/5",
        ];
        let local = [
            "/ip4/10.0.0.1/tcp/5",
            "/ip4/172.16.0.1/tcp/5",
            "/ip4/192.168.1.1/tcp/5",
            "/ip4/127.0.0.1/tcp/5",
            "/ip4/169.254.1.1/tcp/5",
            "/ip4/100.64.0.1/tcp/5",
            "/ip4/0.0.0.0/tcp/5",
            "/ip4/224.0.0.1/tcp/5",
            "/ip4/255.255.255.255/tcp/5",
            "/ip6/::1/tcp/5",
            "/ip6/::/tcp/5",
            "/ip6/fd00::1/tcp/5",
            "/ip6/fe80::1/tcp/5",
            "/ip6/ff02::1/tcp/5",
            "/ip6/::ffff:10.0.0.1/tcp/5",
            "/dns4/localhost/tcp/5",
            "/dns4/printer/tcp/5",
            "/dns6/box.LOCAL/tcp/5",
            "/dns4/db.internal./tcp/5",
            "/memory/7",
            "/ip4/1.2.3.4",
        ];
        let is_public = |text: &str| text.parse::<Address>().unwrap().is_public();
        for text in public {
            assert!(is_public(text), "{text}");
        }
        for text in local {
            assert!(!is_public(text), "{text}");
        }
    }
}
