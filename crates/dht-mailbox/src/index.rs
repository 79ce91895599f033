//! The index: every row in memory, by number, by mailbox and time, by expiry and by content hash.
//!
//! Changes are staged while a batch is put together and committed once the log has it. Readers see the rows as of the
//! last commit: a staged row is not visible yet, one that is staged to go is visible still.

mod accounts;
mod check;
mod load;
mod read;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use dht_core::{DedupHash, UnixSeconds};

use self::accounts::Change;
pub(crate) use self::load::Loader;
pub(crate) use self::usage::{Full, Newcomer};
use self::usage::{Owners, Usage};
use crate::{
    config::StoreConfig,
    error::Refusal,
    log::{Meta, Place},
    record::{Position, Recipient, Retention, RowId},
    stats::Account,
};

/// Bytes that the index counts for a row in all orders. A process with 300 000 rows in 10 000 mailboxes took 315 bytes
/// of anonymous memory a row, parts and owners included, after they were inserted.
pub(crate) const ROW_BYTES: u64 = 304;
/// Bytes that the index counts for a mailbox or a deliverer. With one of each for every row, 300 000 rows took 937 bytes
/// of anonymous memory a row.
pub(crate) const OWNER_BYTES: u64 = 160;
/// Bytes that the index counts for a deliverer in a mailbox.
pub(crate) const PART_BYTES: u64 = 256;

/// The rows of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    rows: BTreeMap<RowId, Row>,
    /// Rows by mailbox and time, and whether they are staged to go.
    order: BTreeMap<(u32, Position), bool>,
    /// Rows of each class by mailbox and deliverer, without those that are staged to go: the first of a part is the one that
    /// is evicted.
    parts: [BTreeSet<(u32, u32, RowId)>; Retention::COUNT],
    expiry: BTreeSet<(UnixSeconds, RowId)>,
    /// By the first bytes of the hash: the rest is in the row.
    hashes: BTreeSet<([u8; 8], RowId)>,
    usage: Usage,
    segments: BTreeMap<u32, SegmentUse>,
    next_row: u64,
    /// The first row that readers do not see yet.
    visible: u64,
    /// The second of the last insertion.
    newest: UnixSeconds,
    staged: Staged,
}

/// A row as the index keeps it.
#[derive(Clone, Copy, Debug)]
struct Row {
    hash: DedupHash,
    owners: Owners,
    stored_at: UnixSeconds,
    keep_until: UnixSeconds,
    place: Place,
    retention: Retention,
    damaged: bool,
}

/// How much of a segment is still needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentUse {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Changes of the batch in preparation.
#[derive(Debug, Default)]
struct Staged {
    added: Vec<RowId>,
    gone: Vec<RowId>,
    moved: Vec<(RowId, Place)>,
}

impl Index {
    /// An index without rows.
    pub(crate) fn new(config: &StoreConfig) -> Self {
        Self {
            usage: Usage::new(&config.limits),
            next_row: 1,
            visible: 1,
            ..Self::default()
        }
    }

    /// A row and where it lies, unless it is staged to go.
    pub(crate) fn row(&self, id: RowId) -> Option<(Meta, Place)> {
        let row = self.kept_row(id)?;
        Some((self.meta(row)?, row.place))
    }

    /// Whether a message with this hash is stored.
    pub(crate) fn contains(&self, hash: &DedupHash) -> bool {
        let prefix = prefix(hash);
        let mut range = self
            .hashes
            .range((prefix, RowId(0))..=(prefix, RowId(u64::MAX)));
        range.any(|(_, id)| self.rows.get(id).is_some_and(|row| row.hash == *hash))
    }

    /// Checks the quota of the deliverer, for which no eviction makes room.
    pub(crate) fn check_deliverer(
        &self,
        config: &StoreConfig,
        newcomer: &Newcomer,
    ) -> Result<(), Refusal> {
        self.usage.check_deliverer(&config.limits, newcomer)
    }

    /// Limit without room for the newcomer: that of its mailbox, of the store or of the memory of its index.
    pub(crate) fn find_full(&self, config: &StoreConfig, newcomer: &Newcomer) -> Option<Full> {
        let (owners, is_part) = self.usage.new_owners(newcomer);
        let more = ROW_BYTES
            .saturating_add(OWNER_BYTES.saturating_mul(owners))
            .saturating_add(PART_BYTES.saturating_mul(is_part.into()));
        let full = self.usage.find_full(&config.limits, newcomer);
        full.or_else(|| {
            let memory = self.memory().saturating_add(more);
            (memory > config.index_bytes).then_some(Full::Store)
        })
    }

    /// The row that is evicted so that the newcomer has room: the oldest of the part of a mailbox that makes room.
    pub(crate) fn eviction_victim(&self, full: Full, newcomer: &Newcomer) -> Option<RowId> {
        let part = self.usage.eviction_victim(full, newcomer)?;
        let of_class = self.parts.get(part.retention as usize)?;
        let first = |id| (part.mailbox, part.deliverer, RowId(id));
        let victim = of_class.range(first(0)..=first(u64::MAX)).next();
        victim.map(|(_, _, id)| *id)
    }

    /// Up to `limit` rows whose time is over.
    pub(crate) fn expired(&self, now: UnixSeconds, limit: usize) -> Vec<RowId> {
        let rows = self.expiry.range(..(now, RowId(0)));
        rows.take(limit).map(|(_, id)| *id).collect()
    }

    /// Up to `limit` rows of a mailbox from `first` to `last`, except those staged to go.
    pub(crate) fn mailbox_rows(
        &self,
        recipient: Recipient,
        first: Position,
        last: Position,
        limit: usize,
    ) -> Vec<RowId> {
        let Some(mailbox) = self
            .usage
            .mailbox_number(recipient)
            .filter(|_| first <= last)
        else {
            return Vec::new();
        };
        let rows = self.order.range((mailbox, first)..=(mailbox, last));
        let kept = rows.filter(|(_, gone)| !**gone);
        kept.take(limit)
            .map(|((_, position), _)| position.id)
            .collect()
    }

    /// Rows and bytes of the store, staged changes included.
    pub(crate) const fn total(&self) -> Account {
        self.usage.total()
    }

    /// Number of mailboxes that hold a row.
    pub(crate) fn mailbox_count(&self) -> usize {
        self.usage.mailboxes()
    }

    /// Bytes of memory that rows, mailboxes, deliverers and their parts of mailboxes take, without the rows that are staged to go.
    pub(crate) fn memory(&self) -> u64 {
        let rows = ROW_BYTES.saturating_mul(self.usage.total().rows);
        rows.saturating_add(OWNER_BYTES.saturating_mul(self.usage.owners() as u64))
            .saturating_add(PART_BYTES.saturating_mul(self.usage.parts() as u64))
    }

    /// How much of each segment is still needed.
    pub(crate) const fn segments(&self) -> &BTreeMap<u32, SegmentUse> {
        &self.segments
    }

    pub(crate) fn forget_segment(&mut self, number: u32) {
        self.segments.remove(&number);
    }

    /// Enters a segment, also one without rows.
    pub(crate) fn begin_segment(&mut self, number: u32) {
        self.segments.entry(number).or_default();
    }

    pub(crate) const fn newest(&self) -> UnixSeconds {
        self.newest
    }

    pub(crate) fn set_newest(&mut self, newest: UnixSeconds) {
        self.newest = newest;
    }

    /// The number of the next row. Numbers are not used twice, also not after a failure: a message that was refused may
    /// still stand in the log.
    pub(crate) const fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Rows from here on have numbers above this one.
    pub(crate) fn used(&mut self, id: RowId) {
        self.next_row = self.next_row.max(id.0.saturating_add(1));
    }

    /// Stages a row.
    pub(crate) fn add(&mut self, id: RowId, meta: &Meta, place: Place) {
        let change = Change::new(meta.retention, place.length);
        let owners = self.usage.add(meta.recipient, meta.deliverer, change);
        let row = Row::new(meta, owners, place);
        self.rows.insert(id, row);
        self.order.insert(row.key(id), false);
        self.part_of(&row).insert(row.in_part(id));
        self.expiry.insert((row.keep_until, id));
        self.hashes.insert((prefix(&row.hash), id));
        self.enter(place);
        self.used(id);
        self.staged.added.push(id);
    }

    /// Stages that a row goes; whether it was there.
    pub(crate) fn remove(&mut self, id: RowId) -> bool {
        let Some(row) = self.kept_row(id).copied() else {
            return false;
        };
        self.usage
            .remove(row.owners, Change::new(row.retention, row.place.length));
        self.set_gone(&row, id, true);
        self.expiry.remove(&(row.keep_until, id));
        self.hashes.remove(&(prefix(&row.hash), id));
        self.staged.gone.push(id);
        true
    }

    /// Stages that a row lies elsewhere.
    pub(crate) fn relocate(&mut self, id: RowId, place: Place) {
        self.staged.moved.push((id, place));
    }

    /// The log has everything that is staged: readers see it from here on.
    pub(crate) fn commit(&mut self) {
        let Staged { added, gone, moved } = &mut self.staged;
        added.clear();
        let (gone, moved) = (std::mem::take(gone), std::mem::take(moved));
        for (id, place) in moved {
            let Some(row) = self.rows.get_mut(&id) else {
                continue;
            };
            let old = std::mem::replace(&mut row.place, place);
            self.leave(old);
            self.enter(place);
        }
        for id in gone {
            if let Some(row) = self.rows.remove(&id) {
                self.order.remove(&row.key(id));
                self.usage.release(row.owners);
                self.leave(row.place);
            }
        }
        self.visible = self.next_row;
    }

    /// The log does not have what is staged: everything is as before, except that numbers are not used again.
    pub(crate) fn abort(&mut self) {
        let Staged { added, gone, .. } = std::mem::take(&mut self.staged);
        for id in gone {
            let Some(row) = self.rows.get(&id).copied() else {
                continue;
            };
            self.usage
                .put_back(row.owners, Change::new(row.retention, row.place.length));
            self.set_gone(&row, id, false);
            self.expiry.insert((row.keep_until, id));
            self.hashes.insert((prefix(&row.hash), id));
        }
        for id in added {
            self.remove(id);
        }
        self.commit();
    }

    fn set_gone(&mut self, row: &Row, id: RowId, gone: bool) {
        if let Some(is_gone) = self.order.get_mut(&row.key(id)) {
            *is_gone = gone;
        }
        let (part, entry) = (self.part_of(row), row.in_part(id));
        match gone {
            true => part.remove(&entry),
            false => part.insert(entry),
        };
    }

    fn part_of(&mut self, row: &Row) -> &mut BTreeSet<(u32, u32, RowId)> {
        let [low, unmet, high] = &mut self.parts;
        match row.retention {
            Retention::Low => low,
            Retention::Unmet => unmet,
            Retention::High => high,
        }
    }

    fn kept_row(&self, id: RowId) -> Option<&Row> {
        let row = self.rows.get(&id)?;
        // A row that is staged to go has left the order of expiry.
        self.expiry.contains(&(row.keep_until, id)).then_some(row)
    }

    fn meta(&self, row: &Row) -> Option<Meta> {
        let (recipient, deliverer) = self.usage.keys(row.owners)?;
        Some(Meta {
            recipient,
            deliverer,
            hash: row.hash,
            stored_at: row.stored_at,
            keep_until: row.keep_until,
            retention: row.retention,
        })
    }

    fn enter(&mut self, place: Place) {
        self.segments.entry(place.segment).or_default().enter(place);
    }

    fn leave(&mut self, place: Place) {
        let used = self.segments.entry(place.segment).or_default();
        used.rows = used.rows.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(place.length.into());
    }
}

impl SegmentUse {
    fn enter(&mut self, place: Place) {
        self.rows = self.rows.saturating_add(1);
        self.bytes = self.bytes.saturating_add(place.length.into());
    }
}

impl Row {
    const fn new(meta: &Meta, owners: Owners, place: Place) -> Self {
        Self {
            hash: meta.hash,
            owners,
            stored_at: meta.stored_at,
            keep_until: meta.keep_until,
            place,
            retention: meta.retention,
            damaged: false,
        }
    }

    fn key(&self, id: RowId) -> (u32, Position) {
        let stored_at = self.stored_at;
        (self.owners.mailbox, Position { stored_at, id })
    }

    const fn in_part(&self, id: RowId) -> (u32, u32, RowId) {
        (self.owners.mailbox, self.owners.deliverer, id)
    }
}

fn prefix(hash: &DedupHash) -> [u8; 8] {
    hash.0.first_chunk().copied().unwrap_or_default()
}

/// All rows of a mailbox.
const fn whole(mailbox: u32) -> std::ops::RangeInclusive<(u32, Position)> {
    (mailbox, Position::FIRST)..=(mailbox, Position::LAST)
}
