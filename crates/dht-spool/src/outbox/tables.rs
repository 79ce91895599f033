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
    entry::{Content, Entry, EntryId, SendOptions, SendState, StateKind},
    progress::Progress,
    state::{Change, OutboxState, Slot},
};
use crate::{
    config::{OutboxConfig, WriterConfig},
    error::SpoolError,
    file::contain,
    journal::{INFO, State},
    metrics,
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
const NEXT_ID: &str = "next_id";

impl State for OutboxState {
    type Change = Change;
    type Config = OutboxConfig;
    const NAME: &'static str = "outbox";
    const KIND: u64 = 2;

    fn writer(config: &OutboxConfig) -> &WriterConfig {
        &config.writer
    }

    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError> {
        transaction.open_table(ENTRIES)?;
        transaction.open_table(PROGRESS)?;
        transaction.open_table(TEXTS)?;
        transaction.open_table(PAYLOADS)?;
        transaction.open_table(FRAMES)?;
        Ok(())
    }

    fn load(config: &OutboxConfig, file: &ReadTransaction) -> Result<Self, SpoolError> {
        let mut state = Self::new(config);
        let progress = file.open_table(PROGRESS)?;
        for entry in file.open_table(ENTRIES)?.iter()? {
            let (id, head) = entry?;
            let id = id.value();
            let (.., payload_bytes, _, digest, key) = head.value();
            let steps = progress.get(id)?.ok_or(SpoolError::Damaged)?;
            let (progress, frame_bytes) = decode(steps.value())?;
            let slot = Slot {
                progress,
                expires_at: expires_at(&head.value()),
                payload_bytes,
                frame_bytes,
                key: key.map(Into::into),
            };
            state.add(id, slot, *digest);
            state.next = state.next.max(id + 1);
        }
        if let Some(next) = file.open_table(INFO)?.get(NEXT_ID)? {
            state.next = state.next.max(next.value());
        }
        state.durable_next = state.next;
        Ok(state)
    }

    fn finish(&mut self, changes: &mut Vec<Change>) {
        self.note_next(changes);
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
                Change::NextId(next) => {
                    transaction.open_table(INFO)?.insert(NEXT_ID, next)?;
                }
            }
        }
        Ok(())
    }

    fn carry(&mut self, before: &Self) {
        self.tally = before.tally;
        self.reported = before.reported;
        self.commits = before.commits;
    }

    fn committed(&mut self) -> u64 {
        self.durable_next = self.next;
        let (now, before) = (self.tally, self.reported);
        metrics::removed(Self::NAME, "ended", now.removed - before.removed);
        metrics::removed(Self::NAME, "expired", now.expired - before.expired);
        metrics::held(Self::NAME, self.active(), self.bytes);
        self.reported = now;
        self.commits += 1;
        self.commits
    }

    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError> {
        let mut entries = into.open_table(ENTRIES)?;
        let mut progress = into.open_table(PROGRESS)?;
        let mut payloads = into.open_table(PAYLOADS)?;
        let mut count = 0;
        let _ = contain(|| {
            if let Some(next) = damaged.open_table(INFO)?.get(NEXT_ID)? {
                into.open_table(INFO)?.insert(NEXT_ID, next.value())?;
            }
            Ok(())
        });
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
                    let payload = payload.map(|payload| check(&head.value(), payload.value()));
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

/// Reads an entry without its content; `None` if there is none.
pub(super) fn read(file: &ReadTransaction, id: EntryId) -> Result<Option<Entry>, SpoolError> {
    let Some(head) = file.open_table(ENTRIES)?.get(id)? else {
        return Ok(None);
    };
    let Some(steps) = file.open_table(PROGRESS)?.get(id)? else {
        return Ok(None);
    };
    let text = file.open_table(TEXTS)?.get(id)?;
    let text = text.map(|text| text.value().to_owned());
    let (steps, _) = decode(steps.value())?;
    let head = head.value();
    let (recipient, message_type, created_at, .., payload_bytes, _, _, key) = head;
    let state = match steps.kind {
        StateKind::Queued => SendState::Queued,
        StateKind::Sent => SendState::Sent,
        StateKind::Stored => SendState::Stored {
            holders: steps.holders,
        },
        StateKind::Failed => SendState::Failed {
            reason: text.clone().unwrap_or_default(),
        },
        StateKind::Expired => SendState::Expired,
        StateKind::Received => SendState::Received,
    };
    Ok(Some(Entry {
        id,
        key: key.map(ToOwned::to_owned),
        recipient: PublicKey::from_bytes(recipient).map_err(|_| SpoolError::Damaged)?,
        message_type,
        payload_bytes,
        options: options(&head),
        created_at: UnixSeconds(created_at),
        expires_at: expires_at(&head),
        state,
        attempts: steps.attempts,
        next_attempt: steps.next_attempt,
        last_error: text,
        ended_at: steps.ended_at,
    }))
}

/// A content that was read: `Err` if it is damaged.
pub(super) type ReadContent = Result<Content, SpoolError>;

/// Reads the content of an entry; `None` if it has ended or there is none.
pub(super) fn content(
    file: &ReadTransaction,
    id: EntryId,
) -> Result<Option<ReadContent>, SpoolError> {
    let Some(head) = file.open_table(ENTRIES)?.get(id)? else {
        return Ok(None);
    };
    let Some(payload) = file.open_table(PAYLOADS)?.get(id)? else {
        return Ok(None);
    };
    let frame = file.open_table(FRAMES)?.get(id)?;
    let frame = frame.and_then(|frame| {
        // A damaged frame is sealed anew.
        let (crc, frame) = frame.value();
        (crc32fast::hash(frame) == crc).then(|| Bytes::copy_from_slice(frame))
    });
    let payload = check(&head.value(), payload.value());
    Ok(Some(payload.map(|payload| Content { payload, frame })))
}

/// Copies the payload if it is what was put.
fn check(head: &<Head as redb::Value>::SelfType<'_>, payload: &[u8]) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc, _, _) = head;
    if payload.len() as u64 == *bytes && crc32fast::hash(payload) == *crc {
        Ok(Bytes::copy_from_slice(payload))
    } else {
        Err(SpoolError::Damaged)
    }
}

fn options(head: &<Head as redb::Value>::SelfType<'_>) -> SendOptions {
    let (_, _, _, ttl_seconds, direct_only, replicas, ..) = *head;
    SendOptions {
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
