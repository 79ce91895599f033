//! Dialling through a scripted SOCKS5 proxy.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{io, net::SocketAddr, time::Duration};

use dht_core::{Address, DeliveryError, DialFailure, Host, Priority};
use dht_transport::{DialCause, DialError, ProxyFor, UpgradeError};
use support::{Node, Setup, body, identity, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

const ONION: &str = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234";

/// A proxy that answers every request with `code`, and connects granted ones to `target`.
struct Proxy {
    address: SocketAddr,
    /// Names and passwords that were asked for.
    asked: mpsc::Receiver<(String, String)>,
}

impl Proxy {
    async fn start(code: u8, target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asks, asked) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, code, target, asks.clone()));
            }
        });
        Self { address, asked }
    }
}

async fn serve(
    mut stream: TcpStream,
    code: u8,
    target: SocketAddr,
    asks: mpsc::Sender<(String, String)>,
) -> io::Result<()> {
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await?;
    assert_eq!(greeting, [5, 2, 0, 2]);
    stream.write_all(&[5, 2]).await?;
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut user = vec![0; usize::from(head[1]) + 1];
    stream.read_exact(&mut user).await?;
    let mut password = vec![0; usize::from(*user.last().unwrap())];
    stream.read_exact(&mut password).await?;
    stream.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let length = match request[3] {
        1 => 4,
        _ => stream.read_u8().await?,
    };
    let mut name = vec![0; usize::from(length) + 2];
    stream.read_exact(&mut name).await?;
    name.truncate(usize::from(length));
    let name = match request[3] {
        1 => format!("{name:?}"),
        _ => String::from_utf8(name).unwrap(),
    };
    let _full = asks.try_send((name, String::from_utf8(password).unwrap()));
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if code == 0 {
        let mut to = TcpStream::connect(target).await?;
        copy_bidirectional(&mut stream, &mut to).await?;
    }
    Ok(())
}

fn socket_of(node: &Node) -> SocketAddr {
    let Some(Host::Ip(ip, port)) = node.address.host() else {
        unreachable!()
    };
    (ip, port).into()
}

/// A node that dials through `proxy`, and panics when it looks a name up.
async fn proxied(proxy: SocketAddr, used_for: ProxyFor) -> Node {
    let mut setup = Setup::tcp(1);
    setup.config.proxy = Some(proxy);
    setup.config.proxy_for = used_for;
    setup
        .start_looking_up(|name| panic!("{name} was looked up"))
        .await
}

/// The proxy gets the name, and no resolver of this machine; each name has a password of its own.
#[tokio::test]
async fn names_reach_the_proxy_alone() {
    let b = Setup::tcp(2).start().await;
    let mut proxy = Proxy::start(0, socket_of(&b)).await;
    let a = proxied(proxy.address, ProxyFor::All).await;
    let onion = ONION.strip_prefix("/onion3/").unwrap();
    let onion = format!("{}.onion", onion.split_once(':').unwrap().0);
    let mut passwords = Vec::new();
    for (text, name) in [
        (ONION, &*onion),
        ("/dns4/b.example.com/tcp/5", "b.example.com"),
        ("/ip4/203.0.113.9/tcp/5", "[203, 0, 113, 9]"),
    ] {
        let address: Address = text.parse().unwrap();
        soon(a.transport.dial(b.key(), &[address])).await.unwrap();
        a.transport.disconnect(&b.id());
        let (asked, password) = proxy.asked.recv().await.unwrap();
        assert_eq!(asked, name);
        assert!(!passwords.contains(&password));
        passwords.push(password);
    }
    assert_eq!(a.transport.stats().outbound, 3);
}

#[tokio::test]
async fn only_onions_may_be_proxied() {
    let b = Setup::tcp(2).start().await;
    let mut proxy = Proxy::start(0, socket_of(&b)).await;
    let a = proxied(proxy.address, ProxyFor::Onion).await;
    let direct = std::slice::from_ref(&b.address);
    soon(a.transport.dial(b.key(), direct)).await.unwrap();
    a.transport.disconnect(&b.id());
    let onion = ONION.parse().unwrap();
    soon(a.transport.dial(b.key(), &[onion])).await.unwrap();
    assert!(proxy.asked.recv().await.unwrap().0.ends_with(".onion"));
    assert!(proxy.asked.try_recv().is_err());
}

/// A proxy that is down is no failure of the peer's address; a target that the proxy does not reach is one.
#[tokio::test]
async fn proxy_outage_is_not_the_peers() {
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    let proxy = Proxy::start(5, unused).await;
    for (proxy, expected, failures) in [
        (
            unused,
            DialFailure::Proxy(io::ErrorKind::ConnectionRefused),
            0,
        ),
        (
            proxy.address,
            DialFailure::Connect(io::ErrorKind::ConnectionRefused),
            1,
        ),
    ] {
        let a = proxied(proxy, ProxyFor::All).await;
        let b = identity(2);
        a.knows_at(b.public_key(), [ONION.parse::<Address>().unwrap()]);
        let sent = a.transport.send(b.node_id(), body(0, 10), Priority::Direct);
        let failed = soon(sent.unwrap()).await.unwrap_err();
        assert_eq!(failed, DeliveryError::DialFailed(expected));
        let known = a.directory.find(b.node_id()).unwrap();
        let failed = known.addresses().iter().filter(|held| held.has_failed());
        assert_eq!(failed.count(), failures);
    }
}

/// A name that strangers chose may lead anywhere behind the proxy; an onion address leads to its service.
#[tokio::test]
async fn proxy_gets_no_strangers_names() {
    let b = Setup::tcp(2).start().await;
    let mut proxy = Proxy::start(0, socket_of(&b)).await;
    let a = proxied(proxy.address, ProxyFor::All).await;
    let name: Address = "/dns4/b.example.com/tcp/5".parse().unwrap();
    a.has_met(&b.identity, [name.clone()]);
    for cause in [DialCause::Overlay, DialCause::Application] {
        let refused = soon(a.transport.dial_for(&b.id(), cause)).await;
        assert_eq!(refused.err(), Some(DialError::NoAddresses), "{cause:?}");
    }
    let c = identity(3);
    a.has_met(&c, [name, ONION.parse().unwrap()]);
    let other_key = soon(a.transport.dial_known(c.node_id())).await;
    assert_eq!(
        other_key.err(),
        Some(DialError::Upgrade(UpgradeError::WrongKey))
    );
    assert!(proxy.asked.recv().await.unwrap().0.ends_with(".onion"));
    assert!(proxy.asked.try_recv().is_err());
}

/// Without a proxy nobody dials an onion address.
#[tokio::test]
async fn onions_need_a_proxy() {
    let a = Setup::tcp(1).start().await;
    let b = identity(2);
    let onion = ONION.parse().unwrap();
    let refused = soon(a.transport.dial(b.public_key(), &[onion])).await;
    assert_eq!(refused.err(), Some(DialError::NoAddresses));
}

/// A proxy that says nothing holds up a dial for `proxy_connect_timeout`.
#[tokio::test]
async fn silent_proxy_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut setup = Setup::tcp(1);
    setup.config.proxy = Some(silent.local_addr().unwrap());
    setup.config.proxy_connect_timeout = Duration::from_millis(50);
    setup.config.connect_timeout = Duration::from_secs(120);
    let a = setup.start().await;
    let onion = ONION.parse().unwrap();
    let refused = soon(a.transport.dial(identity(2).public_key(), &[onion])).await;
    assert_eq!(refused.err(), Some(DialError::ConnectTimeout));
}

/// A peer holds no place for longer by having this node dial through a proxy.
#[tokio::test]
async fn peers_wait_less_for_proxy() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut setup = Setup::tcp(1);
    setup.config.proxy = Some(silent.local_addr().unwrap());
    setup.config.proxy_connect_timeout = Duration::from_secs(3_600);
    setup.config.connect_timeout = Duration::from_millis(50);
    let a = setup.start().await;
    let b = identity(2);
    a.has_met(&b, [ONION.parse().unwrap()]);
    let given_up = soon(a.transport.dial_for(b.node_id(), DialCause::Peer)).await;
    assert_eq!(given_up.err(), Some(DialError::ConnectTimeout));
}
