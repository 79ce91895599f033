//! The file of an outbox, format 1.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `info` | name | number: `kind` 2, `format` 1, `next_id` |
//! | `entries` | id | recipient, type, created-at, time to live, direct only, replicas, payload length, CRC-32 of the payload, digest, idempotency key |
//! | `progress` | id | state (0 queued, 1 sent, 2 stored, 3 failed, 4 expired, 5 received), holders, attempts, next attempt, ended-at, frame length |
//! | `texts` | id | what went wrong last |
//! | `payloads` | id | payload, until it is sealed or the entry ends |
//! | `frames` | id | CRC-32 of the frame, sealed frame, until the entry ends |
//!
//! The first files of this format keep the payload beside the frame.

use bytes::Bytes;
use dht_core::{PublicKey, UnixSeconds};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction,
};

use super::{
    entry::{Entry, EntryContent, EntryId, EntryOptions, StateKind},
    progress::Progress,
    rows::OutboxRows,
    state::{Change, OutboxState, Slot},
};
use crate::{
    disk::{Tables, check},
    error::SpoolError,
    journal::contain,
};

type Head = (
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

const ENTRIES: TableDefinition<'_, EntryId, Head> = TableDefinition::new("entries");
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
            let (.., payload_bytes, _, digest, key) = head.value();
            let steps = progress.get(id)?.ok_or(SpoolError::Damaged)?;
            let (progress, frame_bytes) = decode(steps.value())?;
            let slot = Slot {
                recipient: *head.value().0,
                progress,
                expires_at: expires_at(&head.value()),
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
                    let head = (
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
                    progress.insert(id, encode(&steps, frame_bytes))?;
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
        let mut entries = into.open_table(ENTRIES)?;
        let mut progress = into.open_table(PROGRESS)?;
        let mut payloads = into.open_table(PAYLOADS)?;
        let mut frames = into.open_table(FRAMES)?;
        let mut count = 0;
        let _ = contain(|| {
            let steps = damaged.open_table(PROGRESS)?;
            let sealed = contain(|| Ok(damaged.open_table(FRAMES)?)).ok();
            let unsealed = contain(|| Ok(damaged.open_table(PAYLOADS)?)).ok();
            for entry in damaged.open_table(ENTRIES)?.iter()? {
                let (id, head) = entry?;
                let id = id.value();
                let kept = contain(|| {
                    let steps = steps.get(id)?.ok_or(SpoolError::Damaged)?;
                    let (steps, _) = decode(steps.value())?;
                    let content = match steps.ended_at {
                        Some(_) => None,
                        None => {
                            let (sealed, unsealed) = (sealed.as_ref(), unsealed.as_ref());
                            Some(salvaged(id, &head.value(), sealed, unsealed)?)
                        }
                    };
                    Ok((steps, content))
                });
                if let Ok((steps, content)) = kept {
                    entries.insert(id, head.value())?;
                    let mut frame_bytes = 0;
                    match content {
                        Some(EntryContent::Frame(frame)) => {
                            frame_bytes = frame.len() as u64;
                            frames.insert(id, (crc32fast::hash(&frame), frame.as_ref()))?;
                        }
                        Some(EntryContent::Payload(payload)) => {
                            payloads.insert(id, payload.as_ref())?;
                        }
                        None => {}
                    }
                    progress.insert(id, encode(&steps, frame_bytes))?;
                    count += 1;
                }
            }
            Ok(())
        });
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
        let (steps, _) = decode(steps.value())?;
        let head = head.value();
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

/// What can be read of a message in a damaged file: the frame, or else the payload.
fn salvaged(
    id: EntryId,
    head: &<Head as redb::Value>::SelfType<'_>,
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
fn intact(head: &<Head as redb::Value>::SelfType<'_>, payload: &[u8]) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc, _, _) = head;
    check(payload, *bytes, *crc)
}

fn options(head: &<Head as redb::Value>::SelfType<'_>) -> EntryOptions {
    let (_, _, _, ttl_seconds, direct_only, replicas, ..) = *head;
    EntryOptions {
        ttl_seconds,
        direct_only,
        replicas,
    }
}

fn expires_at(head: &<Head as redb::Value>::SelfType<'_>) -> UnixSeconds {
    options(head).expires_at(UnixSeconds(head.2))
}

fn encode(progress: &Progress, frame_bytes: u64) -> Steps {
    let kind = match progress.kind {
        StateKind::Queued => 0,
        StateKind::Sent => 1,
        StateKind::Stored => 2,
        StateKind::Failed => 3,
        StateKind::Expired => 4,
        StateKind::Received => 5,
    };
    (
        kind,
        progress.holders,
        progress.attempts,
        progress.next_attempt.map(|at| at.0),
        progress.ended_at.map(|at| at.0),
        frame_bytes,
    )
}

fn decode(steps: Steps) -> Result<(Progress, u64), SpoolError> {
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
    let progress = Progress {
        kind,
        holders,
        attempts,
        next_attempt: next_attempt.map(UnixSeconds),
        ended_at: ended_at.map(UnixSeconds),
    };
    Ok((progress, frame_bytes))
}
