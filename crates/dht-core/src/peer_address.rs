//! A peer in one string: its key and where to find it.

use std::{fmt, str::FromStr};

use crate::{address::Address, error::ParseError, keys::PublicKey};

/// `<public key in hex>::<multiaddr>[::<multiaddr>…]`: the text form of seed peers and invitations
/// (02 section 2).
///
/// ```
/// use dht_core::PeerAddress;
///
/// let text = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919::/ip4/1.2.3.4/tcp/18189";
/// let peer: PeerAddress = text.parse()?;
/// assert_eq!(peer.addresses.len(), 1);
/// assert_eq!(peer.to_string(), text);
/// # Ok::<(), dht_core::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Public key of the peer.
    pub public_key: PublicKey,
    /// Addresses of the peer, best first; at least one when parsed.
    pub addresses: Vec<Address>,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.public_key.fmt(f)?;
        self.addresses
            .iter()
            .try_for_each(|address| write!(f, "::{address}"))
    }
}

impl FromStr for PeerAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // Multiaddrs of IPv6 hosts contain "::" themselves, but only a separator is followed by a slash.
        let (key, rest) = text.split_once("::").ok_or(ParseError::NoAddress)?;
        let public_key = key.parse()?;
        let addresses: Vec<Address> = split_addresses(rest)
            .map(|address| address.parse())
            .collect::<Result<_, ParseError>>()?;
        if addresses.is_empty() {
            return Err(ParseError::NoAddress);
        }
        Ok(Self {
            public_key,
            addresses,
        })
    }
}

/// Splits at each `::` that starts an address (`::/`, blanks allowed) and does not end an IPv6 host.
fn split_addresses(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.match_indices("::").map(|(at, _)| at).find(|at| {
            let tail = text.get(at + 2..).unwrap_or_default().trim_start();
            // "/ip6/fe80::/tcp/1": the slash after an IPv6 host's "::" starts its port.
            tail.starts_with('/') && !tail.starts_with("/tcp/")
        });
        let (address, tail) = match end {
            Some(at) => text.split_at_checked(at)?,
            None => (text, ""),
        };
        rest = tail.strip_prefix("::");
        Some(address.trim())
    })
    .filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util;

    #[test]
    fn several_addresses_and_ipv6() {
        let key = test_util::public_key(1);
        let text = format!("{key}:: /ip6/fe80::/tcp/1 ::/ip6/::1/tcp/2::/dns4/a.example/tcp/3 ");
        let peer: PeerAddress = text.parse().unwrap();
        let shown: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "/ip6/fe80::/tcp/1",
                "/ip6/::1/tcp/2",
                "/dns4/a.example/tcp/3"
            ]
        );
        assert_eq!(peer.to_string().parse(), Ok(peer));
    }

    #[test]
    fn mistakes_are_named() {
        let key = test_util::public_key(1);
        assert_eq!("x".parse::<PeerAddress>(), Err(ParseError::NoAddress));
        assert_eq!(
            format!("{key}::").parse::<PeerAddress>(),
            Err(ParseError::NoAddress)
        );
        assert!(matches!(
            "zz::/ip4/1.2.3.4/tcp/1".parse::<PeerAddress>(),
            Err(ParseError::KeyDigits)
        ));
        assert!(matches!(
            format!("{key}::/nonsense").parse::<PeerAddress>(),
            Err(ParseError::UnknownProtocol(_))
        ));
    }
}
