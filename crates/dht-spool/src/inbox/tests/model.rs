//! Random histories against a plain model, with the file opened again in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const RETENTION: u64 = 20;
const REMEMBER: u64 = 30;
const MAX_ROWS: usize = 16;
/// Deliverers of the rows, by their numbers; each is as likely as the others.
const DELIVERERS: u64 = 4;
const NAMES: [&str; 3] = [DEFAULT_CONSUMER, "second", "third"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u64),
    Ack(usize, u64),
    AckOne(usize, u64),
    Read(usize, usize),
    Add(usize, Start),
    Remove(usize),
    Expire,
    Pass(u64),
    Reopen,
    PowerFailure(u64),
}

/// Every row ever inserted, and what is known of it.
#[derive(Default)]
struct Model {
    rows: BTreeMap<RowId, ModelRow>,
    consumers: BTreeSet<usize>,
    next: RowId,
}

struct ModelRow {
    number: u64,
    received_at: u64,
    unread: BTreeSet<usize>,
    /// When it left.
    left: Option<u64>,
}

impl Model {
    fn held(&self) -> impl Iterator<Item = (&RowId, &ModelRow)> {
        self.rows.iter().filter(|(_, row)| row.left.is_none())
    }

    fn unread(&self, consumer: usize) -> Vec<RowId> {
        let rows = self
            .held()
            .filter(|(_, row)| row.unread.contains(&consumer));
        rows.map(|(id, _)| *id).collect()
    }

    fn insert(&mut self, number: u64, now: u64) -> Result<Inserted, SpoolError> {
        let known = self.rows.values().any(|row| row.number == number);
        if known {
            return Ok(Inserted::AlreadyPresent);
        }
        let held =
            |like: &dyn Fn(u64) -> bool| self.held().filter(|(_, row)| like(row.number)).count();
        let free = (MAX_ROWS - 1).checked_sub(held(&|_| true));
        let free = free.ok_or(SpoolError::Full)?;
        let of_deliverer = held(&|other| other % DELIVERERS == number % DELIVERERS);
        // As `row` gives them.
        let of_origin = held(&|other| other % 2 == number % 2);
        if of_deliverer + of_origin > free {
            return Err(SpoolError::ShareFull);
        }
        self.next += 1;
        let row = ModelRow {
            number,
            received_at: now,
            unread: self.consumers.clone(),
            left: None,
        };
        self.rows.insert(self.next, row);
        Ok(Inserted::New(self.next))
    }

    fn ack(&mut self, consumer: usize, ids: impl Fn(RowId) -> bool, now: u64) {
        for (id, row) in &mut self.rows {
            if ids(*id) && row.left.is_none() {
                row.unread.remove(&consumer);
                if row.unread.is_empty() {
                    row.left = Some(now);
                }
            }
        }
    }

    fn expire(&mut self, now: u64) {
        for row in self.rows.values_mut() {
            if row.left.is_none() && row.received_at + RETENTION < now {
                row.left = Some(now);
            }
        }
        self.rows
            .retain(|_, row| row.left.is_none_or(|left| left + REMEMBER >= now));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let consumer = || 0..NAMES.len();
    prop_oneof![
        6 => (0..25_u64).prop_map(Step::Insert),
        3 => (consumer(), 0..20_u64).prop_map(|(consumer, id)| Step::Ack(consumer, id)),
        4 => (consumer(), 1..20_u64).prop_map(|(consumer, id)| Step::AckOne(consumer, id)),
        3 => (consumer(), 1..4_usize).prop_map(|(consumer, rows)| Step::Read(consumer, rows)),
        2 => (consumer(), prop_oneof![Just(Start::Oldest), Just(Start::Newest)])
            .prop_map(|(consumer, start)| Step::Add(consumer, start)),
        1 => consumer().prop_map(Step::Remove),
        2 => Just(Step::Expire),
        2 => (1..15_u64).prop_map(Step::Pass),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::PowerFailure),
    ]
}

fn open(disk: &FaultyDisk) -> Inbox {
    let config = InboxConfig {
        max_rows: MAX_ROWS as u64,
        retention_seconds: RETENTION,
        remember_seconds: REMEMBER,
        ..InboxConfig::default()
    };
    Inbox {
        journal: Arc::new(crate::disk::on(disk.file(), config).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_does_as_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        let mut disk = FaultyDisk::default();
        let mut inbox = open(&disk);
        let mut model = Model::default();
        model.consumers.insert(0);
        let mut now = 1000;
        for step in steps {
            let time = UnixSeconds(now);
            match step {
                Step::Insert(number) => {
                    let mut new = row(number);
                    new.received_at = time;
                    new.deliverer = Deliverer::from_bytes([(number % DELIVERERS) as u8; 32]);
                    prop_assert_eq!(inbox.insert(new).wait(), model.insert(number, now));
                }
                Step::Ack(consumer, id) => {
                    let acked = inbox.ack(NAMES[consumer], id, time).wait();
                    if !model.consumers.contains(&consumer) {
                        prop_assert_eq!(acked, Err(SpoolError::UnknownConsumer));
                    } else if id > model.next {
                        prop_assert_eq!(acked, Err(SpoolError::UnknownId));
                    } else {
                        acked.unwrap();
                        model.ack(consumer, |other| other <= id, now);
                    }
                }
                Step::AckOne(consumer, id) => {
                    let acked = inbox.ack_one(NAMES[consumer], id, time).wait();
                    if !model.consumers.contains(&consumer) {
                        prop_assert_eq!(acked, Err(SpoolError::UnknownConsumer));
                    } else if id > model.next {
                        prop_assert_eq!(acked, Err(SpoolError::UnknownId));
                    } else {
                        acked.unwrap();
                        model.ack(consumer, |other| other == id, now);
                    }
                }
                Step::Read(consumer, rows) => {
                    let limit = Limit { rows, bytes: usize::MAX };
                    let read = inbox.read(NAMES[consumer], None, limit);
                    if model.consumers.contains(&consumer) {
                        let read: Vec<_> = read.unwrap().into_iter().map(|row| row.id).collect();
                        let mut expected = model.unread(consumer);
                        expected.truncate(rows);
                        prop_assert_eq!(read, expected);
                    } else {
                        prop_assert_eq!(read, Err(SpoolError::UnknownConsumer));
                    }
                }
                Step::Add(consumer, start) => {
                    let added = inbox.add_consumer(NAMES[consumer], start).wait().unwrap();
                    prop_assert_eq!(added, model.consumers.insert(consumer));
                    if added && start == Start::Oldest {
                        for row in model.rows.values_mut() {
                            row.unread.insert(consumer);
                        }
                    }
                }
                Step::Remove(consumer) => {
                    let removed = inbox.remove_consumer(NAMES[consumer], time).wait();
                    if !model.consumers.contains(&consumer) {
                        prop_assert_eq!(removed, Err(SpoolError::UnknownConsumer));
                    } else if model.consumers.len() == 1 {
                        prop_assert_eq!(removed, Err(SpoolError::LastConsumer));
                    } else {
                        removed.unwrap();
                        model.consumers.remove(&consumer);
                        model.ack(consumer, |_| true, now);
                    }
                }
                Step::Expire => {
                    inbox.expire(time).wait().unwrap();
                    model.expire(now);
                }
                Step::Pass(seconds) => now += seconds,
                Step::Reopen => {
                    drop(inbox);
                    inbox = open(&disk);
                }
                Step::PowerFailure(seed) => {
                    disk = disk.crash(seed);
                    inbox = open(&disk);
                }
            }
            let stats = inbox.stats();
            prop_assert_eq!(stats.rows, model.held().count() as u64);
            prop_assert_eq!(stats.newest, model.next);
            for (consumer, name) in NAMES.iter().enumerate() {
                let stats = stats.consumers.iter().find(|stats| stats.name == *name);
                prop_assert_eq!(stats.is_some(), model.consumers.contains(&consumer));
                if let Some(stats) = stats {
                    let unread = model.unread(consumer);
                    prop_assert_eq!(stats.pending, unread.len() as u64);
                    prop_assert!(unread.iter().all(|id| *id > stats.cursor));
                }
            }
        }
    }
}
