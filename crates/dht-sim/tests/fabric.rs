//! The simulated network: each way in which it carries, delays and fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{io, net::IpAddr, time::Duration};

use dht_core::Address;
use dht_sim::{
    Log,
    fabric::{Fabric, HostId, Weather},
};
use dht_transport::{Acceptor, Medium as _, Socket};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

const ACCESS: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// No jitter, no loss, 20 ms from host to host.
const FINE: Weather = Weather {
    access: (ACCESS, ACCESS),
    jitter: Duration::ZERO,
    loss: 0.0,
    retransmission: Duration::from_millis(200),
    uplink: 1 << 40,
};

struct Net {
    fabric: Fabric,
    hosts: Vec<HostId>,
    listeners: Vec<Box<dyn Acceptor>>,
}

impl Net {
    async fn new(weather: Weather, hosts: u8) -> Self {
        let fabric = Fabric::new(weather, 1, Log::new(None));
        let mut net = Self {
            fabric,
            hosts: Vec::new(),
            listeners: Vec::new(),
        };
        for number in 0..hosts {
            let host = net.fabric.add(ip(number));
            let listener = net.fabric.interface(host).listen(&address(number)).await;
            net.hosts.push(host);
            net.listeners.push(listener.unwrap());
        }
        net
    }

    async fn dial(&self, from: usize, to: u8) -> io::Result<Socket> {
        let interface = self.fabric.interface(self.hosts[from]);
        interface.dial(&address(to)).await
    }

    async fn connect(&mut self, from: usize, to: u8) -> (Socket, Socket) {
        let dialled = self.dial(from, to).await.unwrap();
        let accepted = self.listeners[usize::from(to)].accept().await.unwrap();
        assert_eq!(accepted.source, ip(u8::try_from(from).unwrap()));
        (dialled, accepted.socket)
    }
}

fn ip(number: u8) -> IpAddr {
    [20, number, 0, 1].into()
}

fn address(number: u8) -> Address {
    Address::tcp(ip(number), 18_189)
}

async fn read(socket: &mut Socket, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    socket.read_exact(&mut buffer).await?;
    Ok(buffer)
}

/// Time since `start`, without the fraction of a millisecond that timers add.
fn millis(start: Instant) -> u128 {
    start.elapsed().as_millis()
}

#[tokio::test(start_paused = true)]
async fn bytes_take_the_delay() {
    let start = Instant::now();
    let mut net = Net::new(FINE, 2).await;
    let (mut a, mut b) = net.connect(0, 1).await;
    assert_eq!(millis(start), 40);
    a.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut b, 5).await.unwrap(), b"hello");
    assert_eq!(millis(start), 60);
    drop(a);
    assert_eq!(b.read(&mut [0; 9]).await.unwrap(), 0);
    assert_eq!(millis(start), 80);
}

#[tokio::test(start_paused = true)]
async fn links_share_the_uplink() {
    let weather = Weather {
        uplink: 10_000,
        ..FINE
    };
    let mut net = Net::new(weather, 3).await;
    let (mut a, mut b) = net.connect(0, 1).await;
    let (mut c, mut d) = net.connect(0, 2).await;
    let start = Instant::now();
    a.write_all(&[1; 10_000]).await.unwrap();
    c.write_all(&[2; 10_000]).await.unwrap();
    read(&mut b, 10_000).await.unwrap();
    assert_eq!(millis(start), 1_020);
    read(&mut d, 10_000).await.unwrap();
    assert_eq!(millis(start), 2_020);
}

#[tokio::test(start_paused = true)]
async fn lost_packets_come_late_in_order() {
    let weather = Weather { loss: 0.3, ..FINE };
    let mut net = Net::new(weather, 2).await;
    let (mut a, mut b) = net.connect(0, 1).await;
    let start = Instant::now();
    for number in 0..100 {
        a.write_all(&[number]).await.unwrap();
    }
    let sent: Vec<_> = (0..100).collect();
    assert_eq!(read(&mut b, 100).await.unwrap(), sent);
    assert!(millis(start) >= 220, "{}", millis(start));
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_bytes_and_dials() {
    let mut net = Net::new(FINE, 2).await;
    let (mut a, mut b) = net.connect(0, 1).await;
    net.fabric.cut(|host| u8::from(host.0 == 0));
    a.write_all(b"x").await.unwrap();
    timeout(SECOND, read(&mut b, 1)).await.unwrap_err();
    timeout(SECOND, net.dial(0, 1)).await.unwrap_err();
    net.fabric.cut(|_| 0);
    assert_eq!(
        timeout(2 * SECOND, read(&mut b, 1)).await.unwrap().unwrap(),
        b"x"
    );
    net.dial(0, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_is_silent() {
    let mut net = Net::new(FINE, 2).await;
    let (mut c, d) = net.connect(0, 1).await;
    net.fabric.take_down(net.hosts[1]);
    drop(d);
    let start = Instant::now();
    let error = c.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(
        (error.kind(), millis(start)),
        (io::ErrorKind::TimedOut, 120_000)
    );
    net.fabric.restart(net.hosts[1]);
    let (mut a, b) = net.connect(0, 1).await;
    net.fabric.take_down(net.hosts[1]);
    drop(b);
    a.write_all(b"x").await.unwrap();
    timeout(60 * SECOND, a.read(&mut [0; 1])).await.unwrap_err();
    net.fabric.restart(net.hosts[1]);
    let error = a.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn reset_reaches_both_ends() {
    let mut net = Net::new(FINE, 2).await;
    let (mut a, mut b) = net.connect(0, 1).await;
    net.fabric.reset(net.hosts[1]);
    for socket in [&mut a, &mut b] {
        let error = socket.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(socket.write_all(b"x").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_at_an_old_address() {
    let net = Net::new(FINE, 2).await;
    net.fabric.move_to(net.hosts[1], ip(9));
    timeout(SECOND, net.dial(0, 1)).await.unwrap_err();
    net.dial(0, 9).await.unwrap();
    assert_eq!(net.fabric.address(net.hosts[1]), Some(ip(9)));
}

#[tokio::test(start_paused = true)]
async fn unread_bytes_hold_the_writer_back() {
    let mut net = Net::new(FINE, 2).await;
    let (mut a, mut b) = net.connect(0, 1).await;
    let much = vec![7; 1 << 20];
    timeout(SECOND, a.write_all(&much)).await.unwrap_err();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        b.read_to_end(&mut all).await.map(|_| all.len())
    });
    a.write_all(&much).await.unwrap();
    drop(a);
    assert!(reading.await.unwrap().unwrap() > 1 << 20);
}
