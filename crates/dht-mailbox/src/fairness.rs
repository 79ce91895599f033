//! Who holds how much, and who gives way when room runs out. Pure.

use std::collections::{BTreeSet, HashMap};

use crate::{
    config::{Limits, Room},
    error::Refusal,
    record::{Neighbour, Recipient, Retention},
};

/// What one mailbox or one neighbour holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Rows.
    pub rows: u64,
    /// Bytes, as [`Room`] counts them.
    pub bytes: u64,
    /// Of the rows, those of class [`Retention::Low`].
    pub low_rows: u64,
}

/// The accounts of a store, and the mailboxes ordered by size.
///
/// ```
/// use dht_mailbox::{Usage, Limits, Neighbour, Recipient, Retention};
///
/// let limits = Limits::default();
/// let mut usage = Usage::new(&limits);
/// let [large, small, newcomer] = [1, 2, 3].map(|n| Recipient::from_bytes([n; 32]));
/// let by = Neighbour::from_bytes([9; 32]);
/// usage.add(large, by, Retention::High, 9_000);
/// usage.add(small, by, Retention::High, 100);
/// assert_eq!(usage.eviction_victim(newcomer, 500), Some(large));
/// ```
#[derive(Clone, Debug)]
pub struct Usage {
    total: Account,
    mailboxes: HashMap<Recipient, Account>,
    neighbours: HashMap<Neighbour, Account>,
    /// Mailboxes by share, the largest last.
    by_share: BTreeSet<(u64, Recipient)>,
    /// What a row weighs beside its bytes, so that many small rows count as much as few large ones.
    row_weight: u64,
}

/// A row that comes or goes.
#[derive(Clone, Copy, Debug)]
struct Change {
    bytes: u64,
    low: bool,
}

impl Limits {
    /// Checks the bounds that nobody else's rows can make room under.
    ///
    /// # Errors
    /// The first bound that `bytes` more for this mailbox and this neighbour would break.
    pub fn check_quotas(
        &self,
        usage: &Usage,
        recipient: Recipient,
        neighbour: Neighbour,
        bytes: u64,
    ) -> Result<(), Refusal> {
        if exceeds(&usage.mailbox(recipient), self.per_recipient, bytes) {
            return Err(Refusal::RecipientQuota);
        }
        if exceeds(&usage.neighbour(neighbour), self.per_neighbour, bytes) {
            return Err(Refusal::NeighbourQuota);
        }
        Ok(())
    }

    /// Whether `bytes` more would break the bound of the whole store.
    #[must_use]
    pub fn is_full(&self, usage: &Usage, bytes: u64) -> bool {
        exceeds(&usage.total, self.capacity, bytes)
    }
}

impl Usage {
    /// No rows yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            total: Account::default(),
            mailboxes: HashMap::new(),
            neighbours: HashMap::new(),
            by_share: BTreeSet::new(),
            row_weight: limits
                .capacity
                .bytes
                .checked_div(limits.capacity.rows)
                .unwrap_or(0),
        }
    }

    /// Enters a row.
    pub fn add(
        &mut self,
        recipient: Recipient,
        neighbour: Neighbour,
        retention: Retention,
        bytes: u64,
    ) {
        let change = Change {
            bytes,
            low: retention == Retention::Low,
        };
        self.total.add(change);
        self.neighbours.entry(neighbour).or_default().add(change);
        self.change_mailbox(recipient, |account| account.add(change));
    }

    /// Takes a row out.
    pub fn remove(
        &mut self,
        recipient: Recipient,
        neighbour: Neighbour,
        retention: Retention,
        bytes: u64,
    ) {
        let change = Change {
            bytes,
            low: retention == Retention::Low,
        };
        self.total.remove(change);
        if let Some(account) = self.neighbours.get_mut(&neighbour) {
            account.remove(change);
            if account.rows == 0 {
                self.neighbours.remove(&neighbour);
            }
        }
        self.change_mailbox(recipient, |account| account.remove(change));
    }

    /// Enters an account as it was kept; for opening a store.
    pub fn restore_mailbox(&mut self, recipient: Recipient, account: Account) {
        self.total.rows = self.total.rows.saturating_add(account.rows);
        self.total.bytes = self.total.bytes.saturating_add(account.bytes);
        self.total.low_rows = self.total.low_rows.saturating_add(account.low_rows);
        self.change_mailbox(recipient, |kept| *kept = account);
    }

    /// Enters an account as it was kept; for opening a store.
    pub fn restore_neighbour(&mut self, neighbour: Neighbour, account: Account) {
        self.neighbours.insert(neighbour, account);
    }

    /// Everything that is held.
    #[must_use]
    pub const fn total(&self) -> Account {
        self.total
    }

    /// What this mailbox holds.
    #[must_use]
    pub fn mailbox(&self, recipient: Recipient) -> Account {
        self.mailboxes.get(&recipient).copied().unwrap_or_default()
    }

    /// What this neighbour delivered.
    #[must_use]
    pub fn neighbour(&self, neighbour: Neighbour) -> Account {
        self.neighbours.get(&neighbour).copied().unwrap_or_default()
    }

    /// Mailboxes that hold anything.
    #[must_use]
    pub fn mailboxes(&self) -> usize {
        self.mailboxes.len()
    }

    /// The mailbox that loses a row so that `newcomer` can take `bytes`.
    ///
    /// The largest holder, the newcomer counted with what it would hold: a mailbox that would be the largest makes
    /// room for itself. `None` if that is a mailbox without rows.
    #[must_use]
    pub fn eviction_victim(&self, newcomer: Recipient, bytes: u64) -> Option<Recipient> {
        let own = self.mailbox(newcomer);
        let mut grown = own;
        grown.add(Change { bytes, low: false });
        match self.by_share.last() {
            Some((share, largest)) if *share > self.share(&grown) => Some(*largest),
            _ => (own.rows > 0).then_some(newcomer),
        }
    }

    fn share(&self, account: &Account) -> u64 {
        account
            .bytes
            .saturating_add(account.rows.saturating_mul(self.row_weight))
    }

    fn change_mailbox(&mut self, recipient: Recipient, change: impl FnOnce(&mut Account)) {
        let mut account = self.mailbox(recipient);
        if account.rows > 0 {
            self.by_share.remove(&(self.share(&account), recipient));
        }
        change(&mut account);
        if account.rows > 0 {
            self.by_share.insert((self.share(&account), recipient));
            self.mailboxes.insert(recipient, account);
        } else {
            self.mailboxes.remove(&recipient);
        }
    }
}

impl Account {
    fn add(&mut self, change: Change) {
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

fn exceeds(account: &Account, room: Room, bytes: u64) -> bool {
    account.rows >= room.rows || account.bytes.saturating_add(bytes) > room.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(n: u8) -> Recipient {
        Recipient::from_bytes([n; 32])
    }

    fn neighbour(n: u8) -> Neighbour {
        Neighbour::from_bytes([n; 32])
    }

    fn limits() -> Limits {
        Limits {
            capacity: Room {
                rows: 10,
                bytes: 1_000,
            },
            per_recipient: Room {
                rows: 4,
                bytes: 500,
            },
            per_neighbour: Room {
                rows: 6,
                bytes: 800,
            },
            max_body_bytes: 100,
        }
    }

    fn usage(rows: &[(u8, u8, u64)]) -> Usage {
        let mut usage = Usage::new(&limits());
        for (to, by, bytes) in rows {
            usage.add(recipient(*to), neighbour(*by), Retention::High, *bytes);
        }
        usage
    }

    #[test]
    fn quotas_bound_rows_and_bytes() {
        let check =
            |usage: &Usage, bytes| limits().check_quotas(usage, recipient(1), neighbour(1), bytes);
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
            Err(Refusal::NeighbourQuota)
        );
        assert_eq!(
            check(&usage(&[(2, 1, 790)]), 11),
            Err(Refusal::NeighbourQuota)
        );
    }

    #[test]
    fn the_largest_eviction_victim_and_the_greedy_to_itself() {
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

    #[test]
    fn many_small_rows_weigh_like_few_large_ones() {
        let held = usage(&[(1, 1, 1), (1, 1, 1), (1, 1, 1), (2, 1, 200)]);
        assert_eq!(
            held.eviction_victim(recipient(3), 1),
            Some(recipient(1)),
            "3 of 10 rows are more than 200 of 1000 bytes"
        );
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
        let mut held = usage(&[(1, 1, 300), (2, 1, 100)]);
        held.remove(recipient(1), neighbour(1), Retention::High, 300);
        held.remove(recipient(2), neighbour(1), Retention::High, 100);
        assert_eq!(held.total(), Account::default());
        assert_eq!(
            (held.mailboxes(), held.neighbours.len(), held.by_share.len()),
            (0, 0, 0)
        );
    }
}
