//! Which rows are held, who acked what, which hashes are known. Performs no I/O and reads no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_stack::FairQueue;

use super::{
    consumer::Consumer,
    row::{InboxExpiry, Inserted, Lost, NewRow, RowId, Start},
    shares::{Parties, Shares, Usage},
};
use crate::{
    config::{InboxConfig, MAX_NAME_BYTES},
    error::SpoolError,
    journal::Ids,
};

/// Name of the consumer a new inbox has.
pub const DEFAULT_CONSUMER: &str = "default";
/// Rows one call of `expire` removes, so that it does not hold up insertions for long.
pub(crate) const EXPIRE_ROWS: usize = 10_000;

/// A row as it is kept in memory.
#[derive(Clone, Debug)]
pub(crate) struct RowMeta {
    pub(crate) received_at: UnixSeconds,
    pub(crate) bytes: u64,
    pub(crate) hash: DedupHash,
    pub(crate) parties: Parties,
}

/// The hash of a row that left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    pub(crate) id: RowId,
    pub(crate) hash: DedupHash,
    /// Last second in which it is remembered.
    pub(crate) until: UnixSeconds,
}

/// One change of the file.
#[derive(Debug)]
pub(crate) enum Change {
    Insert(RowId, Box<NewRow>),
    Remove(RowId),
    Remember(Remembered, Deliverer),
    Forget(RowId),
    Consumer(String, RowId, Vec<RowId>),
    RemoveConsumer(String),
    Lost(DedupHash),
    LostOthers,
    ForgetLost(Lost),
}

/// Rows that left, and insertions that were refused, since the inbox was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acked: u64,
    pub(crate) expired: u64,
    pub(crate) damaged: u64,
    pub(crate) refused: u64,
    pub(crate) over_share: u64,
}

impl Tally {
    /// Rows that left.
    pub(super) const fn departed(self) -> u64 {
        self.acked + self.expired + self.damaged
    }
}

/// Everything of an inbox but payloads.
#[derive(Debug, Default)]
pub(crate) struct InboxState {
    pub(super) config: InboxConfig,
    pub(super) rows: BTreeMap<RowId, RowMeta>,
    pub(super) shares: Shares,
    /// Hashes of rows held and of rows that left.
    pub(super) known: HashMap<DedupHash, RowId>,
    /// Rows that left, by deliverer. For another one the oldest of the deliverer with most is forgotten.
    pub(super) remembered: FairQueue<Deliverer, Remembered>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    /// Hashes that were lost and not yet forgotten by others. Rows that are found damaged are named up to `remember_rows` hashes.
    pub(super) lost: Lost,
    pub(super) ids: Ids,
    /// Bytes of the insertion refused last as full; 0 if there was room since.
    pub(super) wanted: u64,
    pub(super) tally: Tally,
    /// The part of `tally` that metrics have.
    pub(super) reported: Tally,
}

impl InboxState {
    /// No row, and the consumer that a new inbox has.
    pub(super) fn empty(config: &InboxConfig) -> Self {
        let consumer = (DEFAULT_CONSUMER.to_owned(), Consumer::default());
        Self {
            config: config.clone(),
            consumers: BTreeMap::from([consumer]),
            ..Self::default()
        }
    }

    pub(super) fn insert(
        &mut self,
        row: NewRow,
        changes: &mut Vec<Change>,
    ) -> Result<Inserted, SpoolError> {
        if self.known.contains_key(&row.hash) {
            return Ok(Inserted::AlreadyPresent);
        }
        let meta = RowMeta {
            received_at: row.received_at,
            bytes: row.payload.len() as u64,
            hash: row.hash,
            parties: Parties::of(&row),
        };
        let admitted = self
            .shares
            .admit(&self.config, &meta.parties, Usage::of_row(meta.bytes));
        if let Err(error) = admitted {
            self.tally.refused += 1;
            if error == SpoolError::ShareFull {
                self.tally.over_share += 1;
            } else {
                self.wanted = meta.bytes.max(1);
            }
            return Err(error);
        }
        self.wanted = 0;
        let id = self.ids.take();
        self.add(id, meta);
        for consumer in self.consumers.values_mut() {
            consumer.pending += 1;
        }
        changes.push(Change::Insert(id, Box::new(row)));
        Ok(Inserted::New(id))
    }

    /// Puts a row into the maps, as it is inserted or read from the file.
    pub(super) fn add(&mut self, id: RowId, row: RowMeta) {
        self.shares.add(&row.parties, Usage::of_row(row.bytes));
        self.known.insert(row.hash, id);
        self.rows.insert(id, row);
    }

    /// Whether a durable row has this hash, or had it and is remembered.
    pub(super) fn contains(&self, hash: &DedupHash) -> bool {
        self.known
            .get(hash)
            .is_some_and(|id| *id < self.ids.durable())
    }

    pub(super) fn is_full(&self) -> bool {
        let wanted = Usage::of_row(self.wanted);
        self.wanted > 0 && self.shares.free(&self.config, wanted).is_none()
    }

    pub(super) fn add_consumer(&mut self, name: &str, start: Start) -> Result<bool, SpoolError> {
        check_name(name)?;
        if self.consumers.contains_key(name) {
            return Ok(false);
        }
        if self.consumers.len() >= self.config.max_consumers.max(1) {
            return Err(SpoolError::TooManyConsumers);
        }
        let consumer = match start {
            Start::Oldest => Consumer::at(0, self.rows.len() as u64),
            Start::Newest => Consumer::at(self.ids.next() - 1, 0),
        };
        self.consumers.insert(name.to_owned(), consumer);
        Ok(true)
    }

    pub(super) fn remove_consumer(
        &mut self,
        name: &str,
        now: UnixSeconds,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpoolError> {
        if !self.consumers.contains_key(name) {
            return Err(SpoolError::UnknownConsumer);
        }
        if self.consumers.len() == 1 {
            return Err(SpoolError::LastConsumer);
        }
        let Some(removed) = self.consumers.remove(name) else {
            return Err(SpoolError::UnknownConsumer);
        };
        changes.push(Change::RemoveConsumer(name.to_owned()));
        let unread = self.rows.keys().filter(|id| !removed.has_acked(**id));
        let freed: Vec<_> = unread.copied().filter(|id| self.all_acked(*id)).collect();
        self.depart(&freed, now, changes);
        self.tally.acked += freed.len() as u64;
        Ok(())
    }

    /// Acks every row up to and including `up_to`.
    pub(super) fn ack(
        &mut self,
        name: &str,
        up_to: RowId,
        now: UnixSeconds,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpoolError> {
        let consumer = self.consumer(name)?;
        if up_to >= self.ids.next() {
            return Err(SpoolError::UnknownId);
        }
        if up_to <= consumer.cursor {
            return Ok(());
        }
        let acked: Vec<_> = self
            .rows
            .range(consumer.cursor + 1..=up_to)
            .map(|(id, _)| *id)
            .filter(|id| !consumer.has_acked(*id))
            .collect();
        if let Some(consumer) = self.consumers.get_mut(name) {
            consumer.pending -= acked.len() as u64;
            consumer.cursor = up_to;
            consumer.ahead.retain(|id| *id > up_to);
            consumer.dirty = true;
        }
        self.acked(name, &acked, now, changes);
        Ok(())
    }

    /// Acks one row, whatever is before it.
    pub(super) fn ack_one(
        &mut self,
        name: &str,
        id: RowId,
        now: UnixSeconds,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpoolError> {
        let consumer = self.consumer(name)?;
        if id >= self.ids.next() {
            return Err(SpoolError::UnknownId);
        }
        if consumer.has_acked(id) || !self.rows.contains_key(&id) {
            return Ok(());
        }
        let is_next = self.first_unread(consumer) == Some(id);
        if !is_next && consumer.ahead.len() >= self.config.out_of_order_acks {
            return Err(SpoolError::TooManyAcks);
        }
        if let Some(consumer) = self.consumers.get_mut(name) {
            consumer.ahead.insert(id);
            consumer.pending -= 1;
            consumer.dirty = true;
        }
        self.acked(name, &[id], now, changes);
        Ok(())
    }

    fn consumer(&self, name: &str) -> Result<&Consumer, SpoolError> {
        self.consumers.get(name).ok_or(SpoolError::UnknownConsumer)
    }

    fn first_unread(&self, consumer: &Consumer) -> Option<RowId> {
        let mut after = self.rows.range(consumer.cursor + 1..).map(|(id, _)| *id);
        after.find(|id| !consumer.ahead.contains(id))
    }

    /// Removes what everybody acked, and notes the consumer's new place.
    fn acked(&mut self, name: &str, ids: &[RowId], now: UnixSeconds, changes: &mut Vec<Change>) {
        let gone: Vec<_> = ids
            .iter()
            .copied()
            .filter(|id| self.all_acked(*id))
            .collect();
        self.depart(&gone, now, changes);
        self.tally.acked += gone.len() as u64;
        self.advance(name);
    }

    /// Moves the cursor over what was acked out of order.
    fn advance(&mut self, name: &str) {
        if let Some(consumer) = self.consumers.get_mut(name) {
            while let Some(first) = consumer.ahead.first().copied()
                && self
                    .rows
                    .range(consumer.cursor + 1..)
                    .next()
                    .is_none_or(|(id, _)| *id >= first)
            {
                consumer.ahead.pop_first();
                consumer.cursor = first;
            }
        }
    }

    fn all_acked(&self, id: RowId) -> bool {
        self.consumers
            .values()
            .all(|consumer| consumer.has_acked(id))
    }

    /// Removes rows past retention, and forgets hashes whose time is over.
    pub(super) fn expire(&mut self, now: UnixSeconds, changes: &mut Vec<Change>) -> InboxExpiry {
        let retention = self.config.retention_seconds;
        let over = self
            .rows
            .iter()
            .filter(|(_, row)| row.received_at.saturating_add(retention) < now);
        let over: Vec<_> = over.map(|(id, _)| *id).take(EXPIRE_ROWS).collect();
        self.depart(&over, now, changes);
        let expired = over.len() as u64;
        self.tally.expired += expired;
        let before = self.remembered.len();
        let (remembered, known) = (&mut self.remembered, &mut self.known);
        remembered.pop_while(|it| it.until < now, |_, it| forget(known, it, changes));
        let forgotten = (before - self.remembered.len()) as u64;
        InboxExpiry { expired, forgotten }
    }

    /// Removes a row whose payload is damaged; a copy of the message may be inserted again.
    pub(super) fn remove_damaged(&mut self, id: RowId, changes: &mut Vec<Change>) {
        if let Some(row) = self.take(id) {
            self.known.remove(&row.hash);
            changes.push(Change::Remove(id));
            self.tally.damaged += 1;
            if self.lost.hashes.len() < self.config.remember_rows {
                self.lost.hashes.push(row.hash);
                changes.push(Change::Lost(row.hash));
            } else if !self.lost.others {
                self.lost.others = true;
                changes.push(Change::LostOthers);
            }
        }
    }

    /// Drops what everybody who noted it has forgotten.
    pub(super) fn forget_lost(&mut self, told: Lost, changes: &mut Vec<Change>) {
        let hashes: HashSet<_> = told.hashes.iter().collect();
        self.lost.hashes.retain(|hash| !hashes.contains(hash));
        self.lost.others &= !told.others;
        if !told.is_empty() {
            changes.push(Change::ForgetLost(told));
        }
    }

    fn depart(&mut self, ids: &[RowId], now: UnixSeconds, changes: &mut Vec<Change>) {
        let until = now.saturating_add(self.config.remember_seconds);
        for &id in ids {
            let Some(row) = self.take(id) else { continue };
            changes.push(Change::Remove(id));
            let (hash, deliverer) = (row.hash, row.parties.deliverer);
            let remembered = Remembered { id, hash, until };
            changes.push(Change::Remember(remembered, deliverer));
            self.remembered.push(deliverer, remembered);
        }
        while self.remembered.len() > self.config.remember_rows
            && let Some((_, gone)) = self.remembered.pop_largest()
        {
            forget(&mut self.known, gone, changes);
        }
    }

    /// Takes a row out of the maps, and out of what consumers have still to read.
    fn take(&mut self, id: RowId) -> Option<RowMeta> {
        let row = self.rows.remove(&id)?;
        self.shares.remove(&row.parties, Usage::of_row(row.bytes));
        for consumer in self.consumers.values_mut() {
            // The file may name the id until the consumer acks next; loading leaves it out.
            if !consumer.ahead.remove(&id) && id > consumer.cursor {
                consumer.pending -= 1;
            }
        }
        Some(row)
    }

    /// Durable rows a consumer has not acked, after `after`.
    pub(super) fn unread(
        &self,
        name: &str,
        after: RowId,
    ) -> Result<impl Iterator<Item = (RowId, u64)>, SpoolError> {
        let consumer = self.consumer(name)?;
        let first = consumer.cursor.max(after).saturating_add(1);
        Ok(self
            .rows
            .range(first..self.ids.durable().max(first))
            .filter(|(id, _)| !consumer.ahead.contains(*id))
            .map(|(id, row)| (*id, row.bytes)))
    }

    /// Puts a consumer into the map, as the file has it; one that is `dirty` is written again by the first commit.
    pub(super) fn load_consumer(
        &mut self,
        name: &str,
        cursor: RowId,
        ahead: Vec<RowId>,
        dirty: bool,
    ) {
        let ahead: BTreeSet<_> = ahead
            .into_iter()
            .filter(|id| *id > cursor && self.rows.contains_key(id))
            .collect();
        let after = self.rows.range(cursor + 1..).count();
        let consumer = Consumer {
            cursor,
            pending: (after - ahead.len()) as u64,
            ahead,
            dirty,
        };
        self.consumers.insert(name.to_owned(), consumer);
    }

    /// Adds the places of consumers that moved.
    pub(super) fn note_places(&mut self, changes: &mut Vec<Change>) {
        for (name, consumer) in &mut self.consumers {
            if std::mem::take(&mut consumer.dirty) {
                let ahead = consumer.ahead.iter().copied().collect();
                changes.push(Change::Consumer(name.clone(), consumer.cursor, ahead));
            }
        }
    }
}

fn forget(known: &mut HashMap<DedupHash, RowId>, gone: Remembered, changes: &mut Vec<Change>) {
    known.remove(&gone.hash);
    changes.push(Change::Forget(gone.id));
}

pub(super) fn check_name(name: &str) -> Result<(), SpoolError> {
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !printable {
        return Err(SpoolError::InvalidName);
    }
    Ok(())
}
