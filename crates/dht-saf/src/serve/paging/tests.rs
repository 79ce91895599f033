use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer};
use proptest::prelude::*;

use super::*;
use dht_mailbox::{MemoryDisk, NewRecord, Retention, Store, StoreConfig};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const BOB: Recipient = Recipient::from_bytes([1; 32]);

/// A node that stores, and one requester.
struct Scene {
    store: Store,
    pager: Pager,
    config: PagerConfig,
    now: UnixSeconds,
    put: u64,
}

/// Rows that one exchange brought.
struct Answer {
    records: Vec<StoredRecord>,
    deleted: u64,
}

impl Scene {
    fn new(config: PagerConfig) -> Self {
        let store = Store::open_on(MemoryDisk::new(), StoreConfig::default()).unwrap();
        Self {
            store,
            pager: Pager::new(config),
            config,
            now: NOW,
            put: 0,
        }
    }

    fn put(&mut self, count: u64) {
        for _ in 0..count {
            self.put += 1;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&self.put.to_be_bytes());
            let record = NewRecord {
                recipient: BOB,
                deliverer: Deliverer::from_bytes([2; 32]),
                hash: DedupHash(hash),
                retention: Retention::High,
                expires: None,
                header: Bytes::from(self.put.to_le_bytes().to_vec()),
                body: Bytes::from_static(b"body"),
            };
            self.store.submit(record, self.now).unwrap().wait().unwrap();
        }
    }

    fn ask(&mut self, since: Option<u64>, arrives: bool) -> Answer {
        self.request(since, false, arrives)
    }

    fn request(&mut self, since: Option<u64>, continued: bool, arrives: bool) -> Answer {
        let request = PageRequest {
            requester: BOB,
            since: since.map(UnixSeconds),
            limit: 0,
            continued,
        };
        let mut plan = self.pager.plan(request, self.now);
        let deleted = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(self.store.delete(plan.proven.clone(), Some(BOB)))
            .unwrap();
        assert_eq!(deleted, plan.proven.len() as u64, "proven rows were there");
        let mut page = self
            .store
            .fetch(&self.pager.query(&plan, self.now))
            .unwrap();
        self.pager.arrange(&plan, &mut page);
        if let Some(query) = self.pager.query_passed(&plan, &page, self.now) {
            let passed = self.store.fetch(&query).unwrap();
            self.pager.append_passed(&mut plan, &mut page, passed);
        }
        if arrives {
            self.pager.handed_over(&plan, &page);
        }
        for record in &mut page.records {
            record.stored_at = plan.stored_at(record);
        }
        Answer {
            records: page.records,
            deleted,
        }
    }

    fn restart(&mut self) {
        self.pager = Pager::new(self.config);
    }

    fn held(&self) -> u64 {
        self.store.stats().rows
    }
}

fn number(record: &StoredRecord) -> u64 {
    u64::from_le_bytes(record.header[..].try_into().unwrap())
}

fn numbers(records: &[StoredRecord]) -> Vec<u64> {
    records.iter().map(number).collect()
}

fn limited(max_returned: usize) -> PagerConfig {
    PagerConfig {
        max_returned,
        ..PagerConfig::default()
    }
}

#[test]
fn a_small_mailbox_is_newest_first() {
    let mut scene = Scene::new(limited(5));
    scene.put(3);
    assert_eq!(numbers(&scene.ask(None, true).records), [3, 2, 1]);
}

#[test]
fn a_large_mailbox_is_oldest_first() {
    let mut scene = Scene::new(limited(5));
    for _ in 0..7 {
        scene.put(1);
        scene.now.0 += 1;
    }
    assert_eq!(numbers(&scene.ask(None, true).records), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&scene.ask(Some(NOW.0 + 4), true).records), [6, 7]);
}

#[test]
fn reference_order_is_strict_and_loses() {
    let mut scene = Scene::new(PagerConfig {
        order: Order::NewestFirst,
        ..limited(2)
    });
    for _ in 0..4 {
        scene.put(1);
        scene.now.0 += 1;
    }
    assert_eq!(numbers(&scene.ask(None, true).records), [4, 3]);
    let answer = scene.ask(Some(NOW.0 + 3), true);
    assert_eq!(numbers(&answer.records), []);
    assert_eq!(
        (answer.deleted, scene.held()),
        (1, 3),
        "what was never handed over is not deleted"
    );
}

#[test]
fn only_a_later_second_proves_receipt() {
    let mut scene = Scene::new(limited(3));
    for _ in 0..6 {
        scene.put(1);
        scene.now.0 += 1;
    }
    scene.ask(None, true);
    assert_eq!(scene.ask(None, true).deleted, 0, "it asks the same again");
    assert_eq!(
        scene.ask(Some(NOW.0 + 1), false).deleted,
        0,
        "it has a part of it from elsewhere"
    );
    let answer = scene.ask(Some(NOW.0 + 2), true);
    assert_eq!(answer.deleted, 2, "those of the very second stay");
    assert_eq!(numbers(&answer.records), [4, 5, 6]);
    assert_eq!(scene.ask(Some(NOW.0 + 5), true).deleted, 3);
    assert_eq!(scene.held(), 1);
}

#[test]
fn a_page_not_sent_proves_nothing() {
    let mut scene = Scene::new(limited(3));
    scene.put(2);
    scene.ask(None, false);
    scene.now.0 += 10;
    let answer = scene.ask(Some(NOW.0 + 5), true);
    assert_eq!((answer.deleted, scene.held()), (0, 2));
}

#[test]
fn a_future_since_deletes_nothing() {
    let mut scene = Scene::new(limited(3));
    scene.put(3);
    scene.ask(None, true);
    for since in [NOW.0 + 1, u64::MAX] {
        let answer = scene.ask(Some(since), true);
        assert_eq!(
            (answer.records.len(), answer.deleted, scene.held()),
            (0, 0, 3)
        );
    }
}

#[test]
fn repeated_requests_from_zero_delete_nothing() {
    let mut scene = Scene::new(limited(3));
    scene.put(9);
    for _ in 0..20 {
        assert_eq!(numbers(&scene.ask(None, true).records), [1, 2, 3]);
    }
    assert_eq!(scene.held(), 9);
}

#[test]
fn a_crowded_second_is_served_completely() {
    let mut scene = Scene::new(limited(3));
    scene.put(8);
    scene.now.0 += 1;
    let mut got = numbers(&scene.ask(None, true).records);
    for _ in 0..3 {
        got.extend(numbers(&scene.ask(Some(NOW.0), true).records));
    }
    assert_eq!(got, (1..=8).collect::<Vec<_>>());
    assert_eq!(scene.held(), 8);
    scene.put(1);
    assert_eq!(numbers(&scene.ask(Some(NOW.0), true).records), [9]);
    assert_eq!(scene.ask(Some(NOW.0 + 1), true).deleted, 8);
}

#[test]
fn a_lost_page_is_sent_again() {
    let mut scene = Scene::new(limited(3));
    scene.put(8);
    scene.ask(None, true);
    scene.ask(Some(NOW.0), true);
    // The answer with 4, 5, 6 was under way; the request for it proves that 1, 2, 3 have arrived.
    scene.pager.disconnected(BOB);
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(numbers(&scene.ask(Some(NOW.0), true).records));
    }
    assert_eq!(got, [4, 5, 6, 7, 8]);
}

#[test]
fn one_request_per_connection_passes_second() {
    let mut scene = Scene::new(limited(3));
    scene.put(8);
    scene.now.0 += 1;
    scene.put(2);
    scene.now.0 += 9;
    let mut got = Vec::new();
    let mut watermark = None;
    for _ in 0..9 {
        let answer = scene.ask(watermark, true);
        got.push(numbers(&answer.records));
        watermark = watermark.max(answer.records.iter().map(|it| it.stored_at.0).max());
        scene.pager.disconnected(BOB);
    }
    let [a, b, c] = [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9]];
    // Every page twice, as the first one may not have arrived.
    assert_eq!(got[..5], [a.clone(), a, b.clone(), b, c]);
    assert_eq!(got[5..], [vec![9, 10], vec![9, 10], vec![], vec![]]);
    assert!(scene.held() >= 2, "nothing of the last second is proven");
}

#[test]
fn an_unaccepted_page_is_passed() {
    let mut scene = Scene::new(limited(3));
    for _ in 0..8 {
        scene.put(1);
        scene.now.0 += 1;
    }
    let mut got = Vec::new();
    for _ in 0..14 {
        got.push(numbers(&scene.ask(None, true).records));
        scene.pager.disconnected(BOB);
    }
    assert_eq!(got[..4], vec![vec![1, 2, 3]; 4]);
    assert_eq!(got[4..8], vec![vec![4, 5, 6]; 4]);
    assert_eq!(got[8..12], vec![vec![8, 7]; 4]);
    assert_eq!(got[12..], [vec![], vec![1, 2, 3]], "then from the start");
    // Rows that it has from elsewhere prove nothing about those that it was given in vain.
    let answer = scene.ask(Some(NOW.0 + 5), true);
    assert_eq!((answer.deleted, scene.held()), (3, 5));
    assert_eq!(numbers(&answer.records), [6, 7, 8]);
}

/// A page is lost on six connections, and passed after the fourth: it comes after the others, whose seconds are later.
#[test]
fn a_passed_page_comes_last() {
    for margin in [0, 30] {
        let mut scene = Scene::new(limited(3));
        for _ in 0..8 {
            scene.put(1);
            scene.now.0 += 60;
        }
        for lost in [1, 1, 1, 1, 4, 4] {
            assert_eq!(numbers(&scene.ask(None, true).records).first(), Some(&lost));
            scene.pager.disconnected(BOB);
        }
        let (mut got, mut since, mut read) = (BTreeSet::new(), None, 0);
        // The connection breaks once more in between; then the requester has all of it.
        for _ in 0..2 {
            loop {
                let records = scene.ask(since, true).records;
                got.extend(numbers(&records));
                let newest = records.iter().map(|record| record.stored_at.0).max();
                read = read.max(newest.unwrap_or(0));
                since = Some(read);
                if records.len() < 3 || got.len() == 5 {
                    break;
                }
            }
            scene.pager.disconnected(BOB);
            since = Some(read - margin);
        }
        assert_eq!(got, (1..=8).collect(), "a margin of {margin} s");
        assert_eq!(read, NOW.0 + 7 * 60);
    }
}

#[test]
fn an_unsent_page_is_sent_again() {
    let mut scene = Scene::new(limited(3));
    scene.put(8);
    scene.ask(None, true);
    let request = PageRequest {
        requester: BOB,
        since: Some(NOW),
        limit: 0,
        continued: false,
    };
    for _ in 0..3 {
        let plan = scene.pager.plan(request, NOW);
        let page = scene.store.fetch(&scene.pager.query(&plan, NOW)).unwrap();
        assert_eq!(numbers(&page.records), [4, 5, 6]);
        scene.pager.handed_over(&plan, &page);
        scene.pager.not_sent(&plan, &page);
    }
}

/// More rows than a page holds lie in the future of a clock that was set back, and more are stored.
#[test]
fn rows_survive_a_clock_set_back() {
    let mut scene = Scene::new(limited(3));
    scene.put(4);
    scene.now.0 += 600;
    scene.put(7);
    let mut got = numbers(&scene.ask(None, true).records);
    got.extend(numbers(&scene.ask(Some(NOW.0), true).records));
    got.extend(numbers(&scene.ask(Some(NOW.0 + 600), true).records));
    scene.now.0 -= 300;
    scene.put(3);
    // A requester that has read up to the future, which proves the first four, and one that has read nothing.
    for (mut since, first) in [(Some(NOW.0 + 600), 1), (None, 5)] {
        loop {
            let records = scene.ask(since, true).records;
            let Some(newest) = records.iter().map(|it| it.stored_at.0).max() else {
                break;
            };
            assert!(newest <= scene.now.0.max(since.unwrap_or(0)));
            since = Some(newest);
            got.extend(numbers(&records));
        }
        got.sort_unstable();
        got.dedup();
        assert_eq!(got, (first..=14).collect::<Vec<_>>());
        got.clear();
    }
    assert_eq!(scene.held(), 10, "nothing in the future is proven");
}

#[test]
fn requesters_are_bounded() {
    let mut pager = Pager::new(PagerConfig::default());
    let page = Page {
        records: vec![StoredRecord {
            id: RowId(1),
            recipient: BOB,
            stored_at: NOW,
            keep_until: NOW,
            hash: DedupHash([0; 32]),
            retention: Retention::High,
            header: Bytes::new(),
            body: Bytes::new(),
        }],
        ..Page::default()
    };
    for n in 0..5_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let request = PageRequest {
            requester: Recipient::from_bytes(key),
            since: None,
            limit: 0,
            continued: false,
        };
        let plan = pager.plan(request, NOW);
        pager.handed_over(&plan, &page);
    }
    assert_eq!(pager.requesters.len(), MAX_REQUESTERS);
}

#[derive(Clone, Debug)]
enum Event {
    Put(u64),
    Pass(u64),
    /// The clock of the node is set back.
    Back(u64),
    Ask,
    Lost,
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A requester of the 1.x line: asks from the newest second it has seen, keeps what it has by hash.
    #[test]
    fn every_message_reaches_the_application_once(
        events in proptest::collection::vec(prop_oneof![
            3 => (1_u64..12).prop_map(Event::Put),
            2 => (0_u64..3).prop_map(Event::Pass),
            1 => (1_u64..40).prop_map(Event::Back),
            3 => Just(Event::Ask),
            1 => Just(Event::Lost),
            1 => Just(Event::Restart),
        ], 1..40),
        limit in 1_usize..7,
    ) {
        let mut scene = Scene::new(limited(limit));
        let mut delivered = BTreeMap::<u64, u32>::new();
        let mut watermark = None;
        let mut undisturbed = true;
        let mut served = 0_usize;
        // An answer within one second is given twice, so that it may be lost once.
        let mut lost = false;
        let mut take = |scene: &mut Scene, arrives: bool, watermark: &mut Option<u64>, served: &mut usize| {
            let answer = scene.ask(*watermark, true);
            if arrives {
                *served += answer.records.len();
                for record in &answer.records {
                    *delivered.entry(number(record)).or_default() += 1;
                    *watermark = (*watermark).max(Some(record.stored_at.0));
                }
            }
            answer.records.len()
        };
        for event in events {
            match event {
                Event::Put(count) => scene.put(count),
                Event::Pass(seconds) => scene.now.0 += seconds,
                Event::Back(seconds) => {
                    undisturbed = false;
                    scene.now.0 -= seconds;
                }
                Event::Lost if !lost => {
                    (undisturbed, lost) = (false, true);
                    take(&mut scene, false, &mut watermark, &mut served);
                    scene.pager.disconnected(BOB);
                }
                Event::Ask | Event::Lost => {
                    lost = false;
                    take(&mut scene, true, &mut watermark, &mut served);
                }
                Event::Restart => {
                    undisturbed = false;
                    scene.restart();
                }
            }
        }
        // It returns for good and repeats while answers are full.
        for _ in 0..scene.put + 5 {
            scene.now.0 += 1;
            if take(&mut scene, true, &mut watermark, &mut served) < limit {
                break;
            }
        }
        prop_assert_eq!(delivered.keys().copied().collect::<Vec<_>>(), (1..=scene.put).collect::<Vec<_>>());
        if undisturbed {
            prop_assert!(delivered.values().all(|times| *times == 1), "{:?}", delivered);
            prop_assert_eq!(served as u64, scene.put);
        }
    }

    /// A requester of ours: the same, but each round begins a margin before its watermark (defect D3).
    #[test]
    fn requester_with_margin_gets_everything(
        bursts in proptest::collection::vec((0_u64..30, 0_u64..3), 1..12),
        limit in 1_usize..9,
        margin in 0_u64..5,
    ) {
        let mut scene = Scene::new(limited(limit));
        let mut known = BTreeSet::new();
        let mut watermark = 0_u64;
        for (count, seconds) in bursts {
            scene.put(count);
            scene.now.0 += seconds;
            let mut since = watermark.saturating_sub(margin);
            loop {
                let answer = scene.ask((since > 0).then_some(since), true);
                known.extend(numbers(&answer.records));
                since = answer.records.iter().map(|record| record.stored_at.0).max().unwrap_or(since);
                watermark = watermark.max(since);
                if answer.records.len() < limit {
                    break;
                }
            }
        }
        prop_assert_eq!(known, (1..=scene.put).collect::<BTreeSet<_>>());
    }
}

#[test]
fn continuing_proves_nothing() {
    let mut scene = Scene::new(limited(10));
    scene.put(15);
    scene.now = NOW.saturating_add(1);
    scene.put(15);
    let since = Some(NOW.0 - 30);
    assert_eq!(numbers(&scene.ask(since, true).records).len(), 10);
    for first in [11, 21] {
        let answer = scene.request(since, true, true);
        let expected: Vec<_> = (first..first + 10).collect();
        assert_eq!(numbers(&answer.records), expected);
        assert_eq!(answer.deleted, 0);
    }
    assert!(scene.request(since, true, true).records.is_empty());
    // Asked again without it, all come again.
    let answer = scene.ask(since, true);
    assert_eq!(number(&answer.records[0]), 1);
    assert_eq!((answer.deleted, scene.held()), (0, 30));
    // A response that may not have arrived is not passed over.
    scene.pager.disconnected(BOB);
    let answer = scene.request(since, true, true);
    assert_eq!(number(&answer.records[0]), 1);
}

/// Rows that a requester had no room for stay, wherever it goes on.
#[test]
fn continued_requests_prove_nothing() {
    let mut scene = Scene::new(limited(3));
    for _ in 0..9 {
        scene.put(1);
        scene.now.0 += 1;
    }
    assert_eq!(numbers(&scene.ask(None, true).records), [1, 2, 3]);
    for (since, served) in [(5, [6, 7, 8].as_slice()), (5, &[9])] {
        let answer = scene.request(Some(NOW.0 + since), true, true);
        assert_eq!(
            (numbers(&answer.records).as_slice(), answer.deleted),
            (served, 0)
        );
    }
    assert_eq!(numbers(&scene.ask(None, true).records), [1, 2, 3]);
    assert_eq!(scene.held(), 9);
    assert_eq!(scene.ask(Some(NOW.0 + 2), true).deleted, 2);
}
