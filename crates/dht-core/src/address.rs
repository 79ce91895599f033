//! Multiaddrs, the forms this network uses (01 section 9).

use std::{cmp::Ordering, fmt, hash::Hash, net::IpAddr, str::FromStr, sync::Arc};

use crate::error::ParseError;

pub use component::AddressComponent;
pub use policy::AddressPolicy;

mod component;
mod policy;

/// A well-formed binary multiaddr (01 section 9).
///
/// Decoding checks structure only and copies the bytes, because identity signatures are made over them and an address outlives
/// the message it came in. Whether an address may be advertised is decided by [`Address::check_policy`].
///
/// ```
/// use dht_core::Address;
///
/// let address: Address = "/ip4/1.2.3.4/tcp/18189".parse()?;
/// assert_eq!(address.as_bytes(), [4, 1, 2, 3, 4, 6, 0x47, 0x0d]);
/// assert_eq!(address.to_string(), "/ip4/1.2.3.4/tcp/18189");
/// # Ok::<(), dht_core::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Address(Encoded);

/// Most addresses are an IP address with a port, at most 20 bytes: a directory holds many.
#[derive(Clone)]
enum Encoded {
    Inline { length: u8, bytes: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

/// Bytes that take no more room than [`Encoded::Shared`] and its discriminant.
const INLINE: usize = 22;

/// Where an [`Address`] leads, if it has one of the usable shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `/ip4|ip6/…/tcp/port`.
    Ip(IpAddr, u16),
    /// `/dns|dns4|dns6|dnsaddr/name/tcp/port`.
    Dns {
        /// DNS records that are asked for.
        kind: DnsKind,
        /// The host name, as received.
        name: String,
        /// TCP port of the host.
        port: u16,
    },
    /// `/onion3/…:port`: 32-byte key, checksum and version, then the port.
    Onion3 {
        /// 32-byte key, 2-byte checksum and 1-byte version.
        address: [u8; 35],
        /// Virtual port of the onion service.
        port: u16,
    },
    /// `/memory/n`: a listener in this process.
    Memory(u64),
}

/// The flavour of a DNS component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are multiaddr's own")]
pub enum DnsKind {
    Dns,
    Dns4,
    Dns6,
    DnsAddr,
}

impl Address {
    /// Checks the structure and keeps the bytes. Empty input is a valid, empty address.
    ///
    /// # Errors
    /// [`ParseError`] for unknown protocols, cut-off values and malformed varints.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Self, ParseError> {
        let bytes = bytes.as_ref();
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = AddressComponent::decode(rest)?.1;
        }
        Ok(Self::from_checked(bytes))
    }

    fn from_checked(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE];
        let prefix = inline.get_mut(..bytes.len());
        Self(match (prefix, u8::try_from(bytes.len())) {
            (Some(prefix), Ok(length)) => {
                prefix.copy_from_slice(bytes);
                let bytes = inline;
                Encoded::Inline { length, bytes }
            }
            _ => Encoded::Shared(bytes.into()),
        })
    }

    /// The address in its binary form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Encoded::Inline { length, bytes } => {
                bytes.get(..usize::from(*length)).unwrap_or_default()
            }
            Encoded::Shared(bytes) => bytes,
        }
    }

    /// Bytes of memory outside of this value.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Encoded::Inline { .. } => 0,
            Encoded::Shared(bytes) => bytes.len(),
        }
    }

    /// The components in order.
    pub fn protocols(&self) -> impl Iterator<Item = AddressComponent<'_>> {
        let mut rest = self.as_bytes();
        std::iter::from_fn(move || {
            // Correctness: `from_bytes` decoded every component, so this only ends at the end.
            let (protocol, tail) =
                (!rest.is_empty()).then(|| AddressComponent::decode(rest).ok())??;
            rest = tail;
            Some(protocol)
        })
    }

    /// The address of a TCP listener.
    #[must_use]
    pub fn tcp(ip: IpAddr, port: u16) -> Self {
        let mut out = Vec::with_capacity(20);
        match ip {
            IpAddr::V4(ip) => AddressComponent::Ip4(ip).encode(&mut out),
            IpAddr::V6(ip) => AddressComponent::Ip6(ip).encode(&mut out),
        }
        AddressComponent::Tcp(port).encode(&mut out);
        Self::from_checked(&out)
    }

    /// The address of the onion service with this Ed25519 public key.
    #[must_use]
    pub fn onion3(key: &[u8; 32], port: u16) -> Self {
        let mut out = Vec::with_capacity(40);
        AddressComponent::Onion3(&policy::onion_of(key), port).encode(&mut out);
        Self::from_checked(&out)
    }

    /// The address of a listener in this process; test addresses only a test's [`AddressPolicy`] lets pass.
    #[must_use]
    pub fn memory(port: u64) -> Self {
        let mut out = Vec::with_capacity(10);
        AddressComponent::Memory(port).encode(&mut out);
        Self::from_checked(&out)
    }

    /// Where the address leads; `None` if it has none of the usable shapes.
    #[must_use]
    pub fn host(&self) -> Option<Host> {
        let mut protocols = self.protocols();
        let first = protocols.next()?;
        let host = match first {
            AddressComponent::Onion3(address, port) => Host::Onion3 {
                address: *address,
                port,
            },
            AddressComponent::Memory(port) => Host::Memory(port),
            _ => {
                let Some(AddressComponent::Tcp(port)) = protocols.next() else {
                    return None;
                };
                match first {
                    AddressComponent::Ip4(ip) => Host::Ip(ip.into(), port),
                    AddressComponent::Ip6(ip) => Host::Ip(ip.into(), port),
                    AddressComponent::Dns(kind, name) => Host::Dns {
                        kind,
                        name: name.to_owned(),
                        port,
                    },
                    _ => return None,
                }
            }
        };
        protocols.next().is_none().then_some(host)
    }
}

impl Default for Address {
    /// The empty address.
    fn default() -> Self {
        Self::from_checked(&[])
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Address {}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.protocols().try_for_each(|protocol| protocol.fmt(f))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut out = Vec::new();
        if !text.is_empty() {
            let mut parts = text
                .strip_prefix('/')
                .ok_or(ParseError::NoSlash)?
                .split('/');
            while let Some(name) = parts.next() {
                AddressComponent::parse(name, &mut parts, &mut out)?;
            }
        }
        Ok(Self::from_checked(&out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_lead_somewhere() {
        let host = |text: &str| text.parse::<Address>().unwrap().host();
        assert_eq!(
            host("/ip4/1.2.3.4/tcp/5"),
            Some(Host::Ip([1, 2, 3, 4].into(), 5))
        );
        assert_eq!(host("/memory/9"), Some(Host::Memory(9)));
        assert_eq!(host("/ip4/1.2.3.4/tcp/5/ws"), None);
        assert_eq!(host("/ip4/1.2.3.4"), None);
        assert_eq!(host(""), None);
    }

    #[test]
    fn only_long_addresses_take_heap() {
        assert_eq!(size_of::<Address>(), 24);
        let heap = |text: &str| text.parse::<Address>().unwrap().heap_bytes();
        assert_eq!(heap("/ip6/2a00:1:2:3::4/tcp/18189"), 0);
        assert_eq!(heap("/dns4/a.example.com/tcp/18189"), 0);
        assert_eq!(heap("/dns4/node-7.example.com/tcp/18189"), 2 + 18 + 3);
    }

    proptest! {
        #[test]
        fn bytes_are_refused_or_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(address) = Address::from_bytes(&bytes) {
                prop_assert_eq!(address.as_bytes(), &bytes[..]);
                let _shown = address.to_string();
                let _host = address.host();
            }
        }

        #[test]
        fn text_round_trips(ip in any::<[u8; 16]>(), v6: bool, port in 0_u16..) {
            let ip: IpAddr = if v6 { ip.into() } else { [ip[0], ip[1], ip[2], ip[3]].into() };
            let address = Address::tcp(ip, port);
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address.clone()));
            prop_assert_eq!(Address::from_bytes(address.as_bytes()), Ok(address));
        }
    }
}
