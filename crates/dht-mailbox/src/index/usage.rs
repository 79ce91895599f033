//! Rows and bytes of each mailbox and deliverer, and the choice of the row that is evicted. Performs no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::accounts::{Accounts, Change};
use dht_core::Deliverer;

use crate::{
    config::{Limits, Quota},
    error::Refusal,
    record::{Recipient, Retention},
    stats::Account,
};

/// The accounts of a store, and deliverers and mailboxes ordered by size.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    total: Account,
    mailboxes: Accounts<Recipient>,
    deliverers: Accounts<Deliverer>,
    /// Number of mailboxes that hold a row.
    held_mailboxes: usize,
    /// Usage of each deliverer by class, by the number of the deliverer.
    shares: Vec<[u64; Retention::COUNT]>,
    /// The same by size, in each class the largest last.
    largest: BTreeSet<(Retention, u64, Deliverer)>,
    /// Usage of each deliverer by mailbox and class.
    parts: BTreeMap<Part, u64>,
    /// The same by size, for each class and deliverer the largest last.
    largest_parts: BTreeSet<(Retention, u32, u64, Recipient)>,
    /// Usage of each deliverer by mailbox, of a class and the lower ones together, by size: for each mailbox and
    /// class the largest last.
    largest_sums: BTreeSet<Sum>,
    /// Bytes added to a share for each row, so that many small rows count as much as few large ones.
    row_weight: u64,
}

/// The rows of one class that one deliverer brought for one mailbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Part {
    pub(crate) mailbox: u32,
    pub(crate) deliverer: u32,
    pub(crate) retention: Retention,
}

/// Number of a mailbox, class, what a deliverer has in the mailbox of this class and the lower ones, and the deliverer.
type Sum = (u32, Retention, u64, Deliverer);

/// A row that asks for room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer {
    pub(crate) recipient: Recipient,
    pub(crate) deliverer: Deliverer,
    pub(crate) retention: Retention,
    pub(crate) bytes: u64,
}

/// Limit without room for a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    Mailbox,
    Store,
}

/// The numbers under which a row's mailbox and deliverer are kept: a row holds these instead of two keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owners {
    pub(crate) mailbox: u32,
    pub(crate) deliverer: u32,
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

    /// Enters a row without ordering anything; [`Usage::rank`] follows when all are entered.
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

    /// Orders deliverers and mailboxes by these rows.
    pub(crate) fn rank(&mut self, rows: impl Iterator<Item = (Owners, Change)>) {
        let weight = self.row_weight;
        let weighed = |(owners, change): (Owners, Change)| {
            (Part::new(owners, change), weigh(weight, change.bytes))
        };
        let mut rows: Vec<_> = rows.map(weighed).collect();
        rows.sort_unstable();
        rows.dedup_by(|next, sum| {
            let same = next.0 == sum.0;
            if same {
                sum.1 = sum.1.saturating_add(next.1);
            }
            same
        });
        for (part, share) in &rows {
            if let Some(of_class) = self.share_mut(part.deliverer, part.retention) {
                *of_class = of_class.saturating_add(*share);
            }
        }
        let mailboxes = &self.mailboxes;
        let largest_parts = rows.iter().filter_map(|(part, share)| {
            let recipient = mailboxes.key(part.mailbox)?;
            Some((part.retention, part.deliverer, *share, recipient))
        });
        self.largest_parts = largest_parts.collect();
        self.parts = rows.into_iter().collect();
        self.largest_sums = sums(&self.parts, &self.deliverers).collect();
        let shares = self.shares.iter().zip(&self.deliverers.slots);
        let shares = shares.flat_map(|(shares, slot)| {
            let of_class = Retention::ALL.into_iter().zip(*shares);
            of_class.map(|(retention, share)| (retention, share, slot.key))
        });
        self.largest = shares.filter(|(_, share, _)| *share > 0).collect();
        let held = self.mailboxes.slots.iter();
        self.held_mailboxes = held.filter(|slot| slot.account.rows > 0).count();
    }

    /// Whether deliverers and mailboxes are ordered by exactly these rows; for a self-check.
    pub(crate) fn is_ranked(&self, rows: impl Iterator<Item = (Owners, Change)>) -> bool {
        let (mut parts, mut shares) = (BTreeMap::new(), BTreeMap::new());
        for (owners, change) in rows {
            let (part, more) = (
                Part::new(owners, change),
                weigh(self.row_weight, change.bytes),
            );
            for held in [
                parts.entry(part).or_insert(0_u64),
                shares.entry((part.retention, part.deliverer)).or_insert(0),
            ] {
                *held = held.saturating_add(more);
            }
        }
        let largest = shares.iter().filter_map(|((retention, number), share)| {
            Some((*retention, *share, self.deliverers.key(*number)?))
        });
        let largest_parts = parts.iter().filter_map(|(part, share)| {
            let recipient = self.mailboxes.key(part.mailbox)?;
            Some((part.retention, part.deliverer, *share, recipient))
        });
        self.largest == largest.collect()
            && self.largest_parts == largest_parts.collect()
            && self.largest_sums == sums(&parts, &self.deliverers).collect()
            && self.parts == parts
    }

    /// Takes a row out; its owners keep their numbers until [`Usage::release`].
    pub(crate) fn remove(&mut self, owners: Owners, change: Change) {
        self.total.remove(change);
        if let Some(slot) = self.deliverers.slot(owners.deliverer) {
            slot.account.remove(change);
        }
        if let Some(slot) = self.mailboxes.slot(owners.mailbox) {
            slot.account.remove(change);
            let is_empty = slot.account.rows == 0;
            self.held_mailboxes = self.held_mailboxes.saturating_sub(is_empty.into());
        }
        self.change_shares(owners, change, u64::saturating_sub);
    }

    /// Enters a row again that was taken out and not released.
    pub(crate) fn put_back(&mut self, owners: Owners, change: Change) {
        self.total.add(change);
        self.deliverers.add(owners.deliverer, change);
        if let Some(slot) = self.mailboxes.slot(owners.mailbox) {
            let is_new = slot.account.rows == 0;
            slot.account.add(change);
            self.held_mailboxes = self.held_mailboxes.saturating_add(is_new.into());
        }
        self.change_shares(owners, change, u64::saturating_add);
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
            self.mailboxes.key(owners.mailbox)?,
            self.deliverers.key(owners.deliverer)?,
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
    pub(crate) const fn mailboxes(&self) -> usize {
        self.held_mailboxes
    }

    /// Mailboxes and deliverers that take memory.
    pub(crate) fn owners(&self) -> usize {
        let mailboxes = self.mailboxes.numbers.len();
        mailboxes.saturating_add(self.deliverers.numbers.len())
    }

    /// Parts of mailboxes that take memory.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Of mailbox and deliverer, how many hold nothing yet, and whether the newcomer begins a new part.
    pub(crate) fn new_owners(&self, newcomer: &Newcomer) -> (u64, bool) {
        let mailbox = self.mailboxes.numbers.contains_key(&newcomer.recipient);
        let deliverer = self.deliverers.numbers.contains_key(&newcomer.deliverer);
        let owners = u64::from(!mailbox).saturating_add(u64::from(!deliverer));
        (owners, self.part(newcomer) == 0)
    }

    /// Checks the quota of the deliverer, for which no eviction makes room.
    pub(crate) fn check_deliverer(
        &self,
        limits: &Limits,
        newcomer: &Newcomer,
    ) -> Result<(), Refusal> {
        let held = self.deliverer(newcomer.deliverer);
        match exceeds(&held, limits.per_deliverer, newcomer.bytes) {
            true => Err(Refusal::DelivererQuota),
            false => Ok(()),
        }
    }

    /// Limit without room for the newcomer: that of its mailbox, or of the whole store.
    pub(crate) fn find_full(&self, limits: &Limits, newcomer: &Newcomer) -> Option<Full> {
        let mailbox = self.mailbox(newcomer.recipient);
        if exceeds(&mailbox, limits.per_recipient, newcomer.bytes) {
            return Some(Full::Mailbox);
        }
        exceeds(&self.total, limits.capacity, newcomer.bytes).then_some(Full::Store)
    }

    /// The part that loses a row so that `newcomer` has room. `None` refuses the newcomer.
    pub(crate) fn eviction_victim(&self, full: Full, newcomer: &Newcomer) -> Option<Part> {
        match full {
            Full::Mailbox => self.mailbox_victim(newcomer),
            Full::Store => self.store_victim(newcomer),
        }
    }

    /// In a mailbox, rows of the deliverer that has most in it, the newcomer's counted with what it would have. The
    /// newcomer's own rows make no room for it.
    fn mailbox_victim(&self, newcomer: &Newcomer) -> Option<Part> {
        let mailbox = self.mailbox_number(newcomer.recipient)?;
        let may_go = |class: &Retention| *class <= newcomer.retention;
        // The sum of the highest class in which a deliverer has rows is all it has; that of a lower one is less.
        let of_others = Retention::ALL
            .into_iter()
            .filter(may_go)
            .filter_map(|class| {
                let first = (mailbox, class, 0, Deliverer::from_bytes([0; 32]));
                let last = (mailbox, class, u64::MAX, Deliverer::from_bytes([0xff; 32]));
                let mut sums = self.largest_sums.range(first..=last).rev();
                let (_, _, share, deliverer) = sums.find(|sum| sum.3 != newcomer.deliverer)?;
                Some((*share, *deliverer))
            });
        let (share, largest) = of_others.max()?;
        let parts_of = |deliverer| {
            let number = self.deliverers.numbers.get(&deliverer);
            number.map(|number| self.parts.range(Part::all(mailbox, *number)))
        };
        let own = parts_of(newcomer.deliverer).into_iter().flatten();
        let own = own
            .filter(|(part, _)| may_go(&part.retention))
            .map(|(_, share)| *share);
        let own = own.fold(weigh(self.row_weight, newcomer.bytes), u64::saturating_add);
        if share <= own {
            return None;
        }
        let (part, _) = parts_of(largest)?.next()?;
        Some(*part)
    }

    /// In the store, rows of the lowest class, if that is not above the newcomer's; in it, of the deliverer that has
    /// most; of these, the mailbox in which it has most. In its own class the newcomer counts with what it would have: a
    /// deliverer, and a mailbox of it, that would be the largest makes room for itself.
    fn store_victim(&self, newcomer: &Newcomer) -> Option<Part> {
        let retention = self.largest.first().map(|(retention, ..)| *retention)?;
        let key = |deliverer| self.deliverers.numbers.get(&deliverer).copied();
        let of_class = (retention, 0, Deliverer::from_bytes([0; 32]))
            ..=(retention, u64::MAX, Deliverer::from_bytes([0xff; 32]));
        let (_, share, largest) = self.largest.range(of_class).next_back().copied()?;
        if retention < newcomer.retention {
            return self
                .largest_part(retention, key(largest)?)
                .map(|(_, part)| part);
        }
        if retention > newcomer.retention {
            return None;
        }
        let more = weigh(self.row_weight, newcomer.bytes);
        let own = key(newcomer.deliverer);
        let held = own.map_or(0, |own| self.share(own, retention));
        if share > held.saturating_add(more) {
            return self
                .largest_part(retention, key(largest)?)
                .map(|(_, part)| part);
        }
        let (share, part) = self.largest_part(retention, own?)?;
        let held = self.part(newcomer);
        if share > held.saturating_add(more) {
            return Some(part);
        }
        let mailbox = self.mailbox_number(newcomer.recipient)?;
        (held > 0).then_some(Part { mailbox, ..part })
    }

    /// The mailbox in which a deliverer has most of a class, and how much.
    fn largest_part(&self, retention: Retention, deliverer: u32) -> Option<(u64, Part)> {
        let first = (retention, deliverer, 0, Recipient::MIN);
        let last = (retention, deliverer, u64::MAX, Recipient::MAX);
        let (_, _, share, recipient) = self.largest_parts.range(first..=last).next_back()?;
        let part = Part {
            mailbox: self.mailbox_number(*recipient)?,
            deliverer,
            retention,
        };
        Some((*share, part))
    }

    /// The share of the part that the newcomer would belong to; 0 if there is none.
    fn part(&self, newcomer: &Newcomer) -> u64 {
        let part = self
            .mailbox_number(newcomer.recipient)
            .zip(self.deliverers.numbers.get(&newcomer.deliverer))
            .map(|(mailbox, deliverer)| Part {
                mailbox,
                deliverer: *deliverer,
                retention: newcomer.retention,
            });
        part.and_then(|part| self.parts.get(&part))
            .copied()
            .unwrap_or(0)
    }

    fn share(&self, deliverer: u32, retention: Retention) -> u64 {
        let shares = self.shares.get(deliverer as usize);
        shares
            .and_then(|shares| shares.get(retention as usize))
            .copied()
            .unwrap_or(0)
    }

    fn share_mut(&mut self, deliverer: u32, retention: Retention) -> Option<&mut u64> {
        let at = deliverer as usize;
        if self.shares.len() <= at {
            self.shares.resize(at.saturating_add(1), Default::default());
        }
        self.shares.get_mut(at)?.get_mut(retention as usize)
    }

    /// Orders deliverer and part anew after a row came or went.
    fn change_shares(&mut self, owners: Owners, change: Change, by: fn(u64, u64) -> u64) {
        let Some((recipient, deliverer)) = self.keys(owners) else {
            return;
        };
        let (part, retention) = (Part::new(owners, change), change.retention);
        let weight = weigh(self.row_weight, change.bytes);
        let held = self.share(owners.deliverer, retention);
        let changed = by(held, weight);
        if let Some(share) = self.share_mut(owners.deliverer, retention) {
            *share = changed;
        }
        self.largest.remove(&(retention, held, deliverer));
        if changed > 0 {
            self.largest.insert((retention, changed, deliverer));
        }
        for sum in sums_in(&self.parts, owners, deliverer) {
            self.largest_sums.remove(&sum);
        }
        let held = self.parts.get(&part).copied().unwrap_or(0);
        let changed = by(held, weight);
        let ranked = |share| (retention, owners.deliverer, share, recipient);
        self.largest_parts.remove(&ranked(held));
        if changed > 0 {
            self.largest_parts.insert(ranked(changed));
            self.parts.insert(part, changed);
        } else {
            self.parts.remove(&part);
        }
        self.largest_sums
            .extend(sums_in(&self.parts, owners, deliverer));
    }

    fn acquire(&mut self, recipient: Recipient, deliverer: Deliverer) -> Owners {
        Owners {
            mailbox: self.mailboxes.acquire(recipient),
            deliverer: self.deliverers.acquire(deliverer),
        }
    }
}

// === impl Part ===

impl Part {
    const fn new(owners: Owners, change: Change) -> Self {
        Self {
            mailbox: owners.mailbox,
            deliverer: owners.deliverer,
            retention: change.retention,
        }
    }

    /// The parts of a deliverer in a mailbox.
    fn all(mailbox: u32, deliverer: u32) -> RangeInclusive<Self> {
        let of = |retention| Self {
            mailbox,
            deliverer,
            retention,
        };
        of(Retention::Low)..=of(Retention::High)
    }
}

// === impl Full ===

impl Full {
    /// Why a row is refused for which no other makes room.
    pub(crate) const fn refusal(self) -> Refusal {
        match self {
            Self::Mailbox => Refusal::RecipientQuota,
            Self::Store => Refusal::Full,
        }
    }
}

/// The sums of a deliverer in a mailbox.
fn sums_in(
    parts: &BTreeMap<Part, u64>,
    owners: Owners,
    deliverer: Deliverer,
) -> impl Iterator<Item = Sum> {
    let parts = parts.range(Part::all(owners.mailbox, owners.deliverer));
    parts.scan(0_u64, move |sum, (part, share)| {
        *sum = sum.saturating_add(*share);
        Some((part.mailbox, part.retention, *sum, deliverer))
    })
}

/// The sums of all deliverers in all mailboxes.
fn sums(
    parts: &BTreeMap<Part, u64>,
    deliverers: &Accounts<Deliverer>,
) -> impl Iterator<Item = Sum> {
    let mut last = None;
    // The classes of one deliverer in a mailbox follow each other.
    parts.iter().filter_map(move |(part, share)| {
        let owners = (part.mailbox, part.deliverer);
        let lower = match last {
            Some((of, lower)) if of == owners => lower,
            _ => 0,
        };
        let sum = share.saturating_add(lower);
        last = Some((owners, sum));
        Some((
            part.mailbox,
            part.retention,
            sum,
            deliverers.key(part.deliverer)?,
        ))
    })
}

/// Amount that a row adds to shares.
const fn weigh(row_weight: u64, bytes: u64) -> u64 {
    bytes.saturating_add(row_weight)
}

fn exceeds(account: &Account, room: Quota, bytes: u64) -> bool {
    account.rows >= room.rows || account.bytes.saturating_add(bytes) > room.bytes
}

#[cfg(test)]
mod tests;
