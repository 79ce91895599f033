//! The store against a naive model.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        n: u64,
        to: u8,
        size: usize,
        low: bool,
        expires: Option<u64>,
    },
    Delete {
        nth: usize,
    },
    Purge {
        to: u8,
    },
    Expire,
    Pass {
        seconds: u64,
    },
    Close,
    Kill,
    Crash {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let insert = (
        0_u64..60,
        0_u8..5,
        0_usize..900,
        any::<bool>(),
        proptest::option::of(0_u64..5_000),
    )
        .prop_map(|(n, to, size, low, expires)| Step::Insert {
            n,
            to,
            size,
            low,
            expires,
        });
    let step = prop_oneof![
        12 => insert,
        2 => (0_usize..30).prop_map(|nth| Step::Delete { nth }),
        1 => (0_u8..5).prop_map(|to| Step::Purge { to }),
        1 => Just(Step::Expire),
        2 => (0_u64..9_000).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The rules once more, without any index.
struct Model {
    rows: Vec<ModelRow>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct ModelRow {
    n: u64,
    to: u8,
    bytes: u64,
    low: bool,
    stored_at: u64,
    keep_until: u64,
}

impl Model {
    fn usage(&self, of: impl Fn(&ModelRow) -> bool) -> (u64, u64) {
        let rows = self.rows.iter().filter(|row| of(row));
        rows.fold((0, 0), |(rows, bytes), row| (rows + 1, bytes + row.bytes))
    }

    fn over(&self, (rows, bytes): (u64, u64), room: Quota, more: u64) -> bool {
        rows + 1 > room.rows || bytes + more > room.bytes
    }

    fn share(&self, to: u8, more: u64) -> u64 {
        let (rows, bytes) = self.usage(|row| row.to == to);
        let weight = self.limits.capacity.bytes / self.limits.capacity.rows;
        bytes + rows * weight + if more > 0 { more + weight } else { 0 }
    }

    /// `Some(true)` if stored, `Some(false)` if known, `None` if refused.
    fn insert(&mut self, row: ModelRow, size: usize, expires: Option<u64>) -> Option<bool> {
        let Limits {
            capacity,
            per_recipient,
            per_deliverer,
            max_body_bytes,
        } = self.limits;
        if size as u64 > max_body_bytes || expires.is_some_and(|expires| expires < row.stored_at) {
            return None;
        }
        if self.rows.iter().any(|known| known.n == row.n) {
            return Some(false);
        }
        if self.over(
            self.usage(|known| known.to == row.to),
            per_recipient,
            row.bytes,
        ) || self.over(
            self.usage(|known| known.to % 3 == row.to % 3),
            per_deliverer,
            row.bytes,
        ) {
            return None;
        }
        while self.over(self.usage(|_| true), capacity, row.bytes) {
            let largest = (0..5).filter(|to| self.rows.iter().any(|row| row.to == *to));
            let largest = largest.max_by_key(|to| (self.share(*to, 0), *to))?;
            let loser = if self.share(largest, 0) > self.share(row.to, row.bytes) {
                largest
            } else {
                row.to
            };
            let first = |low: bool| {
                self.rows
                    .iter()
                    .position(|known| known.to == loser && (!low || known.low))
            };
            let victim = match (first(true), row.low) {
                (Some(low), _) => low,
                (None, true) => return None,
                (None, false) => first(false)?,
            };
            self.rows.remove(victim);
        }
        self.rows.push(row);
        Some(true)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn store_agrees_with_naive_model(steps in steps()) {
        let limits = Limits {
            capacity: Quota { rows: 20, bytes: 12_000 },
            per_recipient: Quota { rows: 9, bytes: 6_000 },
            per_deliverer: Quota { rows: 15, bytes: 10_000 },
            max_body_bytes: 800,
        };
        let config = StoreConfig { limits, ..small() };
        let mut disk = FaultyDisk::new();
        let mut store = Store::open_on(disk.clone(), config.clone()).unwrap();
        let mut model = Model { rows: Vec::new(), limits };
        let mut now = NOW;
        for step in steps {
            match step {
                Step::Insert { n, to, size, low, expires } => {
                    let expires = expires.map(|after| now.0 + after);
                    let record = NewRecord {
                        retention: if low { Retention::Low } else { Retention::High },
                        expires: expires.map(UnixSeconds),
                        ..message(n, to, size)
                    };
                    let row = ModelRow {
                        n,
                        to,
                        bytes: crate::log::message_length(8, size),
                        low,
                        stored_at: now.0,
                        keep_until: (now.0 + if low { 6 * 3_600 } else { 3 * 86_400 })
                            .min(expires.unwrap_or(u64::MAX)),
                    };
                    let expected = model.insert(row, size, expires);
                    let outcome = match store.submit(record, now).unwrap().wait() {
                        Ok(outcome) => Some(!outcome.already_existed()),
                        Err(StoreError::Refused(_)) => None,
                        Err(error) => panic!("{error}"),
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::Delete { nth } => {
                    if let Some(row) = model.rows.get(nth).copied() {
                        let found = everything(&store, row.to, UnixSeconds(0));
                        let id = found.iter().find(|record| number(record) == row.n).unwrap().id;
                        prop_assert_eq!(block_on(store.delete(vec![id], Some(recipient(row.to)))).unwrap(), 1);
                        model.rows.remove(nth);
                    }
                }
                Step::Purge { to } => {
                    let (rows, _) = model.usage(|row| row.to == to);
                    prop_assert_eq!(block_on(store.purge(recipient(to))).unwrap(), rows);
                    model.rows.retain(|row| row.to != to);
                }
                Step::Expire => {
                    let (rows, _) = model.usage(|row| row.keep_until < now.0);
                    prop_assert_eq!(block_on(store.expire(now)).unwrap(), rows);
                    model.rows.retain(|row| row.keep_until >= now.0);
                }
                Step::Pass { seconds } => now = now.saturating_add(seconds),
                Step::Close => {
                    drop(store);
                    store = Store::open_on(disk.clone(), config.clone()).unwrap();
                }
                Step::Kill | Step::Crash { .. } => {
                    let left = match step {
                        Step::Crash { seed } => disk.crash(seed),
                        _ => disk.kill(),
                    };
                    disk = left;
                    store = Store::open_on(disk.clone(), config.clone()).unwrap();
                }
            }
            for to in 0..5 {
                let served = |row: &&ModelRow| row.to == to && row.keep_until >= now.0;
                let expected: Vec<_> = model.rows.iter().filter(served).map(|row| row.n).collect();
                let found: Vec<_> = everything(&store, to, now).iter().map(number).collect();
                prop_assert_eq!(found, expected, "mailbox {}", to);
            }
        }
        let found = store.verify().unwrap();
        prop_assert_eq!(found.faults, Vec::<String>::new());
        prop_assert_eq!(found.rows, model.rows.len() as u64);
        prop_assert_eq!(store.stats().bytes, model.usage(|_| true).1);
    }
}
