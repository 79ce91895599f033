//! The file of an outbox, format 1.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `info` | name | number: `kind` 2, `format` 1, `next_id` |
//! | `entries` | id | recipient, type, created-at, time to live, direct only, replicas, payload length, CRC-32 of the payload, digest, idempotency key |
//! | `progress` | id | state (0 queued, 1 sent, 2 stored, 3 failed, 4 expired, 5 received), holders, attempts, next attempt, ended-at, frame length |
//! | `texts` | id | what went wrong last |
//! | `payloads` | id | payload, until the entry ends |
//! | `frames` | id | CRC-32 of the frame, sealed frame, until the entry ends |

use bytes::Bytes;
use dht_core::{PublicKey, UnixSeconds};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

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
                    payloads.insert(id, entry.payload.as_ref())?;
                    if let Some(frame) = &entry.frame {
                        frames.insert(id, (crc32fast::hash(frame), frame.as_ref()))?;
                    }
                }
                Change::Progress(id, steps, frame_bytes) => {
                    progress.insert(id, encode(&steps, frame_bytes))?;
                }
                Change::Text(id, text) => {
                    texts.insert(id, text.as_str())?;
                }
                Change::Frame(id, frame) => {
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
        let mut count = 0;
        let _ = contain(|| {
            let steps = damaged.open_table(PROGRESS)?;
            let contents = damaged.open_table(PAYLOADS)?;
            for entry in damaged.open_table(ENTRIES)?.iter()? {
                let (id, head) = entry?;
                let id = id.value();
                // The frame is left behind: a new one is sealed.
                let kept = contain(|| {
                    let steps = steps.get(id)?.ok_or(SpoolError::Damaged)?;
                    let (steps, _) = decode(steps.value())?;
                    let payload = contents.get(id)?;
                    let payload = payload.map(|payload| intact(&head.value(), payload.value()));
                    match payload.transpose()? {
                        None if steps.ended_at.is_none() => Err(SpoolError::Damaged),
                        payload => Ok((steps, payload)),
                    }
                });
                if let Ok((steps, payload)) = kept {
                    entries.insert(id, head.value())?;
                    progress.insert(id, encode(&steps, 0))?;
                    if let Some(payload) = payload {
                        payloads.insert(id, payload.as_ref())?;
                    }
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
        let Some(payload) = self.open_table(PAYLOADS)?.get(id)? else {
            return Ok(None);
        };
        let frame = self.open_table(FRAMES)?.get(id)?;
        let frame = frame.and_then(|frame| {
            // A damaged frame is sealed anew.
            let (crc, frame) = frame.value();
            check(frame, frame.len() as u64, crc).ok()
        });
        let payload = intact(&head.value(), payload.value());
        Ok(Some(payload.map(|payload| EntryContent { payload, frame })))
    }
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
