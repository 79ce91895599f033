//! From the store of one node to the application of another, page by page, end to end.

use std::collections::BTreeMap;

use dht_core::{DedupHash, Features, test_util};
use dht_mailbox::{MemoryDisk, Store, StoreConfig};
use dht_peers::policy::AttributionProfile;
use dht_proto::store_forward::StoredMessage;
use dht_saf::{Config, Ledger};
use proptest::prelude::*;

use crate::world::{AWAY, ME, NODE, World};

/// The node that stores, and the requester, whose key is that of [`AWAY`].
struct Pair {
    server: World,
    limit: usize,
    put: u64,
    times: BTreeMap<DedupHash, u32>,
}

impl Pair {
    fn new(limit: usize) -> Self {
        Self {
            server: server(limit, None),
            limit,
            put: 0,
            times: BTreeMap::new(),
        }
    }

    async fn put(&mut self, count: u64) {
        self.server.keep(AWAY, count, self.put).await;
        self.put += count;
    }

    /// The server ends and starts again with what was on its disk.
    fn restart(&mut self) {
        let now = self.server.now();
        let store = self.server.saf.store().unwrap().clone();
        self.server = server(self.limit, Some(store));
        self.server.clock.set(now);
    }

    /// The requester connects, asks as [`Saf`](dht_saf::Saf) does, and takes what it is given.
    async fn fetch(&mut self, requester: &World, lose: Option<usize>) {
        requester.clock.set(self.server.now());
        let mut request = Some(requester.request(NODE));
        let mut exchanges = 0;
        while let Some(asked) = request {
            let answer = self.server.ask(AWAY, asked.since, asked.limit).await;
            exchanges += 1;
            assert!(exchanges < 500, "it ends");
            if lose == Some(exchanges) {
                // The answer is under way when the connection breaks.
                let server = test_util::public_key(NODE);
                requester
                    .saf
                    .disconnected(&server.node_id(), Some(server.compressed()));
                let away = test_util::public_key(AWAY);
                self.server
                    .saf
                    .disconnected(&away.node_id(), Some(away.compressed()));
                return;
            }
            requester
                .answer(NODE, asked.request_id, answer.messages)
                .await;
            for message in requester.passed() {
                *self.times.entry(message.hash).or_default() += 1;
            }
            request = requester.last_request().filter(|next| *next != asked);
        }
        let away = test_util::public_key(AWAY);
        self.server
            .saf
            .disconnected(&away.node_id(), Some(away.compressed()));
    }
}

fn server(limit: usize, store: Option<Store>) -> World {
    let store =
        store.unwrap_or_else(|| Store::open_on(MemoryDisk::new(), StoreConfig::default()).unwrap());
    let config = Config {
        max_returned: limit,
        ..Config::default()
    };
    let ledger = Ledger::in_memory();
    World::of(
        ME,
        Features::NODE,
        &config,
        store,
        ledger,
        AttributionProfile::default(),
    )
}

fn requester(limit: usize) -> World {
    let config = Config {
        max_returned: limit,
        ..Config::default()
    };
    World::with(AWAY, Features::NODE, config, StoreConfig::default())
}

#[derive(Clone, Debug)]
enum Event {
    Put(u64),
    Pass(u64),
    Fetch,
    /// As `Fetch`, but this answer is lost.
    Lost(usize),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(
        prop_oneof![
            4 => (1_u64..8).prop_map(Event::Put),
            2 => (0_u64..50).prop_map(Event::Pass),
            2 => Just(Event::Fetch),
            1 => (1_usize..4).prop_map(Event::Lost),
            1 => Just(Event::Restart),
        ],
        1..16,
    )
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A requester of ours: whatever is lost or restarted on the way, in the end the application has each message,
    /// and had it once.
    #[test]
    fn own_requester_gets_each_message_once(
        events in events(), limit in 1_usize..6,
    ) {
        run(async {
            let mut pair = Pair::new(limit);
            let requester = requester(limit);
            for event in events {
                match event {
                    Event::Put(count) => pair.put(count).await,
                    Event::Pass(seconds) => pair.server.clock.advance(seconds),
                    Event::Fetch => pair.fetch(&requester, None).await,
                    Event::Lost(at) => pair.fetch(&requester, Some(at)).await,
                    Event::Restart => pair.restart(),
                }
            }
            pair.fetch(&requester, None).await;
            prop_assert_eq!(pair.times.len() as u64, pair.put);
            prop_assert!(pair.times.values().all(|times| *times == 1), "{:?}", pair.times);
            Ok(())
        })?;
    }

    /// A requester of the 1.x line: one request a connection, from the newest second it has seen, and a table of
    /// hashes behind it.
    #[test]
    fn stock_requester_gets_each_message_once(
        events in events(), limit in 1_usize..6,
    ) {
        run(async {
            let mut pair = Pair::new(limit);
            let mut stock = Stock::default();
            // An answer within one second is given twice, so that it may be lost once.
            let mut lost = false;
            for event in events {
                match event {
                    Event::Put(count) => pair.put(count).await,
                    Event::Pass(seconds) => pair.server.clock.advance(seconds),
                    Event::Fetch | Event::Lost(_) => {
                        lost = matches!(event, Event::Lost(_)) && !lost;
                        stock.fetch(&pair.server, !lost).await;
                    }
                    Event::Restart => pair.restart(),
                }
            }
            // It comes again and again, and asks once each time.
            for _ in 0..2 * pair.put + 5 {
                pair.server.clock.advance(1);
                stock.fetch(&pair.server, true).await;
            }
            prop_assert_eq!(stock.delivered.len() as u64, pair.put);
            Ok(())
        })?;
    }
}

/// A requester of the 1.x line.
#[derive(Default)]
struct Stock {
    since: u64,
    delivered: BTreeMap<Vec<u8>, u32>,
}

impl Stock {
    async fn fetch(&mut self, server: &World, arrives: bool) {
        let answer = server.ask(AWAY, self.since, 50).await;
        let away = test_util::public_key(AWAY);
        server
            .saf
            .disconnected(&away.node_id(), Some(away.compressed()));
        if !arrives {
            return;
        }
        for StoredMessage {
            body, stored_at, ..
        } in answer.messages
        {
            self.delivered.entry(body.to_vec()).or_insert(1);
            self.since = self.since.max(stored_at);
        }
    }
}
