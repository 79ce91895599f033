//! Dials: one at a time, over which addresses, and how they end.

use super::*;

#[tokio::test(start_paused = true)]
async fn concurrent_dials_are_one_connection() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let addresses = [b.address.clone()];
    let dials = (0..10).map(|_| a.transport.dial(b.key(), &addresses));
    let ids: Vec<_> = soon(futures::future::join_all(dials))
        .await
        .into_iter()
        .map(|c| c.unwrap().id())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        (a.transport.stats().outbound, b.transport.stats().inbound),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn dial_tries_and_records_each_address() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let other = Node::memory(3, &memory).await;
    let nobody: Address = Address::memory(999);
    let foreign: Address = "/dns6/example.com/tcp/1".parse().unwrap();
    let addresses = [
        foreign.clone(),
        nobody.clone(),
        other.address.clone(),
        b.address.clone(),
    ];
    let refused = DialError::Connect(io::ErrorKind::ConnectionRefused);
    let wrong_key = DialError::Upgrade(UpgradeError::WrongKey);
    for (address, failure) in [(&nobody, &refused), (&other.address, &wrong_key)] {
        let dialled = soon(a.transport.dial(b.key(), std::slice::from_ref(address))).await;
        assert_eq!(dialled.unwrap_err(), *failure);
    }
    a.knows_at(b.key(), addresses.clone());
    let connection = soon(a.transport.dial(b.key(), &addresses)).await.unwrap();
    assert_eq!(*connection.address(), b.address);
    let record = a.directory.find(&b.id()).unwrap();
    let dials = record.addresses().iter().map(|known| {
        let failure = known.last_failure().map(str::to_owned);
        (known.address.clone(), known.last_attempt(), failure)
    });
    assert_eq!(
        dials.collect::<Vec<_>>(),
        [
            // An address no medium serves is not tried.
            (foreign, None, None),
            (nobody, Some(NOW), Some("connection refused".to_owned())),
            (
                other.address.clone(),
                Some(NOW),
                Some(DialFailure::WrongKey.to_string())
            ),
            (b.address.clone(), Some(NOW), None),
        ]
    );
    assert!(record.addresses()[3].dial_time.mean().is_some());
}

#[tokio::test(start_paused = true)]
async fn silent_address_delays_no_next() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    // Accepts and says nothing.
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let addresses = [silent.local_address(), b.address.clone()];
    let _holding = tokio::spawn(async move {
        let held = silent.accept().await.unwrap();
        sleep(Duration::from_secs(1000)).await;
        drop(held);
    });
    let start = Instant::now();
    soon(a.transport.dial(b.key(), &addresses)).await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 300);
}

#[tokio::test(start_paused = true)]
async fn hopeless_dial_ends_in_time() {
    let memory = Memory::default();
    let mut a = Node::memory(1, &memory).await;
    let b = identity(2);
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let address = silent.local_address();
    let _holding = tokio::spawn(async move {
        let held = silent.accept().await.unwrap();
        sleep(Duration::from_secs(1000)).await;
        drop(held);
    });
    let start = Instant::now();
    let error = a
        .transport
        .dial(b.public_key(), &[address])
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Upgrade(_)), "{error:?}");
    assert!(start.elapsed() <= Duration::from_secs(15));
    assert!(matches!(
        a.event().await,
        ConnectionEvent::DialFailed { .. }
    ));
    assert_eq!(
        a.transport.dial(b.public_key(), &[]).await.unwrap_err(),
        DialError::NoAddresses
    );
    a.settles_to(1).await;
    assert_eq!(a.transport.stats().dials, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_can_be_cancelled() {
    let memory = Memory::default();
    let a = Node::memory(1, &memory).await;
    let b = identity(2);
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let address = silent.local_address();
    let addresses = [address];
    let (result, _held, ()) = tokio::join!(
        a.transport.dial(b.public_key(), &addresses),
        silent.accept(),
        async {
            sleep(Duration::from_millis(10)).await;
            a.transport.cancel_dial(b.node_id());
        }
    );
    assert_eq!(result.unwrap_err(), DialError::Cancelled);
    a.settles_to(1).await;
}

#[tokio::test(start_paused = true)]
async fn banned_or_own_key_is_undialled() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let addresses = [b.address.clone()];
    a.ban(b.key());
    assert_eq!(
        a.transport.dial(b.key(), &addresses).await.unwrap_err(),
        DialError::Banned
    );
    assert_eq!(
        a.transport.dial(a.key(), &addresses).await.unwrap_err(),
        DialError::OwnKey
    );
    a.directory.unban(*b.key());
    // Our own listener behind somebody else's key.
    let own = [a.address.clone()];
    assert!(a.transport.dial(b.key(), &own).await.is_err());
    assert_eq!(a.transport.connections().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn inbound_connection_answers_waiting_dial() {
    let memory = Memory::default();
    let (a, b) = (
        Node::memory(1, &memory).await,
        Node::memory(2, &memory).await,
    );
    let mut silent = memory.listen(&Address::memory(0)).await.unwrap();
    let addresses = [silent.local_address()];
    let _holding = tokio::spawn(async move {
        let held = silent.accept().await.unwrap();
        sleep(Duration::from_secs(1000)).await;
        drop(held);
    });
    let start = Instant::now();
    let (dialled, _) = tokio::join!(a.transport.dial(b.key(), &addresses), async {
        sleep(Duration::from_secs(1)).await;
        b.transport
            .dial(a.key(), std::slice::from_ref(&a.address))
            .await
            .unwrap()
    });
    assert_eq!(dialled.unwrap().direction(), Direction::Inbound);
    assert_eq!(start.elapsed().as_secs(), 1);
}

/// Two addresses of one listener, a long way off.
struct Distant {
    memory: Memory,
    listener: Address,
}

const ONE_WAY: Duration = Duration::from_millis(400);

fn distant() -> [Address; 2] {
    [5_001, 5_002].map(Address::memory)
}

impl Medium for Distant {
    fn dial<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async {
            let there = self.memory.dial(&self.listener).await?;
            let (near, far) = duplex(64 * 1024);
            let (from_there, to_there) = tokio::io::split(there);
            let (from_here, to_here) = tokio::io::split(far);
            tokio::spawn(carry(from_there, to_here));
            tokio::spawn(carry(from_here, to_there));
            Ok(Socket::duplex(near))
        })
    }

    fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn serves(&self, address: &Address) -> bool {
        distant().contains(address)
    }
}

/// Takes bytes over, each of them [`ONE_WAY`] later.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(1_000);
    let depart = async move {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let _gone = sender
                .send((Instant::now() + ONE_WAY, buffer.split_at(count).0.to_vec()))
                .await;
        }
        sleep(ONE_WAY).await;
    };
    let arrive = async {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _gone = to.shutdown().await;
    };
    tokio::join!(depart, arrive);
}

/// Two addresses of a distant peer make one connection, which lasts.
#[tokio::test(start_paused = true)]
async fn distant_peer_gets_one_lasting_connection() {
    let memory = Memory::default();
    let b = Node::memory(2, &memory).await;
    let medium = Distant {
        memory: memory.clone(),
        listener: b.address.clone(),
    };
    let a = Setup::memory(1, &memory).start_with(medium).await;
    let connection = soon(a.transport.dial(b.key(), &distant())).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(connection.is_open());
    assert_eq!(
        a.transport.connection(&b.id()).map(|held| held.id()),
        Some(connection.id())
    );
    assert_eq!(b.transport.stats().inbound, 1);
}
