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
//! due. Texts are left behind.

use std::collections::BTreeSet;

use bytes::Bytes;
use dht_core::{PublicKey, UnixSeconds};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, Value,
    WriteTransaction,
};

use super::{
    entry::{Entry, EntryContent, EntryId, EntryOptions, StateKind},
    progress::EntryProgress,
    rows::OutboxRows,
    state::{Change, OutboxState, Slot},
};
use crate::{
    disk::{Tables, check, is_whole, length, reach, seal},
    error::SpoolError,
    journal::contain,
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
            check_head(id, &head.value())?;
            let (.., payload_bytes, _, digest, key) = head.value();
            let steps = progress.get(id)?.ok_or(SpoolError::Damaged)?;
            let (progress, frame_bytes) = decode(id, steps.value())?;
            let slot = Slot {
                recipient: *head.value().0,
                progress,
                expires_at: expires_at(&head.value()),
                payload_bytes: length(payload_bytes),
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
                    head.6 = seal::<Head>(id, head.6, &head);
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

    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError> {
        let from_entries = contain(|| Ok(damaged.open_table(ENTRIES)?));
        let from_progress = contain(|| Ok(damaged.open_table(PROGRESS)?));
        let from_payloads = contain(|| Ok(damaged.open_table(PAYLOADS)?));
        let from_frames = contain(|| Ok(damaged.open_table(FRAMES)?));
        let mut ids = BTreeSet::new();
        if let Ok(table) = &from_entries {
            reach(table, &mut ids);
        }
        if let Ok(table) = &from_progress {
            reach(table, &mut ids);
        }
        if let Ok(table) = &from_payloads {
            reach(table, &mut ids);
        }
        let mut entries = into.open_table(ENTRIES)?;
        let mut progress = into.open_table(PROGRESS)?;
        let mut payloads = into.open_table(PAYLOADS)?;
        let mut frames = into.open_table(FRAMES)?;
        let mut count = 0;
        for id in ids {
            let head = contain(|| {
                let from = from_entries.as_ref().map_err(Clone::clone)?;
                let head = from.get(id)?.ok_or(SpoolError::Damaged)?;
                check_head(id, &head.value())?;
                Ok(Head::as_bytes(&head.value()))
            });
            let Ok(head) = head else { continue };
            let head = Head::from_bytes(&head);
            let steps = contain(|| {
                let from = from_progress.as_ref().map_err(Clone::clone)?;
                let steps = from.get(id)?.ok_or(SpoolError::Damaged)?;
                Ok(decode(id, steps.value())?.0)
            });
            let (sealed, unsealed) = (from_frames.as_ref().ok(), from_payloads.as_ref().ok());
            let content = contain(|| salvaged(id, &head, sealed, unsealed));
            let steps = match (steps, &content) {
                (Ok(steps), content) if steps.ended_at.is_none() || content.is_err() => steps,
                _ => EntryProgress::queued(UnixSeconds(head.2)),
            };
            entries.insert(id, head)?;
            let mut frame_bytes = 0;
            match content {
                Ok(EntryContent::Frame(frame)) => {
                    frame_bytes = frame.len() as u64;
                    frames.insert(id, (crc32fast::hash(&frame), frame.as_ref()))?;
                }
                Ok(EntryContent::Payload(payload)) => {
                    payloads.insert(id, payload.as_ref())?;
                }
                // It has ended, or fails when it is due.
                Err(_) => {}
            }
            progress.insert(id, encode(id, &steps, frame_bytes))?;
            count += 1;
        }
        Ok(count)
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
        let head = head.value();
        check_head(id, &head)?;
        let (recipient, message_type, created_at, .., payload_bytes, _, _, key) = head;
        Ok(Some(Entry {
            id,
            key: key.map(ToOwned::to_owned),
            recipient: PublicKey::from_bytes(recipient).map_err(|_| SpoolError::Damaged)?,
            message_type,
            payload_bytes: length(payload_bytes),
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
        let Some(head) = self.open_table(ENTRIES)?.get(id)? else {
            return Ok(None);
        };
        let frame = self.open_table(FRAMES)?.get(id)?;
        let is_sealed = frame.is_some();
        if let Some(frame) = frame.and_then(intact_frame) {
            return Ok(Some(Ok(EntryContent::Frame(frame))));
        }
        Ok(match self.open_table(PAYLOADS)?.get(id)? {
            Some(payload) => {
                let payload = intact(&head.value(), payload.value());
                Some(payload.map(EntryContent::Payload))
            }
            None => is_sealed.then_some(Err(SpoolError::Damaged)),
        })
    }
}

/// Readable content of a message in a damaged file: the frame, or else the payload.
fn salvaged(
    id: EntryId,
    head: &<Head as Value>::SelfType<'_>,
    sealed: Option<&ReadOnlyTable<EntryId, (u32, &'static [u8])>>,
    unsealed: Option<&ReadOnlyTable<EntryId, &'static [u8]>>,
) -> Result<EntryContent, SpoolError> {
    let frame = contain(|| match sealed {
        Some(sealed) => Ok(sealed.get(id)?.and_then(intact_frame)),
        None => Ok(None),
    });
    if let Ok(Some(frame)) = frame {
        return Ok(EntryContent::Frame(frame));
    }
    let payload = unsealed.ok_or(SpoolError::Damaged)?.get(id)?;
    let payload = payload.ok_or(SpoolError::Damaged)?;
    Ok(EntryContent::Payload(intact(head, payload.value())?))
}

/// Copies the frame if it is what was sealed.
fn intact_frame(frame: AccessGuard<'_, (u32, &'static [u8])>) -> Option<Bytes> {
    let (crc, frame) = frame.value();
    check(frame, frame.len() as u64, crc).ok()
}

/// Copies the payload if it is what was put.
fn intact(head: &<Head as Value>::SelfType<'_>, payload: &[u8]) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc, _, _) = head;
    check(payload, length(*bytes), *crc)
}

fn check_head(id: EntryId, head: &<Head as Value>::SelfType<'_>) -> Result<(), SpoolError> {
    let mut bare = *head;
    bare.6 = length(head.6);
    if is_whole::<Head>(id, head.6, &bare) {
        Ok(())
    } else {
        Err(SpoolError::Damaged)
    }
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
    steps.5 = seal::<Steps>(id, frame_bytes, &steps);
    steps
}

fn decode(id: EntryId, mut steps: Steps) -> Result<(EntryProgress, u64), SpoolError> {
    let field = steps.5;
    steps.5 = length(field);
    if !is_whole::<Steps>(id, field, &steps) {
        return Err(SpoolError::Damaged);
    }
    let (kind, holders, attempts, next_attempt, ended_at, frame_bytes) = steps;
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
