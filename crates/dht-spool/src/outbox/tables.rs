//! The file of an outbox, format 2.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `info` | name | number: `kind` 2, `format` 2, `next_id` |
//! | `entries` | id | recipient, type, created-at, time to live, direct only, replicas, payload length with the seal, CRC-32 of the payload, digest, idempotency key |
//! | `progress` | id | state (0 queued, 1 sent, 2 stored, 3 failed, 4 expired, 5 received), holders, attempts, next attempt, ended-at, frame length with the seal |
//! | `texts` | id | what went wrong last |
//! | `payloads` | id | payload, until it is sealed or the entry ends |
//! | `frames` | id | CRC-32 of the frame, sealed frame, until the entry ends |
//!
//! Format 1 has no seals (see `disk/seal.rs`); its rows stay as they are until they are written again. Its first files keep the
//! payload beside the frame.
//!
//! Of a damaged file an entry is kept if its head is what was written. One whose progress is not what was written is queued again:
//! a message is sent again rather than never. One that has not ended and has neither its frame nor its payload fails when it is
//! due. Texts are left behind. Where tables cannot be found, the file is searched for entries with their frames (`disk/scan.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use bytes::Bytes;
use dht_core::{PublicKey, UnixSeconds};
use dht_datafile::DataFile;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, Value, WriteTransaction};

use super::{
    entry::{Entry, EntryContent, EntryId, EntryOptions, StateKind},
    progress::EntryProgress,
    rows::OutboxRows,
    state::{Change, OutboxState, Slot},
};
use crate::{
    disk::{DamagedTable, Sealed, Tables, check, check_row, is_sealed, leaves, length, seal_row},
    error::{SpoolError, contain},
};

pub(super) type Head = (
    &'static [u8; PublicKey::LENGTH],
    i32,
    u64,
    u64,
    bool,
    Option<u8>,
    u64,
    u32,
    &'static [u8; 32],
    Option<&'static str>,
);
type Steps = (u8, u32, u32, Option<u64>, Option<u64>, u64);

/// Where the field with the seal lies in an encoded head, and in encoded steps.
const HEAD_SEAL: usize = PublicKey::LENGTH + 4 + 8 + 8 + 1 + 2;
const STEPS_SEAL: usize = 1 + 4 + 4 + 9 + 9;

impl Sealed for Head {
    fn field<'a>(row: &'a mut Self::SelfType<'_>) -> &'a mut u64 {
        &mut row.6
    }
}

impl Sealed for Steps {
    fn field<'a>(row: &'a mut Self::SelfType<'_>) -> &'a mut u64 {
        &mut row.5
    }
}

pub(super) const ENTRIES: TableDefinition<'_, EntryId, Head> = TableDefinition::new("entries");
const PROGRESS: TableDefinition<'_, EntryId, Steps> = TableDefinition::new("progress");
const TEXTS: TableDefinition<'_, EntryId, &str> = TableDefinition::new("texts");
const PAYLOADS: TableDefinition<'_, EntryId, &[u8]> = TableDefinition::new("payloads");
const FRAMES: TableDefinition<'_, EntryId, (u32, &[u8])> = TableDefinition::new("frames");

impl Tables for OutboxState {
    const KIND: u64 = 2;

    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError> {
        transaction.open_table(ENTRIES)?;
        transaction.open_table(PROGRESS)?;
        transaction.open_table(TEXTS)?;
        transaction.open_table(PAYLOADS)?;
        transaction.open_table(FRAMES)?;
        Ok(())
    }

    fn load(&mut self, file: &ReadTransaction) -> Result<(), SpoolError> {
        let progress = file.open_table(PROGRESS)?;
        for entry in file.open_table(ENTRIES)?.iter()? {
            let (id, head) = entry?;
            let id = id.value();
            let head = check_row::<Head>(id, head.value())?;
            let (.., payload_bytes, _, digest, key) = head;
            let steps = progress.get(id)?.ok_or(SpoolError::Damaged)?;
            let (progress, frame_bytes) = decode(id, steps.value())?;
            let slot = Slot {
                recipient: *head.0,
                progress,
                expires_at: expires_at(&head),
                payload_bytes,
                frame_bytes,
                key: key.map(Into::into),
            };
            self.add(id, slot, *digest);
            self.ids.used(id);
        }
        Ok(())
    }

    fn write(transaction: &WriteTransaction, changes: Vec<Change>) -> Result<(), SpoolError> {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut progress = transaction.open_table(PROGRESS)?;
        let mut texts = transaction.open_table(TEXTS)?;
        let mut payloads = transaction.open_table(PAYLOADS)?;
        let mut frames = transaction.open_table(FRAMES)?;
        for change in changes {
            match change {
                Change::Insert(id, entry, digest) => {
                    let mut head = (
                        entry.recipient.as_bytes(),
                        entry.message_type,
                        entry.created_at.0,
                        entry.options.ttl_seconds,
                        entry.options.direct_only,
                        entry.options.replicas,
                        entry.payload.len() as u64,
                        crc32fast::hash(&entry.payload),
                        &digest,
                        entry.key.as_deref(),
                    );
                    seal_row::<Head>(id, &mut head);
                    entries.insert(id, head)?;
                    match EntryContent::of(&entry) {
                        EntryContent::Payload(payload) => {
                            payloads.insert(id, payload.as_ref())?;
                        }
                        EntryContent::Frame(frame) => {
                            frames.insert(id, (crc32fast::hash(&frame), frame.as_ref()))?;
                        }
                    }
                }
                Change::Progress(id, steps, frame_bytes) => {
                    progress.insert(id, encode(id, &steps, frame_bytes))?;
                }
                Change::Text(id, text) => {
                    texts.insert(id, text.as_str())?;
                }
                Change::Frame(id, frame) => {
                    payloads.remove(id)?;
                    frames.insert(id, (crc32fast::hash(&frame), frame.as_ref()))?;
                }
                Change::RemoveContent(id) => {
                    payloads.remove(id)?;
                    frames.remove(id)?;
                }
                Change::Remove(id) => {
                    entries.remove(id)?;
                    progress.remove(id)?;
                    texts.remove(id)?;
                }
            }
        }
        Ok(())
    }

    fn read(file: &ReadTransaction) -> &Self::Rows {
        file
    }

    fn salvage(
        damaged: Option<&ReadTransaction>,
        file: &DataFile,
        into: &WriteTransaction,
    ) -> Result<u64, SpoolError> {
        let mut ids = BTreeSet::new();
        let mut kept = Kept::open(into)?;
        let is_whole = match damaged {
            Some(damaged) => kept.copy_tables(damaged, &mut ids)?,
            None => false,
        };
        if !is_whole {
            kept.scan(&mut file.open_bytes()?, &ids)?;
        }
        Ok(kept.count)
    }
}

/// The tables of a new file, and how many entries of a damaged one they have.
struct Kept<'t> {
    entries: Table<'t, EntryId, Head>,
    progress: Table<'t, EntryId, Steps>,
    payloads: Table<'t, EntryId, &'static [u8]>,
    frames: Table<'t, EntryId, (u32, &'static [u8])>,
    count: u64,
}

impl<'t> Kept<'t> {
    fn open(into: &'t WriteTransaction) -> Result<Self, SpoolError> {
        Ok(Self {
            entries: into.open_table(ENTRIES)?,
            progress: into.open_table(PROGRESS)?,
            payloads: into.open_table(PAYLOADS)?,
            frames: into.open_table(FRAMES)?,
            count: 0,
        })
    }

    /// Copies what can be read of the tables. Adds the ids of what was copied, and answers whether every entry could be reached.
    fn copy_tables(
        &mut self,
        damaged: &ReadTransaction,
        copied: &mut BTreeSet<EntryId>,
    ) -> Result<bool, SpoolError> {
        let from_entries = DamagedTable::open(damaged, ENTRIES);
        let from_progress = DamagedTable::open(damaged, PROGRESS);
        let from_payloads = DamagedTable::open(damaged, PAYLOADS);
        let from_frames = DamagedTable::open(damaged, FRAMES);
        let mut ids = BTreeSet::new();
        let is_whole = from_entries.reach(&mut ids);
        from_progress.reach(&mut ids);
        from_payloads.reach(&mut ids);
        from_frames.reach(&mut ids);
        for id in ids {
            let Ok(head) = from_entries.get_whole(id) else {
                continue;
            };
            let head = Head::from_bytes(&head);
            let steps = from_progress.get(id, |steps| Ok(decode(id, steps)?.0));
            let content = from_frames
                .get(id, |frame| Ok(EntryContent::Frame(intact_frame(frame)?)))
                .or_else(|_| {
                    let payload = from_payloads.get(id, |payload| intact(&head, payload));
                    payload.map(EntryContent::Payload)
                });
            self.keep(id, head, steps.ok(), content.ok())?;
            copied.insert(id);
        }
        Ok(is_whole)
    }

    /// Keeps entries whose frame lies anywhere in the file. Payloads are left behind, of which others may have chosen the bytes; the
    /// frames of this version are encrypted.
    fn scan(&mut self, pages: &mut fs::File, copied: &BTreeSet<EntryId>) -> Result<(), SpoolError> {
        let mut heads: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        leaves(pages, None, |id, head| {
            if !copied.contains(&id) && is_sealed(id, head, HEAD_SEAL) {
                heads.insert(id, head.to_vec());
            }
            Ok(())
        })?;
        let mut progress: BTreeMap<_, EntryProgress> = BTreeMap::new();
        leaves(pages, Steps::fixed_width(), |id, steps| {
            if heads.contains_key(&id)
                && is_sealed(id, steps, STEPS_SEAL)
                && let Ok((steps, _)) = contain(|| decode(id, Steps::from_bytes(steps)))
            {
                // The knowledge of a message only grows.
                let newest = progress.entry(id).or_insert(steps);
                if (newest.kind, newest.attempts) < (steps.kind, steps.attempts) {
                    *newest = steps;
                }
            }
            Ok(())
        })?;
        leaves(pages, None, |id, frame| {
            let Some((crc, bytes)) = frame.split_first_chunk() else {
                return Ok(());
            };
            let frame = intact_frame((u32::from_le_bytes(*crc), bytes));
            if let Ok(frame) = frame
                && let Some(head) = heads.remove(&id)
            {
                let steps = progress.get(&id).copied();
                // The frame of one that has ended was not yet written over.
                let ended = steps.is_some_and(|steps| steps.ended_at.is_some());
                let content = (!ended).then_some(EntryContent::Frame(frame));
                self.keep(id, Head::from_bytes(&head), steps, content)?;
            }
            Ok(())
        })?;
        for (id, head) in heads {
            // It has ended, or fails when it is due.
            if let Some(steps) = progress.get(&id) {
                self.keep(id, Head::from_bytes(&head), Some(*steps), None)?;
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        id: EntryId,
        head: <Head as Value>::SelfType<'_>,
        steps: Option<EntryProgress>,
        content: Option<EntryContent>,
    ) -> Result<(), SpoolError> {
        let steps = match steps {
            Some(steps) if steps.ended_at.is_none() || content.is_none() => steps,
            _ => EntryProgress::queued(UnixSeconds(head.2)),
        };
        self.entries.insert(id, head)?;
        let mut frame_bytes = 0;
        match content {
            Some(EntryContent::Frame(frame)) => {
                frame_bytes = frame.len() as u64;
                let frame = (crc32fast::hash(&frame), frame.as_ref());
                self.frames.insert(id, frame)?;
            }
            Some(EntryContent::Payload(payload)) => {
                self.payloads.insert(id, payload.as_ref())?;
            }
            // It has ended, or fails when it is due.
            None => {}
        }
        self.progress.insert(id, encode(id, &steps, frame_bytes))?;
        self.count += 1;
        Ok(())
    }
}

impl OutboxRows for ReadTransaction {
    fn entry(&self, id: EntryId) -> Result<Option<Entry>, SpoolError> {
        let Some(head) = self.open_table(ENTRIES)?.get(id)? else {
            return Ok(None);
        };
        let Some(steps) = self.open_table(PROGRESS)?.get(id)? else {
            return Ok(None);
        };
        let text = self.open_table(TEXTS)?.get(id)?;
        let text = text.map(|text| text.value().to_owned());
        let (steps, _) = decode(id, steps.value())?;
        let head = check_row::<Head>(id, head.value())?;
        let (recipient, message_type, created_at, .., payload_bytes, _, _, key) = head;
        Ok(Some(Entry {
            id,
            key: key.map(ToOwned::to_owned),
            recipient: PublicKey::from_bytes(recipient).map_err(|_| SpoolError::Damaged)?,
            message_type,
            payload_bytes,
            options: options(&head),
            created_at: UnixSeconds(created_at),
            expires_at: expires_at(&head),
            state: steps.state(text.as_deref()),
            attempts: steps.attempts,
            next_attempt: steps.next_attempt,
            last_error: text,
            ended_at: steps.ended_at,
        }))
    }

    fn content(&self, id: EntryId) -> Result<Option<Result<EntryContent, SpoolError>>, SpoolError> {
        let frame = self.open_table(FRAMES)?.get(id)?;
        let frame = frame.map(|frame| intact_frame(frame.value()));
        if let Some(Ok(frame)) = frame {
            return Ok(Some(Ok(EntryContent::Frame(frame))));
        }
        let payload = self.payload(id)?;
        let payload = payload.map(|payload| payload.map(EntryContent::Payload));
        Ok(payload.or_else(|| frame.is_some().then_some(Err(SpoolError::Damaged))))
    }

    fn payload(&self, id: EntryId) -> Result<Option<Result<Bytes, SpoolError>>, SpoolError> {
        let Some(head) = self.open_table(ENTRIES)?.get(id)? else {
            return Ok(None);
        };
        let payload = self.open_table(PAYLOADS)?.get(id)?;
        Ok(payload.map(|payload| {
            let head = check_row::<Head>(id, head.value())?;
            intact(&head, payload.value())
        }))
    }
}

/// Copies the frame if it is what was sealed.
fn intact_frame((crc, frame): (u32, &[u8])) -> Result<Bytes, SpoolError> {
    check(frame, frame.len() as u64, crc)
}

/// Copies the payload if it is what was put.
fn intact(head: &<Head as Value>::SelfType<'_>, payload: &[u8]) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc, _, _) = head;
    check(payload, length(*bytes), *crc)
}

fn options(head: &<Head as Value>::SelfType<'_>) -> EntryOptions {
    let (_, _, _, ttl_seconds, direct_only, replicas, ..) = *head;
    EntryOptions {
        ttl_seconds,
        direct_only,
        replicas,
    }
}

fn expires_at(head: &<Head as Value>::SelfType<'_>) -> UnixSeconds {
    options(head).expires_at(UnixSeconds(head.2))
}

fn encode(id: EntryId, progress: &EntryProgress, frame_bytes: u64) -> Steps {
    let kind = match progress.kind {
        StateKind::Queued => 0,
        StateKind::Sent => 1,
        StateKind::Stored => 2,
        StateKind::Failed => 3,
        StateKind::Expired => 4,
        StateKind::Received => 5,
    };
    let mut steps = (
        kind,
        progress.holders,
        progress.attempts,
        progress.next_attempt.map(|at| at.0),
        progress.ended_at.map(|at| at.0),
        frame_bytes,
    );
    seal_row::<Steps>(id, &mut steps);
    steps
}

fn decode(id: EntryId, steps: Steps) -> Result<(EntryProgress, u64), SpoolError> {
    let (kind, holders, attempts, next_attempt, ended_at, frame_bytes) =
        check_row::<Steps>(id, steps)?;
    let kind = match kind {
        0 => StateKind::Queued,
        1 => StateKind::Sent,
        2 => StateKind::Stored,
        3 => StateKind::Failed,
        4 => StateKind::Expired,
        5 => StateKind::Received,
        _ => return Err(SpoolError::Damaged),
    };
    let progress = EntryProgress {
        kind,
        holders,
        attempts,
        next_attempt: next_attempt.map(UnixSeconds),
        ended_at: ended_at.map(UnixSeconds),
    };
    Ok((progress, frame_bytes))
}
