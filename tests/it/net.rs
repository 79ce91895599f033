//! Nodes on loopback TCP, and what may go wrong between them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, Host, PeerAddress, PublicKey, SecretKey};
use dht_node::{
    Builder, Config, Message, Node, OverlayConfig, Received, SafConfig, SendOptions, SendState,
    Subscription,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

/// Far beyond what any step takes on a slow machine: only a deadlock reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// The result of a future that must not hang.
#[track_caller]
pub(crate) fn within<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        timeout(LIMIT, future)
            .await
            .unwrap_or_else(|_| panic!("no result within {LIMIT:?}: {caller}"))
    }
}

/// Waits for a state that tells nobody when it changes.
#[track_caller]
pub(crate) fn until(mut reached: impl FnMut() -> bool) -> impl Future<Output = ()> {
    within(async move {
        let mut looks = interval(Duration::from_millis(1));
        while !reached() {
            looks.tick().await;
        }
    })
}

/// The same key for the same seed.
pub(crate) fn secret(seed: u8) -> SecretKey {
    SecretKey::from_uniform_bytes(&[seed; 64]).unwrap()
}

/// Any free port of this machine.
pub(crate) fn any_port() -> Address {
    Address::tcp(Ipv4Addr::LOCALHOST.into(), 0)
}

/// A node to be, listening on any free port. It asks no peer for stored messages by itself, so that tests can count what
/// is sent.
pub(crate) fn builder(seed: u8) -> Builder {
    builder_with(secret(seed))
}

/// As [`builder`], with this key.
pub(crate) fn builder_with(secret: SecretKey) -> Builder {
    Node::builder(secret).config(config(false))
}

/// Settings of a node on any free port, which asks each peer that connects for stored messages, or does not. As the default
/// node, it connects to all that it hears of.
pub(crate) fn config(auto_request: bool) -> Config {
    Config {
        listen: vec![any_port()],
        saf: SafConfig {
            auto_request,
            ..SafConfig::default()
        },
        ..Config::default()
    }
}

/// As [`config`], for a node that is connected to those only that the test connects it to.
pub(crate) fn fixed_config(auto_request: bool) -> Config {
    Config {
        overlay: OverlayConfig {
            enabled: false,
            ..OverlayConfig::default()
        },
        ..config(auto_request)
    }
}

/// A running node on any free port.
pub(crate) async fn node(seed: u8) -> Node {
    within(builder(seed).start()).await.unwrap()
}

/// As [`node`], connected to those only that the test connects it to: for tests of who is connected to whom, and of lines that fail.
pub(crate) async fn fixed_node(seed: u8) -> Node {
    let builder = builder(seed).config(fixed_config(false));
    within(builder.start()).await.unwrap()
}

/// Connects `from` to `to` and waits until both know.
pub(crate) async fn connect(from: &Node, to: &Node) {
    within(from.connect(&to.peer_address())).await.unwrap();
    until(|| is_connected(from, to) && is_connected(to, from)).await;
}

/// Whether `node` has `peer` among its peers.
pub(crate) fn is_connected(node: &Node, peer: &Node) -> bool {
    node.peers()
        .iter()
        .any(|connected| connected.public_key == *peer.public_key())
}

/// The first socket address a node listens on.
pub(crate) fn socket_address(node: &Node) -> SocketAddr {
    match node.listen_addresses()[0].host() {
        Some(Host::Ip(ip, port)) => SocketAddr::new(ip, port),
        other => panic!("listening on {other:?}"),
    }
}

/// A message of type 7.
pub(crate) fn message(payload: impl Into<Bytes>) -> Message {
    Message {
        message_type: 7,
        payload: payload.into(),
    }
}

/// Message number `number`, `bytes` long.
pub(crate) fn numbered(number: u32, bytes: usize) -> Message {
    let mut payload = vec![0x5a; bytes];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    message(payload)
}

/// The number of a [`numbered`] message.
pub(crate) fn number(received: &Received) -> u32 {
    u32::from_be_bytes(received.message.payload[..4].try_into().unwrap())
}

/// Sends a message to its recipient only, and waits until a socket took it. The error is that of the first attempt, and
/// the message is withdrawn.
pub(crate) async fn send(
    from: &Node,
    to: &PublicKey,
    message: Message,
) -> Result<SendState, String> {
    let options = SendOptions {
        direct_only: true,
        ..SendOptions::default()
    };
    let sending = from.send(to, message, options).await;
    let mut delivery = sending.map_err(|error| error.to_string())?;
    let sent = within(delivery.first_attempt()).await;
    if sent.is_err() {
        // On a full disk it is withdrawn nevertheless, for this life of the node.
        let _written = from.withdraw(delivery.id()).await;
    }
    sent.map_err(|error| {
        let error = error.last_error.as_deref();
        error.unwrap_or("the node has stopped").to_owned()
    })
}

/// Takes the next message.
pub(crate) async fn receive(inbox: &mut Subscription) -> Received {
    let received = within(inbox.recv()).await.unwrap();
    within(inbox.ack()).await;
    received
}

/// Nothing more waits for a node, at a peer or here: after a fetch, the next message is one that it sends to itself.
pub(crate) async fn nothing_more(node: &Node, inbox: &mut Subscription) {
    within(node.fetch_stored()).await.unwrap();
    let me = *node.public_key();
    let options = SendOptions::default();
    within(node.send(&me, message("end"), options))
        .await
        .unwrap();
    let next = receive(inbox).await;
    assert_eq!((next.sender, next.message), (Some(me), message("end")));
}

/// Takes `count` messages and says how often each number came.
pub(crate) async fn receive_numbers(inbox: &mut Subscription, count: u32) -> BTreeMap<u32, u32> {
    let mut times = BTreeMap::new();
    for _ in 0..count {
        *times.entry(number(&receive(inbox).await)).or_insert(0) += 1;
    }
    times
}

/// Each number below `count`, once.
pub(crate) fn each_once(count: u32) -> BTreeMap<u32, u32> {
    (0..count).map(|number| (number, 1)).collect()
}

/// Most bytes that a large message is charged with: padded, sealed, and its place in the stack.
const CHARGE: usize = 80 * 1024;

/// Whether peers that hold much can get no more of the budget: an eighth is kept for those that hold little.
pub(crate) fn is_full(node: &Node) -> bool {
    let stats = node.stats();
    stats.memory_used_bytes + CHARGE > stats.memory_limit_bytes - stats.memory_limit_bytes / 8
}

/// A line between two nodes that can be cut, or go dead without anybody being told.
#[derive(Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    state: watch::Sender<LineState>,
    _tasks: JoinSet<()>,
}

/// Action of a [`Line`] on its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineState {
    /// Carries bytes both ways.
    Open,
    /// Keeps sockets open, carries nothing.
    Dead,
    /// Closes the next socket at once and is open after that.
    ClosesOne,
}

impl Line {
    /// A line to the first address `to` listens on.
    pub(crate) async fn to(to: &Node, state: LineState) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(state);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_all(
            listener,
            socket_address(to),
            state.clone(),
            watched,
        ));
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// Where `node` is found over this line.
    pub(crate) fn peer_address(&self, node: &Node) -> PeerAddress {
        PeerAddress {
            public_key: *node.public_key(),
            addresses: vec![Address::tcp(self.address.ip(), self.address.port())],
        }
    }

    /// Changes what the line does, for sockets it has too.
    pub(crate) fn set(&self, state: LineState) {
        self.state.send_replace(state);
    }

    /// Waits until it does this.
    pub(crate) async fn reaches(&self, wanted: LineState) {
        let mut watched = self.state.subscribe();
        within(watched.wait_for(|state| *state == wanted))
            .await
            .unwrap();
    }
}

async fn carry_all(
    listener: TcpListener,
    target: SocketAddr,
    state: watch::Sender<LineState>,
    watched: watch::Receiver<LineState>,
) {
    let mut carried = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        if *watched.borrow() == LineState::ClosesOne {
            drop(socket);
            state.send_replace(LineState::Open);
            continue;
        }
        carried.spawn(carry(socket, target, watched.clone()));
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, mut state: watch::Receiver<LineState>) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        _ended = copy_bidirectional(&mut near, &mut far) => return,
        _dead = state.wait_for(|state| *state == LineState::Dead) => {}
    }
    // Both sockets stay open and silent until the line is dropped.
    std::future::pending::<()>().await;
}

/// A clock at the present time that moves only when told to, for nodes that must agree on the time.
pub(crate) fn clock() -> Arc<dht_core::ManualClock> {
    use dht_core::Clock as _;
    Arc::new(dht_core::ManualClock::new(dht_node::SystemClock.now()))
}
