//! Dials that peers may cause, and the places that stay for operator and application.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{self, ErrorKind},
    net::Ipv4Addr,
    time::Duration,
};

use dht_core::{Address, Deliverer, DeliveryError, DialFailure, Network, Priority, test_util::NOW};
use dht_peers::DialTimes;
use dht_transport::{
    Acceptor, BoxFuture, Config, ConnectionEvent, DialCause, DialError, Medium, Memory, Queued,
    Socket,
};
use futures::future::join;
use support::{Node, Setup, body, identity, peer, soon};
use tokio::{sync::oneshot, time::sleep};

fn failed(cause: DialFailure) -> Result<(), DeliveryError> {
    Err(DeliveryError::DialFailed(cause))
}

/// The IP address of a peer of memory: each port is in a network of its own.
fn public(third: u8, host: u8) -> Address {
    Address::tcp(Ipv4Addr::new(198, 51, third, host).into(), 18_189)
}

/// A node in the same house as the dialler.
fn on_link() -> Address {
    Address::tcp(Ipv4Addr::new(10, 0, 0, 1).into(), 18_189)
}

/// A public network in memory: `198.51.0.1` and `10.0.0.1` lead to `listener`, every other address takes sockets and says nothing.
struct Internet {
    memory: Memory,
    listener: Address,
}

impl Medium for Internet {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            if *address == public(0, 1) || *address == on_link() {
                return self.memory.dial(&self.listener).await;
            }
            std::future::pending().await
        })
    }

    fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }

    fn serves(&self, address: &Address) -> bool {
        address.is_public() || *address == on_link()
    }
}

/// A node that peers are known to, in the networks of `198.51.0.0/16`; and the one that answers.
async fn on_internet(memory: &Memory, config: Config) -> (Node, Node) {
    on_internet_of(Network::LocalNet, memory, config).await
}

async fn on_internet_of(network: Network, memory: &Memory, config: Config) -> (Node, Node) {
    let mut b = Setup::memory(2, memory);
    b.network = network;
    let b = b.start().await;
    let medium = Internet {
        memory: memory.clone(),
        listener: b.address.clone(),
    };
    let mut setup = Setup::memory(1, memory);
    (setup.config, setup.network) = (config, network);
    (setup.start_with(medium).await, b)
}

/// Sends for a cause.
fn send(node: &Node, to: &Node, cause: DialCause) -> oneshot::Receiver<Result<(), DeliveryError>> {
    send_to(node, to.id(), cause, 0)
}

/// Sends for a cause; what is sent was delivered by the `deliverer` of this number.
fn send_to(
    node: &Node,
    to: dht_core::NodeId,
    cause: DialCause,
    deliverer: u8,
) -> oneshot::Receiver<Result<(), DeliveryError>> {
    let (report, outcome) = oneshot::channel();
    let frame = body(1, 100);
    let deliverer = Some(Deliverer::from_bytes([deliverer; 32]));
    let report = move |result| {
        let _nobody_waits = report.send(result);
    };
    (node.transport)
        .send_reporting(&to, frame, Priority::Control, cause, deliverer, report)
        .unwrap();
    outcome
}

/// One connection had a node dial every slot away with signed discoveries, in less than a second. What peers cause is
/// bounded; the operator and the application dial as ever.
#[tokio::test(start_paused = true)]
async fn discoveries_cannot_take_every_slot() {
    let memory = Memory::default();
    let (mut a, b) = on_internet(&memory, support::config()).await;
    for seed in 0..300 {
        let stranger = identity(100 + seed);
        let third = u8::try_from(seed % 200).unwrap() + 1;
        a.knows_at(stranger.public_key(), [public(third, 1)]);
        let deliverer = u8::try_from(seed % 200).unwrap();
        let _answer = send_to(&a, *stranger.node_id(), DialCause::Peer, deliverer);
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(a.transport.stats().dials, 16);
    let addresses = [public(0, 1)];
    soon(a.transport.dial(b.key(), &addresses)).await.unwrap();
    let refused = DialError::TooManyDials;
    let mut shed = 0;
    loop {
        match a.event().await {
            ConnectionEvent::DialFailed { error, .. } if error == refused => shed += 1,
            ConnectionEvent::Connected { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(shed >= 200, "{shed}");
}

/// A dial to a peer that says nothing takes 25 s: one deliverer could have held every place for good.
#[tokio::test(start_paused = true)]
async fn deliverer_leaves_dials_to_others() {
    let memory = Memory::default();
    let (a, b) = on_internet(&memory, support::config()).await;
    for third in 1..=100 {
        let stranger = identity(100 + u64::from(third));
        a.knows_at(stranger.public_key(), [public(third, 1)]);
        let _answer = send_to(&a, *stranger.node_id(), DialCause::Peer, 1);
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(a.transport.stats().dials, 4);
    a.knows_at(b.key(), [public(0, 1)]);
    let answer = send_to(&a, b.id(), DialCause::Peer, 2);
    assert_eq!(soon(answer).await.unwrap(), Ok(()));
    // The places come back with the end of the dials.
    sleep(Duration::from_secs(60)).await;
    let stranger = identity(300);
    a.knows_at(stranger.public_key(), [public(200, 1)]);
    let _answer = send_to(&a, *stranger.node_id(), DialCause::Peer, 1);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(a.transport.stats().dials, 1);
}

/// The dials of a peer lead to few addresses of one network at a time.
#[tokio::test(start_paused = true)]
async fn discoveries_cannot_swarm_one_network() {
    let memory = Memory::default();
    let (a, _b) = on_internet(&memory, support::config()).await;
    let mut answers = Vec::new();
    for host in 100..120 {
        let stranger = identity(host.into());
        a.knows_at(stranger.public_key(), [public(7, host)]);
        answers.push(send_to(&a, *stranger.node_id(), DialCause::Peer, host));
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(a.transport.stats().dials, 2);
}

/// Claims that name the hosts of one network have the overlay and the application dial few of them, also claims of peers
/// that connected to this node: a key that did is as free as any. Addresses that worked, or that the operator named, are
/// dialled.
#[tokio::test(start_paused = true)]
async fn hearsay_cannot_swarm_one_network() {
    for cause in [DialCause::Overlay, DialCause::Application] {
        let memory = Memory::default();
        let (a, _b) = on_internet(&memory, support::config()).await;
        let dial = |peer: dht_core::NodeId| {
            let transport = a.transport.clone();
            tokio::spawn(async move { transport.dial_for(&peer, cause).await })
        };
        for host in 100..120 {
            let stranger = identity(host.into());
            let address = [public(7, host)];
            if host % 2 == 0 {
                a.hears_of(&stranger, address);
            } else {
                a.has_met(&stranger, address);
            }
            let _dial = dial(*stranger.node_id());
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(a.transport.stats().dials, 2, "{cause:?}");
        for host in 120..124 {
            let (peer, address) = (identity(host.into()), public(7, host));
            if host % 2 == 0 {
                a.knows_at(peer.public_key(), [address]);
            } else {
                a.has_met(&peer, [address.clone()]);
                let id = peer.node_id();
                a.directory
                    .mark_seen(id, &address, DialTimes::default(), NOW);
            }
            let _dial = dial(*peer.node_id());
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(a.transport.stats().dials, 6, "{cause:?}");
    }
}

/// Dials of the overlay to a network do not keep the application from a peer there: also not if it joined a dial of the
/// overlay that was refused.
#[tokio::test(start_paused = true)]
async fn application_outdoes_joined_overlay_dial() {
    let memory = Memory::default();
    let (a, b) = on_internet(&memory, support::config()).await;
    for host in 100..102 {
        let stranger = identity(host.into());
        a.hears_of(&stranger, [public(0, host)]);
        let (transport, peer) = (a.transport.clone(), *stranger.node_id());
        tokio::spawn(async move { transport.dial_for(&peer, DialCause::Overlay).await });
    }
    sleep(Duration::from_millis(100)).await;
    a.has_met(&b.identity, [public(0, 1)]);
    let peer = b.id();
    let overlay = a.transport.dial_for(&peer, DialCause::Overlay);
    let (overlay, application) = soon(join(overlay, a.transport.dial_known(&peer))).await;
    assert_eq!(overlay.err(), Some(DialError::TooManyDials));
    assert!(application.is_ok(), "{application:?}");
}

/// Whoever announces itself on a link of this machine is dialled there, also in a private network, which a claim leads nobody
/// into. Any number of announcements take two dials, and none of another cause.
#[tokio::test(start_paused = true)]
async fn announcements_are_dialled_in_their_share() {
    let (memory, network) = (Memory::default(), Network::Esmeralda);
    let (a, b) = on_internet_of(network, &memory, support::config()).await;
    a.hears_of(&b.identity, [on_link()]);
    let claimed = soon(a.transport.dial_for(&b.id(), DialCause::Overlay)).await;
    assert_eq!(claimed.err(), Some(DialError::PrivateTarget));
    for seed in 0..20 {
        let (transport, key) = (a.transport.clone(), *identity(100 + seed).public_key());
        let silent = public(u8::try_from(seed).unwrap() + 1, 1);
        tokio::spawn(async move { transport.dial_on_link(&key, &silent).await });
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(a.transport.stats().dials, 2);
    let stranger = identity(99);
    a.knows_at(stranger.public_key(), [public(0, 1)]);
    let dial = a.transport.dial_for(stranger.node_id(), DialCause::Overlay);
    assert!(matches!(soon(dial).await, Err(DialError::Upgrade(_))));
    loop {
        match soon(a.transport.dial_on_link(b.key(), &on_link())).await {
            Ok(_connection) => break,
            Err(error) => assert_eq!(error, DialError::TooManyDials),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// The answer is delivered, and the connection for it is closed when the peer says nothing more.
#[tokio::test(start_paused = true)]
async fn answered_peer_is_let_go() {
    let memory = Memory::default();
    let mut a = Node::memory(1, &memory).await;
    let mut b = Node::memory(2, &memory).await;
    a.knows(&b);
    let answer = send(&a, &b, DialCause::Peer);
    assert_eq!(soon(answer).await.unwrap(), Ok(()));
    b.message().await;
    a.connected().await;
    assert!(a.transport.connection(&b.id()).is_some());
    let ended = a.event().await;
    assert!(
        matches!(
            ended,
            ConnectionEvent::Disconnected {
                minimized: true,
                ..
            }
        ),
        "{ended:?}"
    );
}

/// A peer that talks on the connection stays, as one that dialled; so does one that the application wants.
#[tokio::test(start_paused = true)]
async fn used_answer_connection_stays() {
    for by_peer in [true, false] {
        let memory = Memory::default();
        let mut a = Node::memory(1, &memory).await;
        let mut b = Node::memory(2, &memory).await;
        a.knows(&b);
        soon(send(&a, &b, DialCause::Peer)).await.unwrap().unwrap();
        b.message().await;
        let (from, to): (&Node, &Node) = if by_peer { (&b, &a) } else { (&a, &b) };
        let reply: Queued = (from.transport)
            .send(&to.id(), body(2, 10), Priority::Direct)
            .unwrap();
        soon(reply).await.unwrap();
        let to = if by_peer { &mut a } else { &mut b };
        to.message().await;
        sleep(Duration::from_secs(60)).await;
        let kept = a.transport.connection(&b.id());
        assert!(
            kept.is_some_and(|kept| kept.is_open()),
            "by peer: {by_peer}"
        );
    }
}

/// A peer's dial tries one address once; the application's, which joined it, goes on to the others.
#[tokio::test(start_paused = true)]
async fn peer_dial_tries_one_address() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let mut b = Node::memory(2, &memory).await;
    a.knows_at(b.key(), [Address::memory(9_999), b.address.clone()]);
    let answer = send(&a, &b, DialCause::Peer);
    assert_eq!(
        soon(answer).await.unwrap(),
        failed(DialFailure::Connect(ErrorKind::ConnectionRefused))
    );
    assert_eq!(a.transport.stats().outbound, 0);
    soon(a.transport.dial_known(&b.id())).await.unwrap();
    b.connected().await;
}

#[tokio::test(start_paused = true)]
async fn application_outdoes_joined_peer_dial() {
    let memory = Memory::default();
    let (a, b) = on_internet(&memory, support::config()).await;
    a.knows_at(b.key(), [public(1, 1), public(0, 1)]);
    let _answer = send(&a, &b, DialCause::Peer);
    sleep(Duration::from_millis(1)).await;
    let addresses = [public(1, 1), public(0, 1)];
    let dialled = soon(a.transport.dial(b.key(), &addresses)).await;
    assert!(dialled.is_ok(), "{dialled:?}");
}

/// When every slot is taken the operator still dials, from a reserve that nothing else has.
#[tokio::test(start_paused = true)]
async fn full_node_dials_for_its_operator() {
    let memory = Memory::default();
    let mut setup = Setup::memory(1, &memory);
    setup.config.max_connections = 2;
    let a = setup.start().await;
    let b = Node::memory(2, &memory).await;
    let mut c = Node::memory(3, &memory).await;
    let mut idle = Vec::new();
    for seed in 10..12 {
        idle.push(peer::identify(&memory, &a.address, &identity(seed)).await);
    }
    a.knows(&b);
    let answer = send(&a, &b, DialCause::Peer);
    assert_eq!(soon(answer).await.unwrap(), failed(DialFailure::Limit));
    let addresses = std::slice::from_ref(&c.address);
    soon(a.transport.dial(c.key(), addresses)).await.unwrap();
    c.connected().await;
    drop(idle);
}

/// A name that resolves into a private network is not dialled for a peer on a public one. Names of slow servers hold up
/// no others.
#[tokio::test]
async fn names_of_peers_hurt_nobody() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = parking_lot::Mutex::new(held);
    let memory = Memory::default();
    let mut b = Setup::tcp(2);
    b.network = Network::Esmeralda;
    let b = b.start().await;
    let Some(dht_core::Host::Ip(_, port)) = b.address.host() else {
        unreachable!()
    };
    let mut setup = Setup::memory(1, &memory);
    setup.network = Network::Esmeralda;
    let a = setup
        .start_looking_up(move |name| {
            if name.starts_with("slow") {
                let _released = held.lock().recv();
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        })
        .await;
    let name = |name: &str| {
        format!("/dns4/{name}/tcp/{port}")
            .parse::<Address>()
            .unwrap()
    };
    let mut slow = Vec::new();
    for seed in 100..110 {
        a.knows_at(identity(seed).public_key(), [name("slow.example.com")]);
        let deliverer = u8::try_from(seed).unwrap();
        slow.push(send_to(
            &a,
            *identity(seed).node_id(),
            DialCause::Peer,
            deliverer,
        ));
    }
    let addresses = [name("b.example.com")];
    soon(a.transport.dial(b.key(), &addresses)).await.unwrap();
    a.transport.disconnect(&b.id());
    drop(release);
    for outcome in slow {
        let outcome = soon(outcome).await.unwrap();
        let is_dial = matches!(outcome, Err(DeliveryError::DialFailed(_)));
        assert!(is_dial, "{outcome:?}");
    }
    let stranger = identity(120);
    a.knows_at(stranger.public_key(), [name("stranger.example.com")]);
    let refused = send_to(&a, *stranger.node_id(), DialCause::Peer, 0);
    assert_eq!(
        soon(refused).await.unwrap(),
        failed(DialFailure::NoAddresses)
    );
    let met = identity(121);
    a.has_met(&met, [name("met.example.com")]);
    let refused = soon(a.transport.dial_known(met.node_id())).await;
    assert_eq!(refused.err(), Some(DialError::PrivateTarget));
    assert_eq!(b.transport.stats().inbound, 1, "nobody else came");
    let error = a
        .transport
        .dial_known(stranger.node_id())
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Upgrade(_)), "{error:?}");
}
