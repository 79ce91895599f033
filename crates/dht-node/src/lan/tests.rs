use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dht_core::{
    ManualClock, Network, SeededEntropy,
    test_util::{NOW, public_key},
};
use dht_stack::Watch;
use parking_lot::Mutex;

use super::*;

type Sent = (SocketAddrV4, Vec<u8>);

/// A link on which everybody hears everything that was sent since it came.
struct FakeLink {
    interface: Interface,
    wire: Watch<Vec<Sent>>,
    read: AtomicUsize,
}

/// Notes what is dialled, and connects at once.
#[derive(Clone, Default)]
struct Dialled(Arc<Mutex<Vec<(PublicKey, String)>>>);

impl FakeLink {
    fn new(wire: &Watch<Vec<Sent>>, host: u8) -> Self {
        Self {
            interface: Interface {
                ip: ip(host),
                prefix: 24,
            },
            wire: wire.clone(),
            read: AtomicUsize::new(0),
        }
    }
}

impl Link for FakeLink {
    async fn interfaces(&mut self) -> io::Result<BTreeSet<Interface>> {
        Ok([self.interface].into())
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        let read = self.read.load(Ordering::Relaxed);
        let (from, message) = self.wire.until(|sent| sent.get(read).cloned()).await;
        self.read.store(read + 1, Ordering::Relaxed);
        buffer[..message.len()].copy_from_slice(&message);
        Ok((message.len(), from))
    }

    async fn send(&self, interface: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        put(
            &self.wire,
            SocketAddrV4::new(interface, PORT),
            message.to_vec(),
        );
        Ok(())
    }
}

impl LanPorts for Dialled {
    fn wants(&self, key: &PublicKey) -> bool {
        !self.0.lock().iter().any(|(dialled, _)| dialled == key)
    }

    fn is_connected(&self, peer: &NodeId) -> bool {
        self.0
            .lock()
            .iter()
            .any(|(dialled, _)| dialled.node_id() == *peer)
    }

    fn dial(&self, key: PublicKey, address: Address) -> BoxFuture<'_, bool> {
        self.0.lock().push((key, address.to_string()));
        Box::pin(std::future::ready(true))
    }
}

fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, host)
}

fn put(wire: &Watch<Vec<Sent>>, from: SocketAddrV4, message: Vec<u8>) {
    wire.change(|sent| {
        sent.push((from, message));
        true
    });
}

/// The discovery of the node with the key of this seed, which listens on an address.
fn discovery(seed: u64, listen: &str) -> (LanDiscovery<Dialled>, Dialled) {
    let config = Config {
        network: Network::Esmeralda,
        ..Config::default()
    };
    let dialled = Dialled::default();
    let listening = [listen.parse().unwrap()];
    let entropy = Arc::new(SeededEntropy::new(seed));
    let clock = Arc::new(ManualClock::new(NOW));
    let key = public_key(seed);
    let ports = dialled.clone();
    let lan = LanDiscovery::new(&config, key, &listening, ports, clock, entropy);
    (lan, dialled)
}

/// Runs the discovery of some nodes on one link for a time.
async fn run(nodes: Vec<(LanDiscovery<Dialled>, FakeLink)>, time: Duration) {
    let running = nodes.into_iter().map(|(mut lan, mut link)| async move {
        let Err(error) = lan.run_on(&mut link).await;
        error
    });
    let running = futures::future::join_all(running);
    assert!(
        tokio::time::timeout(time, running).await.is_err(),
        "a link failed"
    );
}

/// Two nodes of one network dial each other where they listen; one that listens on loopback alone dials and is not dialled.
#[tokio::test(start_paused = true)]
async fn nodes_of_a_link_meet() {
    let wire = Watch::new(Vec::new());
    let (a, dialled_by_a) = discovery(1, "/ip4/0.0.0.0/tcp/18189");
    let (b, dialled_by_b) = discovery(2, "/ip4/192.168.1.2/tcp/7");
    let (c, dialled_by_c) = discovery(3, "/ip4/127.0.0.1/tcp/18189");
    let link = |host| FakeLink::new(&wire, host);
    let nodes = vec![(a, link(1)), (b, link(2)), (c, link(3))];
    run(nodes, Duration::from_secs(20)).await;
    let a = (public_key(1), "/ip4/192.168.1.1/tcp/18189".to_owned());
    let b = (public_key(2), "/ip4/192.168.1.2/tcp/7".to_owned());
    assert_eq!(*dialled_by_a.0.lock(), std::slice::from_ref(&b));
    assert_eq!(*dialled_by_b.0.lock(), std::slice::from_ref(&a));
    let mut by_c = dialled_by_c.0.lock().clone();
    by_c.sort_by_key(|(_, address)| address.clone());
    assert_eq!(by_c, [a, b]);
}

/// A node asks ever more rarely, and answers at most once a second, whatever it is asked.
#[tokio::test(start_paused = true)]
async fn answers_are_rare() {
    let wire = Watch::new(Vec::new());
    let (node, _) = discovery(1, "/ip4/0.0.0.0/tcp/18189");
    let question = LanService::of(Network::Esmeralda).question().unwrap();
    let asking = async {
        for count in 0..600_u64 {
            let host = u8::try_from(count % 200).unwrap() + 2;
            put(&wire, SocketAddrV4::new(ip(host), PORT), question.clone());
            sleep(Duration::from_millis(100)).await;
        }
    };
    let running = run(
        vec![(node, FakeLink::new(&wire, 1))],
        Duration::from_secs(60),
    );
    futures::join!(asking, running);
    let (asked, answered) = wire.look(|sent| {
        let own = sent.iter().filter(|(from, _)| *from.ip() == ip(1));
        let (asked, answered): (Vec<_>, Vec<_>) = own.partition(|(_, sent)| *sent == question);
        (asked.len(), answered.len())
    });
    // At 0, 1, 4, 13 and 40 s.
    assert_eq!(asked, 5);
    assert!((50..=61).contains(&answered), "{answered}");
}

/// Of a flood of announcements, few are dialled, slowly; those from another network or another port are not read.
#[tokio::test(start_paused = true)]
async fn floods_of_announcements_are_bounded() {
    let wire = Watch::new(Vec::new());
    let (node, dialled) = discovery(1, "/ip4/0.0.0.0/tcp/18189");
    let service = LanService::of(Network::Esmeralda);
    for seed in 0..2_000 {
        let message = service
            .announcement(&public_key(100 + seed % 50), ip(9), 5)
            .unwrap();
        put(&wire, SocketAddrV4::new(ip(9), PORT), message);
    }
    let honest = service.announcement(&public_key(2), ip(2), 5).unwrap();
    for from in [
        SocketAddrV4::new(Ipv4Addr::new(192, 168, 2, 3), PORT),
        SocketAddrV4::new(ip(3), PORT + 1),
        SocketAddrV4::new(ip(2), PORT),
    ] {
        put(&wire, from, honest.clone());
    }
    run(
        vec![(node, FakeLink::new(&wire, 1))],
        Duration::from_secs(30),
    )
    .await;
    let dialled = dialled.0.lock();
    let (of_flood, others): (Vec<_>, Vec<_>) =
        (dialled.iter()).partition(|(_, address)| address.contains("/192.168.1.9/"));
    assert_eq!(of_flood.len(), 4);
    assert_eq!(
        others,
        [&(public_key(2), "/ip4/192.168.1.2/tcp/5".to_owned())]
    );
}
