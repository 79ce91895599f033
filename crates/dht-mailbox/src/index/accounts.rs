//! Rows and bytes of each mailbox or deliverer, under a number that its rows hold.

use std::collections::BTreeMap;

use crate::{record::Retention, stats::Account};

/// A row that comes or goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) bytes: u64,
    pub(crate) retention: Retention,
}

/// Accounts by key and by number.
#[derive(Debug)]
pub(super) struct Accounts<K> {
    pub(super) numbers: BTreeMap<K, u32>,
    pub(super) slots: Vec<Slot<K>>,
    free: Vec<u32>,
}

/// One account and the rows that refer to it.
#[derive(Debug)]
pub(super) struct Slot<K> {
    pub(super) key: K,
    pub(super) account: Account,
    /// Rows that hold this number, also those being taken out.
    references: u32,
}

// === impl Accounts ===

impl<K: Ord + Copy> Accounts<K> {
    pub(super) fn account(&self, key: &K) -> Account {
        let number = self.numbers.get(key);
        let slot = number.and_then(|number| self.slots.get(*number as usize));
        slot.map_or_else(Account::default, |slot| slot.account)
    }

    pub(super) fn key(&self, number: u32) -> Option<K> {
        self.slots.get(number as usize).map(|slot| slot.key)
    }

    pub(super) fn slot(&mut self, number: u32) -> Option<&mut Slot<K>> {
        self.slots.get_mut(number as usize)
    }

    pub(super) fn add(&mut self, number: u32, change: Change) {
        if let Some(slot) = self.slot(number) {
            slot.account.add(change);
        }
    }

    /// The number of a key, which is kept until it is released as often as it was acquired.
    pub(super) fn acquire(&mut self, key: K) -> u32 {
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.make(key),
        };
        if let Some(slot) = self.slot(number) {
            slot.references = slot.references.saturating_add(1);
        }
        number
    }

    fn make(&mut self, key: K) -> u32 {
        let slot = Slot {
            key,
            account: Account::default(),
            references: 0,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(free) = self.slot(number) {
                    *free = slot;
                }
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(key, number);
        number
    }

    pub(super) fn release(&mut self, number: u32) {
        let Some(slot) = self.slot(number) else {
            return;
        };
        slot.references = slot.references.saturating_sub(1);
        if slot.references == 0 {
            let key = slot.key;
            self.numbers.remove(&key);
            self.free.push(number);
        }
    }
}

impl<K> Default for Accounts<K> {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

// === impl Account ===

impl Account {
    /// Counts one row more.
    pub(crate) fn add(&mut self, change: Change) {
        self.rows = self.rows.saturating_add(1);
        self.bytes = self.bytes.saturating_add(change.bytes);
        self.low_rows = self.low_rows.saturating_add(change.is_low().into());
    }

    pub(super) fn remove(&mut self, change: Change) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(change.bytes);
        self.low_rows = self.low_rows.saturating_sub(change.is_low().into());
    }
}

// === impl Change ===

impl Change {
    pub(crate) fn new(retention: Retention, length: u32) -> Self {
        Self {
            bytes: length.into(),
            retention,
        }
    }

    fn is_low(self) -> bool {
        self.retention == Retention::Low
    }
}
