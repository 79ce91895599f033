//! Compares the rows of a store with those that must and those that may be there.

use std::collections::{BTreeSet, HashSet};

use dht_core::UnixSeconds;
use dht_mailbox::{Query, Store, StoreError, StoredRecord};

use super::{
    message::{mailboxes, message, plan},
    stream::Line,
};

/// Faults that are put into words.
const SHOWN: usize = 20;

/// Reports of the writer so far.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Insertions acknowledged.
    pub acknowledged: u64,
    /// The highest number heard of.
    pub highest: u64,
    there: BTreeSet<u64>,
    /// Being taken out when the writer was killed.
    doubtful: BTreeSet<u64>,
    /// Removals acknowledged since the last check; they also cover what was never acknowledged.
    removals: Vec<Line>,
    gone: HashSet<u64>,
}

/// Contents of the store after a kill.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Check {
    /// Rows.
    pub rows: u64,
    /// Acknowledged messages that are not there.
    pub lost: u64,
    /// Rows that should not be there or are not what was sent, and whatever does not agree with the rest.
    pub inconsistent: u64,
    /// The first of these, in words.
    pub faults: Vec<String>,
}

impl Account {
    /// Enters messages that are there from the start.
    pub fn base(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            self.there.insert(number);
            self.acknowledged += 1;
        }
    }

    /// Hears what the writer says.
    pub fn hear(&mut self, line: Line) {
        match &line {
            Line::Inserted(number) => {
                self.acknowledged += 1;
                self.highest = self.highest.max(*number);
                self.there.insert(*number);
            }
            Line::Delete { done, .. } | Line::Range { done, .. } | Line::Expire { done, .. } => {
                let from = if *done {
                    &mut self.doubtful
                } else {
                    &mut self.there
                };
                let covered: Vec<u64> =
                    from.extract_if(.., |number| line.covers(*number)).collect();
                if *done {
                    self.gone.extend(covered);
                    self.removals.push(line);
                } else {
                    self.doubtful.extend(covered);
                }
            }
        }
    }

    /// Compares the store with what was heard. From now on, what is there must be there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn check(&mut self, store: &Store) -> Result<Check, StoreError> {
        let inspection = store.verify()?;
        let mut check = Check {
            rows: inspection.rows,
            ..Check::default()
        };
        inspection
            .faults
            .into_iter()
            .for_each(|fault| check.fault(fault));
        let mut found = BTreeSet::new();
        for mailbox in mailboxes() {
            let query = Query {
                limit: usize::MAX,
                max_bytes: usize::MAX,
                // Also what is past its time.
                ..Query::all(mailbox, UnixSeconds(0))
            };
            for record in store.fetch(&query)?.records {
                match number(&record) {
                    Some(number) if found.insert(number) => {}
                    Some(number) => check.fault(format!("message {number} is there twice")),
                    None => check.fault(format!("row {} is not what was sent", record.id.0)),
                }
            }
        }
        let stats = store.stats();
        if (stats.rows, inspection.rows) != (found.len() as u64, found.len() as u64) {
            check.fault(format!(
                "{} rows are served, {} are stored, {} are counted",
                found.len(),
                inspection.rows,
                stats.rows
            ));
        }
        for number in self.there.difference(&found) {
            check.lost += 1;
            check.say(format!("message {number} was acknowledged and is lost"));
        }
        for number in &found {
            if self.there.contains(number) || self.doubtful.contains(number) {
                continue;
            }
            // Never acknowledged is fine; acknowledged as taken out is not.
            if self.gone.contains(number) || self.removals.iter().any(|line| line.covers(*number)) {
                check.fault(format!("message {number} was taken out and is there"));
            }
        }
        self.gone.extend(self.doubtful.difference(&found));
        self.there = found;
        self.doubtful.clear();
        self.removals.clear();
        Ok(check)
    }
}

impl Check {
    fn fault(&mut self, fault: String) {
        self.inconsistent += 1;
        self.say(fault);
    }

    fn say(&mut self, fault: String) {
        if self.faults.len() < SHOWN {
            self.faults.push(fault);
        }
    }
}

/// The number of a message, if everything about it is as it was sent.
fn number(record: &StoredRecord) -> Option<u64> {
    let number = u64::from_be_bytes(record.header.as_ref().try_into().ok()?);
    let sent = message(number);
    let whole = record.recipient == sent.recipient
        && record.hash == sent.hash
        && record.retention == sent.retention
        && record.stored_at == plan(number).now
        && record.body == sent.body;
    whole.then_some(number)
}

#[cfg(test)]
mod tests {
    use dht_mailbox::{Durability, MemoryDisk, RowId};

    use super::*;
    use crate::crash::store_config;

    /// A store and its account, with messages 100 to 139.
    fn filled() -> (Store, Account) {
        let store = Store::open_on(MemoryDisk::new(), store_config(Durability::Immediate)).unwrap();
        let mut account = Account::default();
        for number in 100..140 {
            let ticket = store.submit(message(number), plan(number).now).unwrap();
            ticket.wait().unwrap();
            account.hear(Line::Inserted(number));
        }
        (store, account)
    }

    fn delete(store: &Store, rows: impl Iterator<Item = u64>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let rows = rows.map(RowId).collect();
        runtime.block_on(store.delete(rows, None)).unwrap();
    }

    #[test]
    fn what_is_lost_is_counted() {
        let (store, mut account) = filled();
        assert_eq!(account.check(&store).unwrap().rows, 40);
        // Rows are numbered from 1.
        delete(&store, 1..=2);
        let check = account.check(&store).unwrap();
        assert_eq!((check.lost, check.inconsistent), (2, 0));
    }

    /// A row whose deletion was not acknowledged may be there or not.
    #[test]
    fn unacknowledged_deletion_may_persist() {
        let (store, mut account) = filled();
        let numbers = vec![100, 101];
        let line = |done| Line::Delete {
            done,
            numbers: numbers.clone(),
        };
        account.hear(line(false));
        delete(&store, 1..=1);
        let clean = Check {
            rows: 39,
            ..Check::default()
        };
        assert_eq!(account.check(&store).unwrap(), clean);
        account.hear(line(false));
        account.hear(line(true));
        let check = account.check(&store).unwrap();
        assert_eq!((check.lost, check.inconsistent), (0, 1), "101 is there");
    }

    #[test]
    fn foreign_rows_are_told() {
        let (store, mut account) = filled();
        let mut foreign = message(200);
        foreign.body = "something else".into();
        let ticket = store.submit(foreign, plan(200).now).unwrap();
        ticket.wait().unwrap();
        let check = account.check(&store).unwrap();
        assert!(check.inconsistent > 0);
    }
}
