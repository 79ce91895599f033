//! Dialling through a SOCKS5 proxy (RFC 1928), as Tor's.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use dht_core::{Address, DnsKind, Host};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{Acceptor, BoxFuture, Medium, Socket, Tcp, tcp::prepare};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
/// Name that the proxy is given; see [`Socks`].
const USER: &[u8] = b"dht";

/// The addresses that are dialled through the proxy; onion addresses always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyFor {
    /// Every address: nothing is dialled directly, and no name is looked up by this machine.
    #[default]
    All,
    /// Names and onion addresses. The proxy looks up the names.
    Names,
    /// Onion addresses alone.
    Onion,
}

/// Dials through a SOCKS5 proxy, and listens as [`Tcp`] does.
///
/// The proxy gets names as they are, so that no resolver of this machine learns of them. It is offered a user name and
/// password that no other target has: Tor then uses a circuit of its own for each target.
#[derive(Clone, Copy, Debug)]
pub struct Socks {
    proxy: SocketAddr,
    used_for: ProxyFor,
}

/// The failure is the proxy's or lies on the way to it, and says nothing about the peer.
#[derive(Debug)]
pub(crate) struct ProxyFailure(io::Error);

/// Target that the proxy is asked to connect to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Ip(IpAddr, u16),
    Name(String, u16),
}

// === impl ProxyFor ===

impl ProxyFor {
    /// Whether an address is dialled through the proxy.
    #[must_use]
    pub fn covers(self, address: &Address) -> bool {
        match address.host() {
            Some(Host::Onion3 { .. }) => true,
            Some(Host::Dns {
                kind: DnsKind::Dns | DnsKind::Dns4,
                ..
            }) => self != Self::Onion,
            Some(Host::Ip(..)) => self == Self::All,
            _ => false,
        }
    }
}

// === impl Socks ===

impl Socks {
    /// Dials through the proxy at this address.
    #[must_use]
    pub const fn new(proxy: SocketAddr, used_for: ProxyFor) -> Self {
        Self { proxy, used_for }
    }
}

impl Medium for Socks {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let target = Target::of(address).ok_or(io::ErrorKind::Unsupported)?;
            let opened = TcpStream::connect(self.proxy).await;
            let mut stream = opened.map_err(ProxyFailure::of)?;
            prepare(&stream).map_err(ProxyFailure::of)?;
            connect(&mut stream, &target).await?;
            Ok(Socket::tcp(stream))
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Tcp.listen(address)
    }

    fn serves(&self, address: &Address) -> bool {
        self.used_for.covers(address)
    }
}

// === impl ProxyFailure ===

impl ProxyFailure {
    fn of(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error))
    }

    fn protocol(what: &'static str) -> io::Error {
        Self::of(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    pub(crate) fn is_in(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(<dyn Error + Send + Sync>::is::<Self>)
    }
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy failed: {}", self.0)
    }
}

impl Error for ProxyFailure {}

// === impl Target ===

impl Target {
    fn of(address: &Address) -> Option<Self> {
        Some(match address.host()? {
            Host::Ip(ip, port) => Self::Ip(ip, port),
            Host::Dns { name, port, .. } => Self::Name(name, port),
            Host::Onion3 { port, .. } => {
                let text = address.to_string();
                let (name, _port) = text.strip_prefix("/onion3/")?.split_once(':')?;
                Self::Name(format!("{name}.onion"), port)
            }
            Host::Memory(_) => return None,
        })
    }

    /// Type, address and port, as a request holds them. `None` for a name over 255 bytes.
    fn encode(&self) -> Option<Vec<u8>> {
        let (mut bytes, port) = match self {
            Self::Ip(IpAddr::V4(ip), port) => ([&[1][..], &ip.octets()].concat(), port),
            Self::Ip(IpAddr::V6(ip), port) => ([&[4][..], &ip.octets()].concat(), port),
            Self::Name(name, port) => {
                let length = u8::try_from(name.len()).ok()?;
                ([&[3, length][..], name.as_bytes()].concat(), port)
            }
        };
        bytes.extend(port.to_be_bytes());
        Some(bytes)
    }
}

/// Has the proxy at the other end of the stream connect to the target.
async fn connect<S>(stream: &mut S, target: &Target) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let encoded = target.encode().ok_or(io::ErrorKind::InvalidInput)?;
    let code = exchange(stream, &encoded).await;
    reached(code.map_err(|error| {
        if ProxyFailure::is_in(&error) {
            error
        } else {
            ProxyFailure::of(error)
        }
    })?)
}

/// The reply code of the proxy.
async fn exchange<S>(stream: &mut S, target: &[u8]) -> io::Result<u8>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods = [NO_AUTHENTICATION, USER_AND_PASSWORD];
    stream
        .write_all(&[VERSION, 2, methods[0], methods[1]])
        .await?;
    let [version, method] = read(stream).await?;
    match (version, method) {
        (VERSION, NO_AUTHENTICATION) => {}
        (VERSION, USER_AND_PASSWORD) => {
            // Each target has a password, and no two have the same.
            let password = password_of(target);
            let lengths = [USER.len(), password.len()].map(|length| u8::try_from(length).ok());
            let [Some(user_length), Some(password_length)] = lengths else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let request = [&[1, user_length][..], USER, &[password_length], &password].concat();
            stream.write_all(&request).await?;
            let [_version, status] = read(stream).await?;
            if status != 0 {
                return Err(ProxyFailure::protocol("it refuses the user name"));
            }
        }
        (VERSION, _) => return Err(ProxyFailure::protocol("it wants another authentication")),
        _ => return Err(ProxyFailure::protocol("it does not speak SOCKS5")),
    }
    stream
        .write_all(&[&[VERSION, 1, 0][..], target].concat())
        .await?;
    let [version, code, _reserved, kind] = read(stream).await?;
    if version != VERSION {
        return Err(ProxyFailure::protocol("it does not speak SOCKS5"));
    }
    if code != 0 {
        return Ok(code);
    }
    // The address that the proxy connected from, which nobody needs.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(read::<1, _>(stream).await?[0]),
        _ => return Err(ProxyFailure::protocol("it answers with an unknown address")),
    };
    let mut bound = [0; 255 + 2];
    let bound = bound.get_mut(..length + 2).unwrap_or_default();
    stream.read_exact(bound).await?;
    Ok(0)
}

/// At most 255 bytes that stand for a target alone: its hash, as the proxy may take text only.
fn password_of(target: &[u8]) -> Vec<u8> {
    let hash = blake2b_simd::Params::new().hash_length(16).hash(target);
    hash.to_hex().as_bytes().to_vec()
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Meaning of a reply code for the target. The codes from 0xf0 are Tor's, about onion services.
fn reached(code: u8) -> io::Result<()> {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, NetworkUnreachable, Other, PermissionDenied, TimedOut,
        Unsupported,
    };
    let kind = match code {
        0 => return Ok(()),
        2 => PermissionDenied,
        3 => NetworkUnreachable,
        4 | 0xf0..=0xf6 => HostUnreachable,
        5 => ConnectionRefused,
        6 | 0xf7 => TimedOut,
        7 | 8 => Unsupported,
        _ => Other,
    };
    Err(kind.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;

    use super::*;

    const ONION: &str = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234";

    fn target(text: &str) -> Target {
        Target::of(&text.parse().unwrap()).unwrap()
    }

    /// Lets the client talk to a proxy that reads and writes so; what came of it.
    async fn against(script: &[(usize, &[u8])]) -> (io::Result<()>, Vec<u8>) {
        let (mut client, mut proxy) = duplex(4096);
        let target = target("/dns4/node.example.com/tcp/5");
        let served = async {
            let mut asked = Vec::new();
            for (length, answer) in script {
                let mut bytes = vec![0; *length];
                if proxy.read_exact(&mut bytes).await.is_err() {
                    break;
                }
                asked.extend(bytes);
                let _gone = proxy.write_all(answer).await;
            }
            drop(proxy);
            asked
        };
        tokio::join!(connect(&mut client, &target), served)
    }

    const REQUEST: usize = 3 + 2 + 16 + 2;

    #[test]
    fn policies_name_their_addresses() {
        let covered = |used_for: ProxyFor| {
            [
                ONION,
                "/dns4/a.example/tcp/1",
                "/dns6/a.example/tcp/1",
                "/ip4/1.2.3.4/tcp/1",
                "/ip6/::1/tcp/1",
                "/memory/1",
            ]
            .map(|text| used_for.covers(&text.parse().unwrap()))
        };
        let (all, names) = (covered(ProxyFor::All), covered(ProxyFor::Names));
        assert_eq!(all, [true, true, false, true, true, false]);
        assert_eq!(names, [true, true, false, false, false, false]);
        assert_eq!(
            covered(ProxyFor::Onion),
            [true, false, false, false, false, false]
        );
    }

    #[test]
    fn targets_are_sent_as_they_are() {
        let name = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion";
        let encoded = target(ONION).encode().unwrap();
        assert_eq!(encoded, [&[3, 62][..], name.as_bytes(), &[4, 210]].concat());
        let encoded = target("/ip4/1.2.3.4/tcp/258").encode().unwrap();
        assert_eq!(encoded, [1, 1, 2, 3, 4, 1, 2]);
        assert_eq!(Target::Name("a".repeat(256), 1).encode(), None);
    }

    #[tokio::test]
    async fn named_target_is_connected() {
        let bound = [5, 0, 0, 3, 2, b'a', b'b', 0, 1];
        let (outcome, asked) = against(&[(4, &[5, 0]), (REQUEST, &bound)]).await;
        outcome.unwrap();
        let request = [
            &[5, 2, 0, 2, 5, 1, 0, 3, 16][..],
            b"node.example.com",
            &[0, 5],
        ]
        .concat();
        assert_eq!(asked, request);
    }

    /// Tor keeps streams with other passwords on circuits of their own.
    #[tokio::test]
    async fn targets_have_their_own_password() {
        let granted = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let password = 3 + USER.len() + 32;
        let script: [(usize, &[u8]); 3] = [(4, &[5, 2]), (password, &[1, 0]), (REQUEST, &granted)];
        let (outcome, asked) = against(&script).await;
        outcome.unwrap();
        assert_eq!(asked[4..9], [1, 3, b'd', b'h', b't']);
        let one = password_of(&target(ONION).encode().unwrap());
        assert_eq!(asked[10..42].len(), one.len());
        assert_ne!(asked[10..42], one);
    }

    /// Failures that the proxy reports of a target are the target's; all others are not.
    #[tokio::test]
    async fn failures_are_attributed() {
        let reply = |code| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        for (code, kind) in [
            (1, io::ErrorKind::Other),
            (2, io::ErrorKind::PermissionDenied),
            (5, io::ErrorKind::ConnectionRefused),
            (0xf0, io::ErrorKind::HostUnreachable),
            (0xf7, io::ErrorKind::TimedOut),
        ] {
            let (outcome, _) = against(&[(4, &[5, 0]), (REQUEST, &reply(code))]).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), kind, "{code}");
            assert!(!ProxyFailure::is_in(&error), "{code}");
        }
        let hostile: [&[(usize, &[u8])]; 7] = [
            &[],
            &[(4, &[5])],
            &[(4, &[4, 0])],
            &[(4, &[5, 0xff])],
            &[(4, &[5, 2]), (38, &[1, 1])],
            &[(4, &[5, 0]), (REQUEST, &[5, 0, 0, 9])],
            &[(4, &[5, 0]), (REQUEST, &[5, 0, 0, 3, 255, 0])],
        ];
        for script in hostile {
            let outcome = tokio::time::timeout(Duration::from_secs(60), against(script)).await;
            let error = outcome.unwrap().0.unwrap_err();
            assert!(ProxyFailure::is_in(&error), "{script:?}: {error}");
        }
    }
}
