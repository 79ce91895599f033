//! A peer that behaves as stock nodes do: it gives no receipts, and takes a stream only while its table has the connection.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use dht_core::{
    Address, Entropy as _, Features, MessageType, Network, NodeIdentity, PeerAddress,
    SeededEntropy, SharedClock,
};
use dht_node::{Node, OsEntropy, SendOptions, SendState, StateKind, SystemClock};
use dht_stack::ByteBudget;
use dht_tests::frames::message_type;
use dht_transport::{Config, Transport};
use tokio::{sync::watch, task::JoinSet};

use crate::net::{any_port, numbered, secret, within};

/// Time from the arrival of a stream until the table has its connection. A stock node needs less than 100 ms.
const TABLE_DELAY: Duration = Duration::from_millis(200);

struct StockPeer {
    address: PeerAddress,
    /// Messages of applications that were taken.
    taken: watch::Receiver<u32>,
    _tasks: JoinSet<()>,
}

impl StockPeer {
    async fn start() -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        let claimed = vec![Address::tcp(Ipv4Addr::LOCALHOST.into(), 18_189)];
        let mut rng = SeededEntropy::new(1).rng();
        let identity = NodeIdentity::new(secret(1), Features::NODE, claimed, clock.now(), &mut rng);
        let (transport, mut outlets) = Transport::builder(
            Arc::new(identity),
            Network::LocalNet,
            Arc::new(OsEntropy),
            clock,
            ByteBudget::new(16 << 20),
        )
        .config(Config::default())
        .start()
        .unwrap();
        let address = transport.listen(&any_port()).await.unwrap();
        let (takes, taken) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { while outlets.events.recv().await.is_some() {} });
        tasks.spawn(async move {
            let mut waiting = JoinSet::new();
            while let Some(message) = outlets.messages.recv().await {
                // Full nodes join as well.
                if message_type(&message.frame) != Some(MessageType::None) {
                    continue;
                }
                let (transport, takes) = (transport.clone(), takes.clone());
                waiting.spawn(async move {
                    tokio::time::sleep(TABLE_DELAY).await;
                    let deliverer = message.source.node_id;
                    if transport.connection(&deliverer).is_some() {
                        takes.send_modify(|taken| *taken += 1);
                    }
                });
            }
        });
        Self {
            address: PeerAddress {
                public_key: secret(1).public_key(),
                addresses: vec![address],
            },
            taken,
            _tasks: tasks,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn short_lived_senders_reach_stock_peers() {
    const SENDERS: u8 = 20;
    let mut stock = StockPeer::start().await;
    for seed in 0..SENDERS {
        let sender = Node::builder(secret(seed + 10)).start();
        let sender = within(sender).await.unwrap();
        sender.add_peer(&stock.address);
        let options = SendOptions {
            direct_only: true,
            ..SendOptions::default()
        };
        let to = &stock.address.public_key;
        let sent = within(sender.send(to, numbered(seed.into(), 100), options)).await;
        let state = within(sent.unwrap().wait(StateKind::Sent)).await;
        assert_eq!(state, Ok(SendState::Sent));
        within(sender.shutdown()).await;
    }
    let all = stock.taken.wait_for(|taken| *taken == u32::from(SENDERS));
    let arrived = tokio::time::timeout(TABLE_DELAY * 2, all).await.is_ok();
    assert!(arrived, "{} of {SENDERS} were taken", *stock.taken.borrow());
}
