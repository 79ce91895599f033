//! The store against a naive model.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        n: u64,
        to: u8,
        by: u8,
        size: usize,
        retention: Retention,
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
        0_u8..3,
        0_usize..900,
        proptest::sample::select(&Retention::ALL[..]),
        proptest::option::of(0_u64..5_000),
    )
        .prop_map(|(n, to, by, size, retention, expires)| Step::Insert {
            n,
            to,
            by,
            size,
            retention,
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
    by: u8,
    bytes: u64,
    retention: Retention,
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

    fn share(&self, of: impl Fn(&ModelRow) -> bool) -> u64 {
        let (rows, bytes) = self.usage(of);
        bytes + rows * (self.limits.capacity.bytes / self.limits.capacity.rows)
    }

    /// The position of the row that makes room in the mailbox of a new one.
    fn mailbox_victim(&self, new: &ModelRow) -> Option<usize> {
        let may_go = |row: &ModelRow| row.to == new.to && row.retention <= new.retention;
        let held = |by| self.share(|row| may_go(row) && row.by == by);
        let own = held(new.by) + self.weight(new);
        let others = (0..3).filter(|by| *by != new.by && held(*by) > own);
        let by = others.max_by_key(|by| (held(*by), *by))?;
        let rows = self.rows.iter().filter(|row| may_go(row) && row.by == by);
        let lowest = rows.map(|row| row.retention).min()?;
        self.oldest(lowest, by, new.to)
    }

    /// The position of the row that makes room in the store for a new one.
    fn store_victim(&self, new: &ModelRow) -> Option<usize> {
        let class = self.rows.iter().map(|row| row.retention).min()?;
        let of = |by, to: Option<u8>| {
            self.share(|row| {
                row.retention == class && row.by == by && to.is_none_or(|to| row.to == to)
            })
        };
        let largest = |by| (0..5).max_by_key(|to| (of(by, Some(*to)), *to));
        let deliverer = (0..3).max_by_key(|by| (of(*by, None), *by))?;
        if class > new.retention {
            return None;
        }
        let more = self.weight(new);
        if class < new.retention || of(deliverer, None) > of(new.by, None) + more {
            return self.oldest(class, deliverer, largest(deliverer)?);
        }
        let mailbox = largest(new.by)?;
        let is_larger = of(new.by, Some(mailbox)) > of(new.by, Some(new.to)) + more;
        self.oldest(class, new.by, if is_larger { mailbox } else { new.to })
    }

    fn weight(&self, row: &ModelRow) -> u64 {
        row.bytes + self.limits.capacity.bytes / self.limits.capacity.rows
    }

    fn oldest(&self, retention: Retention, by: u8, to: u8) -> Option<usize> {
        let wanted = (retention, by, to);
        let mut rows = self.rows.iter();
        rows.position(|row| (row.retention, row.by, row.to) == wanted)
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
            self.usage(|known| known.by == row.by),
            per_deliverer,
            row.bytes,
        ) {
            return None;
        }
        loop {
            let mailbox = self.usage(|known| known.to == row.to);
            let victim = if self.over(mailbox, per_recipient, row.bytes) {
                self.mailbox_victim(&row)?
            } else if self.over(self.usage(|_| true), capacity, row.bytes) {
                self.store_victim(&row)?
            } else {
                break;
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
                Step::Insert { n, to, by, size, retention, expires } => {
                    let expires = expires.map(|after| now.0 + after);
                    let record = NewRecord {
                        retention,
                        deliverer: Deliverer::from_bytes([by; 32]),
                        expires: expires.map(UnixSeconds),
                        ..message(n, to, size)
                    };
                    let row = ModelRow {
                        n,
                        to,
                        by,
                        bytes: crate::log::message_length(8, size),
                        retention,
                        stored_at: now.0,
                        keep_until: (now.0 + if retention == Retention::Low { 6 * 3_600 } else { 3 * 86_400 })
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
