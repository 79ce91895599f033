//! Which entries are held, which wait for an attempt, which have ended. Performs no I/O and reads no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use dht_core::UnixSeconds;

use super::{
    entry::{EntryId, NewEntry, OutboxExpiry, Put, StateKind},
    progress::{EntryProgress, Transition},
};
use crate::{
    config::{MAX_TEXT_BYTES, OutboxConfig},
    error::SpoolError,
    journal::Ids,
};

/// Entries one call of `expire` ends, and as many that it removes, so that it does not hold up others for long.
pub(crate) const EXPIRE_ROWS: usize = 10_000;

/// Hash of what an idempotency key stands for.
pub(crate) type Digest = [u8; 32];

/// An entry as it is kept in memory.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) recipient: [u8; 32],
    pub(crate) progress: EntryProgress,
    pub(crate) expires_at: UnixSeconds,
    pub(crate) payload_bytes: u64,
    pub(crate) frame_bytes: u64,
    pub(crate) key: Option<Arc<str>>,
}

/// Usage of one recipient by entries that have not ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    rows: u64,
    bytes: u64,
}

/// One change of the file.
#[derive(Debug)]
pub(crate) enum Change {
    Insert(EntryId, Box<NewEntry>, Digest),
    Progress(EntryId, EntryProgress, u64),
    Text(EntryId, String),
    Frame(EntryId, Bytes),
    RemoveContent(EntryId),
    Remove(EntryId),
}

/// Entries that left or ended, and puts that were refused, since the outbox was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) expired: u64,
    pub(crate) removed: u64,
    pub(crate) refused: u64,
}

/// Everything of an outbox but contents and texts.
#[derive(Debug, Default)]
pub(crate) struct OutboxState {
    pub(super) config: OutboxConfig,
    pub(super) slots: BTreeMap<EntryId, Slot>,
    pub(super) keys: HashMap<Arc<str>, (EntryId, Digest)>,
    /// Entries that wait for an attempt, by when it is due.
    pub(super) due: BTreeSet<(UnixSeconds, EntryId)>,
    /// Entries that have not ended, by the last second in which they are tried.
    pub(super) expiry: BTreeSet<(UnixSeconds, EntryId)>,
    /// Entries that have ended, by when.
    pub(super) ended: BTreeSet<(UnixSeconds, EntryId)>,
    /// Bytes of payloads and frames of entries that have not ended.
    pub(super) bytes: u64,
    /// The part of each recipient. Bounded by the entries.
    pub(super) recipients: HashMap<[u8; 32], Usage>,
    pub(super) ids: Ids,
    /// Commits so far.
    pub(super) commits: u64,
    /// Bytes of the put refused last as full; 0 if there was room since.
    pub(super) wanted: u64,
    pub(super) tally: Tally,
    /// The part of `tally` that metrics have.
    pub(super) reported: Tally,
}

impl OutboxState {
    pub(super) fn put(
        &mut self,
        entry: NewEntry,
        digest: Digest,
        is_absent: bool,
        changes: &mut Vec<Change>,
    ) -> Result<Put, SpoolError> {
        if let Some(key) = &entry.key
            && let Some((id, before)) = self.keys.get(key.as_str())
        {
            return if *before == digest {
                Ok(Put::Existing(*id))
            } else {
                Err(SpoolError::KeyReused)
            };
        }
        let payload_bytes = entry.payload.len() as u64;
        let frame_bytes = entry.frame.as_ref().map_or(0, Bytes::len) as u64;
        let wanted = payload_bytes + frame_bytes;
        if let Err(refused) = self.check_room(entry.recipient.as_bytes(), is_absent, 1, wanted) {
            self.tally.refused += 1;
            if refused == SpoolError::Full {
                self.wanted = wanted.max(1);
            }
            return Err(refused);
        }
        self.wanted = 0;
        let id = self.ids.take();
        let slot = Slot {
            recipient: *entry.recipient.as_bytes(),
            progress: EntryProgress::queued(entry.created_at),
            expires_at: entry.options.expires_at(entry.created_at),
            payload_bytes,
            frame_bytes,
            key: entry.key.as_deref().map(Arc::from),
        };
        let progress = slot.progress;
        self.add(id, slot, digest);
        changes.push(Change::Insert(id, Box::new(entry), digest));
        changes.push(Change::Progress(id, progress, frame_bytes));
        Ok(Put::New(id))
    }

    /// Puts an entry into the maps, as it is new or read from the file.
    pub(super) fn add(&mut self, id: EntryId, slot: Slot, digest: Digest) {
        if let Some(key) = &slot.key {
            self.keys.insert(Arc::clone(key), (id, digest));
        }
        self.index(id, &slot);
        self.slots.insert(id, slot);
    }

    /// Entries that have not ended.
    pub(super) fn active(&self) -> u64 {
        self.expiry.len() as u64
    }

    pub(super) fn is_full(&self) -> bool {
        self.wanted > 0 && !self.has_room(1, self.wanted)
    }

    fn has_room(&self, rows: u64, bytes: u64) -> bool {
        self.active().saturating_add(rows) <= self.config.max_rows
            && self.bytes.saturating_add(bytes) <= self.config.max_bytes
    }

    /// Whether a recipient may have so much more. In an outbox that is more than half full, none has more than a quarter,
    /// so that many messages for one leave room for others; one message of any size may be sent. Recipients that are absent
    /// have one message each in the last quarter, and none in the last eighth, so that many of them leave room for the others.
    fn check_room(
        &self,
        recipient: &[u8; 32],
        is_absent: bool,
        rows: u64,
        bytes: u64,
    ) -> Result<(), SpoolError> {
        let (max_rows, max_bytes) = (self.config.max_rows, self.config.max_bytes);
        let (all_rows, all_bytes) = (self.active() + rows, self.bytes + bytes);
        let is_past = |eighths: u64| {
            all_rows > max_rows - max_rows / 8 * eighths
                || all_bytes > max_bytes - max_bytes / 8 * eighths
        };
        if is_past(u64::from(is_absent)) {
            return Err(SpoolError::Full);
        }
        let own = self.recipients.get(recipient).copied().unwrap_or_default();
        let own = Usage {
            rows: own.rows.saturating_add(rows),
            bytes: own.bytes.saturating_add(bytes),
        };
        let is_over = |all: u64, own: u64, limit: u64| all > limit / 2 && own > limit / 4;
        let over_share =
            is_over(all_rows, own.rows, max_rows) || is_over(all_bytes, own.bytes, max_bytes);
        if own.rows > 1 && (over_share || is_absent && is_past(2)) {
            return Err(SpoolError::RecipientFull);
        }
        Ok(())
    }

    pub(super) fn update(
        &mut self,
        id: EntryId,
        transition: Transition,
        now: UnixSeconds,
        changes: &mut Vec<Change>,
    ) -> Result<StateKind, SpoolError> {
        let slot = self.slots.get(&id).ok_or(SpoolError::UnknownId)?;
        let after = slot.progress.after(&transition, now)?;
        if after == slot.progress {
            return Ok(after.kind);
        }
        let text = match transition {
            Transition::Retry { error, .. } => error,
            Transition::Failed { reason } => Some(reason),
            _ => None,
        };
        if let Some(text) = text {
            changes.push(Change::Text(id, shorten(text)));
        }
        self.set(id, after, changes);
        self.trim(changes);
        Ok(after.kind)
    }

    /// Keeps the sealed frame in place of the payload.
    pub(super) fn set_frame(
        &mut self,
        id: EntryId,
        frame: Bytes,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpoolError> {
        let slot = self.slots.get(&id).ok_or(SpoolError::UnknownId)?;
        if slot.progress.ended_at.is_some() {
            return Err(SpoolError::Ended);
        }
        let more = (frame.len() as u64).saturating_sub(slot.frame_bytes);
        self.check_room(&slot.recipient, false, 0, more)?;
        let Some(slot) = self.slots.get_mut(&id) else {
            return Err(SpoolError::UnknownId);
        };
        let before = std::mem::replace(&mut slot.frame_bytes, frame.len() as u64);
        let after = slot.frame_bytes;
        self.bytes = self.bytes - before + after;
        if let Some(usage) = self.recipients.get_mut(&slot.recipient) {
            usage.bytes = usage.bytes - before + after;
        }
        changes.push(Change::Progress(id, slot.progress, after));
        changes.push(Change::Frame(id, frame));
        Ok(())
    }

    /// Ends entries whose time to live is over, and removes those that ended long ago; `only_new`: of those put since the outbox
    /// was opened.
    pub(super) fn expire(
        &mut self,
        now: UnixSeconds,
        only_new: bool,
        changes: &mut Vec<Change>,
    ) -> OutboxExpiry {
        let ids = self.ids;
        let may_end = |id: &EntryId| !only_new || ids.is_new(*id);
        let mut expiry = OutboxExpiry::default();
        let over = self.expiry.iter().take_while(|(last, _)| *last < now);
        let over = over.map(|(_, id)| *id).filter(may_end);
        let over: Vec<_> = over.take(EXPIRE_ROWS).collect();
        for id in over {
            if let Some(slot) = self.slots.get(&id) {
                let after = slot.progress.expired(now);
                self.set(id, after, changes);
                if after.kind == StateKind::Expired {
                    expiry.expired += 1;
                } else {
                    expiry.stored += 1;
                }
            }
        }
        self.tally.expired += expiry.expired;
        let keep = self.config.ended_seconds;
        let old = self.ended.iter();
        let old = old.take_while(|(ended, _)| ended.saturating_add(keep) < now);
        let old = old.map(|(_, id)| *id).filter(may_end);
        let old: Vec<_> = old.take(EXPIRE_ROWS).collect();
        for id in &old {
            self.remove(*id, changes);
        }
        expiry.removed = old.len() as u64 + self.trim(changes);
        expiry
    }

    /// Removes entries that have ended beyond those that are kept.
    fn trim(&mut self, changes: &mut Vec<Change>) -> u64 {
        let mut removed = 0;
        while self.ended.len() > self.config.ended_rows
            && let Some((_, id)) = self.ended.first().copied()
        {
            self.remove(id, changes);
            removed += 1;
        }
        removed
    }

    fn set(&mut self, id: EntryId, progress: EntryProgress, changes: &mut Vec<Change>) {
        let Some(mut slot) = self.slots.remove(&id) else {
            return;
        };
        self.unindex(id, &slot);
        if progress.ended_at.is_some() && slot.progress.ended_at.is_none() {
            slot.frame_bytes = 0;
            changes.push(Change::RemoveContent(id));
        }
        slot.progress = progress;
        changes.push(Change::Progress(id, progress, slot.frame_bytes));
        self.index(id, &slot);
        self.slots.insert(id, slot);
    }

    fn remove(&mut self, id: EntryId, changes: &mut Vec<Change>) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.unindex(id, &slot);
        if let Some(key) = &slot.key {
            self.keys.remove(key);
        }
        self.tally.removed += 1;
        changes.push(Change::Remove(id));
    }

    fn index(&mut self, id: EntryId, slot: &Slot) {
        if let Some(at) = slot.progress.next_attempt {
            self.due.insert((at, id));
        }
        match slot.progress.ended_at {
            Some(at) => {
                self.ended.insert((at, id));
            }
            None => {
                self.expiry.insert((slot.expires_at, id));
                let bytes = slot.payload_bytes + slot.frame_bytes;
                self.bytes += bytes;
                let usage = self.recipients.entry(slot.recipient).or_default();
                usage.rows += 1;
                usage.bytes += bytes;
            }
        }
    }

    fn unindex(&mut self, id: EntryId, slot: &Slot) {
        if let Some(at) = slot.progress.next_attempt {
            self.due.remove(&(at, id));
        }
        match slot.progress.ended_at {
            Some(at) => {
                self.ended.remove(&(at, id));
            }
            None => {
                self.expiry.remove(&(slot.expires_at, id));
                let bytes = slot.payload_bytes + slot.frame_bytes;
                self.bytes -= bytes;
                if let Some(usage) = self.recipients.get_mut(&slot.recipient) {
                    usage.rows -= 1;
                    usage.bytes -= bytes;
                    if usage.rows == 0 {
                        self.recipients.remove(&slot.recipient);
                    }
                }
            }
        }
    }
}

/// Cuts a text to what is kept, between characters.
fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}
