//! Rows and bytes of each mailbox and deliverer, and the choice of the mailbox that loses a row. Performs no I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{Limits, Quota},
    error::Refusal,
    record::{Deliverer, Recipient, Retention},
    stats::Account,
};

/// The accounts of a store, and the mailboxes ordered by size.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    total: Account,
    mailboxes: Accounts<Recipient>,
    deliverers: Accounts<Deliverer>,
    /// Mailboxes by share, the largest last.
    by_share: BTreeSet<(u64, Recipient)>,
    /// Bytes added to the share of a mailbox for each row, so that many small rows count as much as few large ones.
    row_weight: u64,
}

/// The numbers under which a row's mailbox and deliverer are kept: a row holds these instead of two keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owners {
    pub(crate) mailbox: u32,
    pub(crate) deliverer: u32,
}

/// A row that comes or goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) bytes: u64,
    pub(crate) low: bool,
}

/// Accounts by key and by number.
#[derive(Debug)]
struct Accounts<K> {
    numbers: BTreeMap<K, u32>,
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<K> {
    key: K,
    account: Account,
    /// Rows that hold this number, also those being taken out.
    references: u32,
}

// === impl Usage ===

impl Usage {
    /// No rows yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        let Quota { rows, bytes } = limits.capacity;
        Self {
            row_weight: bytes.checked_div(rows).unwrap_or(0),
            ..Self::default()
        }
    }

    /// Enters a row.
    pub(crate) fn add(
        &mut self,
        recipient: Recipient,
        deliverer: Deliverer,
        change: Change,
    ) -> Owners {
        let owners = self.acquire(recipient, deliverer);
        self.put_back(owners, change);
        owners
    }

    /// Enters a row without ordering the mailboxes; [`Usage::rank`] follows when all are entered.
    pub(crate) fn load(
        &mut self,
        recipient: Recipient,
        deliverer: Deliverer,
        change: Change,
    ) -> Owners {
        let owners = self.acquire(recipient, deliverer);
        self.total.add(change);
        self.deliverers.add(owners.deliverer, change);
        self.mailboxes.add(owners.mailbox, change);
        owners
    }

    /// Orders the mailboxes.
    pub(crate) fn rank(&mut self) {
        let weight = self.row_weight;
        let held = self
            .mailboxes
            .slots
            .iter()
            .filter(|slot| slot.account.rows > 0);
        self.by_share = held
            .map(|slot| (share(weight, &slot.account), slot.key))
            .collect();
    }

    /// Takes a row out; its owners keep their numbers until [`Usage::release`].
    pub(crate) fn remove(&mut self, owners: Owners, change: Change) {
        self.total.remove(change);
        if let Some(slot) = self.deliverers.slot(owners.deliverer) {
            slot.account.remove(change);
        }
        self.change_mailbox(owners.mailbox, |account| account.remove(change));
    }

    /// Enters a row again that was taken out and not released.
    pub(crate) fn put_back(&mut self, owners: Owners, change: Change) {
        self.total.add(change);
        self.deliverers.add(owners.deliverer, change);
        self.change_mailbox(owners.mailbox, |account| account.add(change));
    }

    /// A row that was taken out needs its owners' numbers no longer.
    pub(crate) fn release(&mut self, owners: Owners) {
        self.mailboxes.release(owners.mailbox);
        self.deliverers.release(owners.deliverer);
    }

    /// Everything that is held.
    pub(crate) const fn total(&self) -> Account {
        self.total
    }

    /// Rows and bytes of this mailbox.
    pub(crate) fn mailbox(&self, recipient: Recipient) -> Account {
        self.mailboxes.account(&recipient)
    }

    /// Rows and bytes that this deliverer brought.
    pub(crate) fn deliverer(&self, deliverer: Deliverer) -> Account {
        self.deliverers.account(&deliverer)
    }

    /// The number of a mailbox that has rows.
    pub(crate) fn mailbox_number(&self, recipient: Recipient) -> Option<u32> {
        self.mailboxes.numbers.get(&recipient).copied()
    }

    /// The keys of a row's owners.
    pub(crate) fn keys(&self, owners: Owners) -> Option<(Recipient, Deliverer)> {
        Some((
            self.mailboxes.slots.get(owners.mailbox as usize)?.key,
            self.deliverers.slots.get(owners.deliverer as usize)?.key,
        ))
    }

    /// Mailboxes behind `after`, in the order of their keys, with their numbers.
    pub(crate) fn mailboxes_after(
        &self,
        after: Option<Recipient>,
    ) -> impl Iterator<Item = (Recipient, u32)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self
            .mailboxes
            .numbers
            .range((from, std::ops::Bound::Unbounded));
        range.map(|(recipient, number)| (*recipient, *number))
    }

    /// Mailboxes that hold anything.
    pub(crate) fn mailboxes(&self) -> usize {
        self.by_share.len()
    }

    /// Mailboxes and deliverers that take memory.
    pub(crate) fn owners(&self) -> usize {
        self.mailboxes
            .numbers
            .len()
            .saturating_add(self.deliverers.numbers.len())
    }

    /// Of these two, how many hold nothing yet.
    pub(crate) fn new_owners(&self, recipient: Recipient, deliverer: Deliverer) -> u64 {
        let mailbox = u64::from(!self.mailboxes.numbers.contains_key(&recipient));
        mailbox.saturating_add(u64::from(!self.deliverers.numbers.contains_key(&deliverer)))
    }

    /// Checks the quotas of mailbox and deliverer, for which no eviction makes room.
    pub(crate) fn check_quotas(
        &self,
        limits: &Limits,
        recipient: Recipient,
        deliverer: Deliverer,
        bytes: u64,
    ) -> Result<(), Refusal> {
        if exceeds(&self.mailbox(recipient), limits.per_recipient, bytes) {
            return Err(Refusal::RecipientQuota);
        }
        if exceeds(&self.deliverer(deliverer), limits.per_deliverer, bytes) {
            return Err(Refusal::DelivererQuota);
        }
        Ok(())
    }

    /// Whether `bytes` more would break the bound of the whole store.
    pub(crate) fn is_full(&self, limits: &Limits, bytes: u64) -> bool {
        exceeds(&self.total, limits.capacity, bytes)
    }

    /// The mailbox that loses a row so that `newcomer` can take `bytes`.
    ///
    /// The largest holder, the newcomer counted with what it would hold: a mailbox that would be the largest makes
    /// room for itself. `None` if that is a mailbox without rows.
    pub(crate) fn eviction_victim(&self, newcomer: Recipient, bytes: u64) -> Option<Recipient> {
        let own = self.mailbox(newcomer);
        let mut grown = own;
        grown.add(Change { bytes, low: false });
        match self.by_share.last() {
            Some((largest, victim)) if *largest > share(self.row_weight, &grown) => Some(*victim),
            _ => (own.rows > 0).then_some(newcomer),
        }
    }

    fn acquire(&mut self, recipient: Recipient, deliverer: Deliverer) -> Owners {
        Owners {
            mailbox: self.mailboxes.acquire(recipient),
            deliverer: self.deliverers.acquire(deliverer),
        }
    }

    fn change_mailbox(&mut self, number: u32, change: impl FnOnce(&mut Account)) {
        let weight = self.row_weight;
        let Some(slot) = self.mailboxes.slot(number) else {
            return;
        };
        let before = (slot.account.rows > 0).then(|| (share(weight, &slot.account), slot.key));
        change(&mut slot.account);
        let after = (slot.account.rows > 0).then(|| (share(weight, &slot.account), slot.key));
        if let Some(before) = before {
            self.by_share.remove(&before);
        }
        self.by_share.extend(after);
    }
}

// === impl Accounts ===

impl<K: Ord + Copy> Accounts<K> {
    fn account(&self, key: &K) -> Account {
        let number = self.numbers.get(key);
        let slot = number.and_then(|number| self.slots.get(*number as usize));
        slot.map_or_else(Account::default, |slot| slot.account)
    }

    fn slot(&mut self, number: u32) -> Option<&mut Slot<K>> {
        self.slots.get_mut(number as usize)
    }

    fn add(&mut self, number: u32, change: Change) {
        if let Some(slot) = self.slot(number) {
            slot.account.add(change);
        }
    }

    /// The number of a key, which is kept until it is released as often as it was acquired.
    fn acquire(&mut self, key: K) -> u32 {
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

    fn release(&mut self, number: u32) {
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

impl Account {
    /// Counts one row more.
    pub(crate) fn add(&mut self, change: Change) {
        self.rows = self.rows.saturating_add(1);
        self.bytes = self.bytes.saturating_add(change.bytes);
        self.low_rows = self.low_rows.saturating_add(change.low.into());
    }

    fn remove(&mut self, change: Change) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(change.bytes);
        self.low_rows = self.low_rows.saturating_sub(change.low.into());
    }
}

impl Change {
    pub(crate) fn new(retention: Retention, length: u32) -> Self {
        Self {
            bytes: length.into(),
            low: retention == Retention::Low,
        }
    }
}

fn share(row_weight: u64, account: &Account) -> u64 {
    account
        .bytes
        .saturating_add(account.rows.saturating_mul(row_weight))
}

fn exceeds(account: &Account, room: Quota, bytes: u64) -> bool {
    account.rows >= room.rows || account.bytes.saturating_add(bytes) > room.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(n: u8) -> Recipient {
        Recipient::from_bytes([n; 32])
    }

    fn deliverer(n: u8) -> Deliverer {
        Deliverer::from_bytes([n; 32])
    }

    fn limits() -> Limits {
        Limits {
            capacity: Quota {
                rows: 10,
                bytes: 1_000,
            },
            per_recipient: Quota {
                rows: 4,
                bytes: 500,
            },
            per_deliverer: Quota {
                rows: 6,
                bytes: 800,
            },
            max_body_bytes: 100,
        }
    }

    const fn change(bytes: u64) -> Change {
        Change { bytes, low: false }
    }

    fn usage(rows: &[(u8, u8, u64)]) -> Usage {
        let mut usage = Usage::new(&limits());
        for (to, by, bytes) in rows {
            usage.add(recipient(*to), deliverer(*by), change(*bytes));
        }
        usage
    }

    #[test]
    fn quotas_bound_rows_and_bytes() {
        let check =
            |usage: &Usage, bytes| usage.check_quotas(&limits(), recipient(1), deliverer(1), bytes);
        assert_eq!(check(&usage(&[(1, 2, 10); 3]), 10), Ok(()));
        assert_eq!(
            check(&usage(&[(1, 2, 10); 4]), 10),
            Err(Refusal::RecipientQuota)
        );
        assert_eq!(check(&usage(&[(1, 2, 490)]), 10), Ok(()));
        assert_eq!(
            check(&usage(&[(1, 2, 490)]), 11),
            Err(Refusal::RecipientQuota)
        );
        assert_eq!(
            check(&usage(&[(2, 1, 10); 6]), 10),
            Err(Refusal::DelivererQuota)
        );
        assert_eq!(
            check(&usage(&[(2, 1, 790)]), 11),
            Err(Refusal::DelivererQuota)
        );
    }

    #[test]
    fn the_largest_mailbox_makes_room() {
        let held = usage(&[(1, 1, 300), (2, 1, 100), (3, 1, 50)]);
        assert_eq!(held.eviction_victim(recipient(3), 10), Some(recipient(1)));
        assert_eq!(held.eviction_victim(recipient(4), 10), Some(recipient(1)));
        assert_eq!(held.eviction_victim(recipient(1), 10), Some(recipient(1)));
        assert_eq!(
            held.eviction_victim(recipient(2), 150),
            Some(recipient(2)),
            "it would be the largest"
        );
        assert_eq!(
            held.eviction_victim(recipient(9), 900),
            None,
            "nothing of its own to give"
        );
    }

    /// Many small rows weigh like few large ones.
    #[test]
    fn small_rows_weigh_with_their_overhead() {
        let held = usage(&[(1, 1, 1), (1, 1, 1), (1, 1, 1), (2, 1, 200)]);
        assert_eq!(
            held.eviction_victim(recipient(3), 1),
            Some(recipient(1)),
            "3 of 10 rows are more than 200 of 1000 bytes"
        );
    }

    #[test]
    fn rows_that_went_leave_nothing() {
        let mut held = Usage::new(&limits());
        let one = held.add(recipient(1), deliverer(1), change(300));
        let two = held.add(recipient(2), deliverer(1), change(100));
        held.remove(one, change(300));
        assert_eq!(held.mailbox_number(recipient(1)), Some(one.mailbox));
        held.remove(two, change(100));
        held.release(one);
        held.release(two);
        assert_eq!(held.total(), Account::default());
        assert_eq!((held.mailboxes(), held.owners()), (0, 0));
        let again = held.add(recipient(3), deliverer(2), change(1));
        assert!(again.mailbox < 2, "numbers are used again");
    }

    #[test]
    fn loaded_rows_count_like_added_ones() {
        let mut loaded = Usage::new(&limits());
        for (to, bytes) in [(1, 300), (2, 100), (1, 20)] {
            loaded.load(recipient(to), deliverer(1), change(bytes));
        }
        loaded.rank();
        let added = usage(&[(1, 1, 300), (2, 1, 100), (1, 1, 20)]);
        assert_eq!(loaded.total(), added.total());
        assert_eq!(loaded.by_share, added.by_share);
        assert_eq!(
            loaded.deliverer(deliverer(1)),
            added.deliverer(deliverer(1))
        );
    }
}
