//! One component of a multiaddr: code, value, text.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::DnsKind;
use crate::error::ParseError;

/// One component, borrowed from the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressComponent<'a> {
    /// Code 4: four bytes.
    Ip4(Ipv4Addr),
    /// Code 41: sixteen bytes.
    Ip6(Ipv6Addr),
    /// Code 6: big-endian port.
    Tcp(u16),
    /// Code 273: big-endian port.
    Udp(u16),
    /// Codes 53 to 56: length-prefixed UTF-8.
    Dns(DnsKind, &'a str),
    /// Code 777: big-endian 64-bit number.
    Memory(u64),
    /// Code 444: version 2 onion service, recognised only to be refused.
    Onion(&'a [u8; 10], u16),
    /// Code 445: version 3 onion service.
    Onion3(&'a [u8; 35], u16),
    /// Code 400: length-prefixed path.
    Unix(&'a str),
    /// Code 421: length-prefixed multihash.
    P2p(&'a [u8]),
    /// A component without a value.
    Flag(Flag),
}

/// Components that carry no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are multiaddr's own")]
pub enum Flag {
    Tls,
    Quic,
    Ws,
    Wss,
    Http,
    Https,
}

const FLAGS: [(u32, &str, Flag); 6] = [
    (448, "tls", Flag::Tls),
    (460, "quic", Flag::Quic),
    (477, "ws", Flag::Ws),
    (478, "wss", Flag::Wss),
    (480, "http", Flag::Http),
    (443, "https", Flag::Https),
];

const NAMES: [(u32, &str, DnsKind); 4] = [
    (53, "dns", DnsKind::Dns),
    (54, "dns4", DnsKind::Dns4),
    (55, "dns6", DnsKind::Dns6),
    (56, "dnsaddr", DnsKind::DnsAddr),
];

impl<'a> AddressComponent<'a> {
    /// Reads one component, returning what follows it.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let (code, rest) = varint(bytes)?;
        Ok(match code {
            4 => {
                let (octets, rest) = fixed::<4>(rest)?;
                (Self::Ip4((*octets).into()), rest)
            }
            41 => {
                let (octets, rest) = fixed::<16>(rest)?;
                (Self::Ip6((*octets).into()), rest)
            }
            6 => {
                let (port, rest) = port(rest)?;
                (Self::Tcp(port), rest)
            }
            273 => {
                let (port, rest) = port(rest)?;
                (Self::Udp(port), rest)
            }
            777 => {
                let (number, rest) = fixed::<8>(rest)?;
                (Self::Memory(u64::from_be_bytes(*number)), rest)
            }
            444 => {
                let (address, rest) = fixed::<10>(rest)?;
                let (port, rest) = port(rest)?;
                (Self::Onion(address, port), rest)
            }
            445 => {
                let (address, rest) = fixed::<35>(rest)?;
                let (port, rest) = port(rest)?;
                (Self::Onion3(address, port), rest)
            }
            400 => {
                let (path, rest) = text(rest, "unix")?;
                (Self::Unix(path), rest)
            }
            421 => {
                let (hash, rest) = prefixed(rest)?;
                check_multihash(hash)?;
                (Self::P2p(hash), rest)
            }
            _ => {
                if let Some((_, name, kind)) = NAMES.iter().find(|entry| entry.0 == code) {
                    let (host, rest) = text(rest, name)?;
                    (Self::Dns(*kind, host), rest)
                } else if let Some((_, _, flag)) = FLAGS.iter().find(|entry| entry.0 == code) {
                    (Self::Flag(*flag), rest)
                } else {
                    return Err(ParseError::UnknownProtocol(code.to_string()));
                }
            }
        })
    }

    /// Appends the binary form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ip4(ip) => {
                put_varint(4, out);
                out.extend(ip.octets());
            }
            Self::Ip6(ip) => {
                put_varint(41, out);
                out.extend(ip.octets());
            }
            Self::Tcp(port) => {
                put_varint(6, out);
                out.extend(port.to_be_bytes());
            }
            Self::Udp(port) => {
                put_varint(273, out);
                out.extend(port.to_be_bytes());
            }
            Self::Dns(kind, name) => {
                let code = NAMES
                    .iter()
                    .find(|entry| entry.2 == *kind)
                    .map_or(53, |entry| entry.0);
                put_varint(code, out);
                put_prefixed(name.as_bytes(), out);
            }
            Self::Memory(number) => {
                put_varint(777, out);
                out.extend(number.to_be_bytes());
            }
            Self::Onion(address, port) => {
                put_varint(444, out);
                out.extend(*address);
                out.extend(port.to_be_bytes());
            }
            Self::Onion3(address, port) => {
                put_varint(445, out);
                out.extend(*address);
                out.extend(port.to_be_bytes());
            }
            Self::Unix(path) => {
                put_varint(400, out);
                put_prefixed(path.as_bytes(), out);
            }
            Self::P2p(hash) => {
                put_varint(421, out);
                put_prefixed(hash, out);
            }
            Self::Flag(flag) => {
                let code = FLAGS
                    .iter()
                    .find(|entry| entry.2 == *flag)
                    .map_or(448, |entry| entry.0);
                put_varint(code, out);
            }
        }
    }

    /// Parses the text of one component, taking its value from `parts`, and appends its binary form.
    pub(super) fn parse<'t>(
        name: &str,
        parts: &mut impl Iterator<Item = &'t str>,
        out: &mut Vec<u8>,
    ) -> Result<(), ParseError> {
        let mut value = |name| parts.next().ok_or(ParseError::Value(name));
        match name {
            "ip4" => {
                let ip = value("ip4")?
                    .parse()
                    .map_err(|_| ParseError::Value("ip4"))?;
                AddressComponent::Ip4(ip).encode(out);
            }
            "ip6" => {
                let ip = value("ip6")?
                    .parse()
                    .map_err(|_| ParseError::Value("ip6"))?;
                AddressComponent::Ip6(ip).encode(out);
            }
            "tcp" => AddressComponent::Tcp(number(value("tcp")?, "tcp")?).encode(out),
            "udp" => AddressComponent::Udp(number(value("udp")?, "udp")?).encode(out),
            "memory" => AddressComponent::Memory(number(value("memory")?, "memory")?).encode(out),
            "unix" => AddressComponent::Unix(value("unix")?).encode(out),
            "onion" => {
                let (address, port) = onion::<10>(value("onion")?, "onion")?;
                AddressComponent::Onion(&address, port).encode(out);
            }
            "onion3" => {
                let (address, port) = onion::<35>(value("onion3")?, "onion3")?;
                AddressComponent::Onion3(&address, port).encode(out);
            }
            "p2p" | "ipfs" => {
                let hash = bs58::decode(value("p2p")?)
                    .into_vec()
                    .map_err(|_| ParseError::Value("p2p"))?;
                check_multihash(&hash)?;
                AddressComponent::P2p(&hash).encode(out);
            }
            _ => {
                if let Some((_, name, kind)) = NAMES.iter().find(|entry| entry.1 == name) {
                    AddressComponent::Dns(*kind, value(name)?).encode(out);
                } else if let Some((_, _, flag)) = FLAGS.iter().find(|entry| entry.1 == name) {
                    AddressComponent::Flag(*flag).encode(out);
                } else {
                    return Err(ParseError::UnknownProtocol(name.to_owned()));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for AddressComponent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base32 = |bytes: &[u8]| data_encoding::BASE32_NOPAD.encode(bytes).to_lowercase();
        match self {
            Self::Ip4(ip) => write!(f, "/ip4/{ip}"),
            Self::Ip6(ip) => write!(f, "/ip6/{ip}"),
            Self::Tcp(port) => write!(f, "/tcp/{port}"),
            Self::Udp(port) => write!(f, "/udp/{port}"),
            Self::Dns(kind, host) => {
                let name = NAMES
                    .iter()
                    .find(|entry| entry.2 == *kind)
                    .map_or("dns", |entry| entry.1);
                write!(f, "/{name}/{host}")
            }
            Self::Memory(number) => write!(f, "/memory/{number}"),
            Self::Onion(address, port) => write!(f, "/onion/{}:{port}", base32(*address)),
            Self::Onion3(address, port) => write!(f, "/onion3/{}:{port}", base32(*address)),
            Self::Unix(path) => write!(f, "/unix/{path}"),
            Self::P2p(hash) => write!(f, "/p2p/{}", bs58::encode(hash).into_string()),
            Self::Flag(flag) => {
                let name = FLAGS
                    .iter()
                    .find(|entry| entry.2 == *flag)
                    .map_or("tls", |entry| entry.1);
                write!(f, "/{name}")
            }
        }
    }
}

/// A minimal unsigned varint of at most 32 bits.
fn varint(bytes: &[u8]) -> Result<(u32, &[u8]), ParseError> {
    let mut value = 0_u32;
    for (index, byte) in bytes.iter().enumerate() {
        let shift = u32::try_from(index * 7).map_err(|_| ParseError::Varint)?;
        let bits = u32::from(byte & 0x7f);
        if shift > 28 || (shift == 28 && bits > 0x0f) {
            return Err(ParseError::Varint);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(ParseError::Varint);
            }
            let rest = bytes.get(index + 1..).unwrap_or_default();
            return Ok((value, rest));
        }
    }
    Err(ParseError::Truncated)
}

fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_prefixed(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u32::try_from(bytes.len()).unwrap_or(u32::MAX), out);
    out.extend(bytes);
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), ParseError> {
    bytes.split_first_chunk().ok_or(ParseError::Truncated)
}

fn port(bytes: &[u8]) -> Result<(u16, &[u8]), ParseError> {
    let (port, rest) = fixed::<2>(bytes)?;
    Ok((u16::from_be_bytes(*port), rest))
}

fn prefixed(bytes: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let (length, rest) = varint(bytes)?;
    let length = usize::try_from(length).map_err(|_| ParseError::Truncated)?;
    rest.split_at_checked(length).ok_or(ParseError::Truncated)
}

fn text<'a>(bytes: &'a [u8], name: &'static str) -> Result<(&'a str, &'a [u8]), ParseError> {
    let (bytes, rest) = prefixed(bytes)?;
    let text = str::from_utf8(bytes).map_err(|_| ParseError::Value(name))?;
    Ok((text, rest))
}

/// Function code, digest length, then exactly that many bytes.
fn check_multihash(bytes: &[u8]) -> Result<(), ParseError> {
    let bad = |_| ParseError::Value("p2p");
    let (_function, rest) = varint(bytes).map_err(bad)?;
    let (digest, rest) = prefixed(rest).map_err(bad)?;
    if rest.is_empty() && digest.len() <= 64 {
        Ok(())
    } else {
        Err(ParseError::Value("p2p"))
    }
}

fn number<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<T, ParseError> {
    text.parse().map_err(|_| ParseError::Value(name))
}

/// `<base32>:<port>`; port 0 is refused in text.
fn onion<const N: usize>(text: &str, name: &'static str) -> Result<([u8; N], u16), ParseError> {
    let (address, port) = text.split_once(':').ok_or(ParseError::Value(name))?;
    let bytes = data_encoding::BASE32_NOPAD
        .decode(address.to_uppercase().as_bytes())
        .map_err(|_| ParseError::Value(name))?;
    let address = bytes.try_into().map_err(|_| ParseError::Value(name))?;
    match number(port, name)? {
        0 => Err(ParseError::Value(name)),
        port => Ok((address, port)),
    }
}
