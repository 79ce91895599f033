//! Messages to store, and who inserts them.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_mailbox::{
    Durability, Limits, NewRecord, Quota, Recipient, Refusal, Retention, Store, StoreConfig,
    StoreError, Ticket,
};

use crate::sample::now;

pub(super) const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// As a stock header, and a body padded to the first size class with its authentication tag.
const HEADER: usize = 190;
const BODY: usize = 6_016;
/// Bytes of header and body.
pub(super) const RECORD_BYTES: u64 = (HEADER + BODY) as u64;
/// Mailboxes; 50 messages each in a full store.
const MAILBOXES: u64 = 2_000;
/// Insertions that wait at a time.
const WAITING: usize = 1_024;

/// A source of messages, each different.
#[derive(Clone, Debug)]
pub(super) struct Load {
    next: Arc<AtomicU64>,
    header: Bytes,
    body: Bytes,
}

pub(super) fn config(durability: Durability) -> StoreConfig {
    let room = Quota {
        rows: 1_000_000,
        bytes: 1 << 40,
    };
    StoreConfig {
        durability,
        limits: Limits {
            capacity: room,
            per_recipient: room,
            per_deliverer: room,
            ..Limits::default()
        },
        // A million rows take some 260 MB.
        index_bytes: 512 << 20,
        ..StoreConfig::default()
    }
}

pub(super) fn mailbox(number: u64) -> Recipient {
    // Keys are spread evenly, as real ones are.
    let spread = (number % MAILBOXES + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [9; 32];
    put(&mut key, spread);
    Recipient::from_bytes(key)
}

/// Bytes of all files in a directory.
pub(super) fn on_disk(path: &Path) -> f64 {
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    sizes.sum::<u64>() as f64
}

impl Load {
    pub(super) fn new() -> Self {
        Self {
            next: Arc::default(),
            header: vec![7; HEADER].into(),
            body: (0..BODY).map(|n| n.to_le_bytes()[0]).collect(),
        }
    }

    /// Messages of 100 bytes.
    pub(super) fn small() -> Self {
        Self {
            body: vec![7; 100].into(),
            ..Self::new()
        }
    }

    fn message(&self) -> NewRecord {
        let number = self.next.fetch_add(1, Relaxed);
        let mut hash = [5; 32];
        put(&mut hash, number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        NewRecord {
            recipient: mailbox(number),
            deliverer: Deliverer::from_bytes([number.to_le_bytes()[0] % 8; 32]),
            hash: DedupHash(hash),
            retention: if number.is_multiple_of(2) {
                Retention::Low
            } else {
                Retention::High
            },
            expires: None,
            header: self.header.clone(),
            body: self.body.clone(),
        }
    }

    /// Offers messages to a store that may be full: those it has no room for are refused.
    pub(super) fn offer(&self, store: &Store, count: u64, at: UnixSeconds) -> anyhow::Result<()> {
        for _ in 0..count {
            match store.submit(self.message(), at).and_then(Ticket::wait) {
                Ok(_) | Err(StoreError::Refused(Refusal::Full)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One caller with many insertions waiting; how many were acknowledged a second.
    pub(super) fn insert(&self, store: &Store, count: u64, at: UnixSeconds) -> anyhow::Result<f64> {
        let start = now();
        let mut waiting = VecDeque::with_capacity(WAITING);
        for _ in 0..count {
            if waiting.len() == WAITING
                && let Some(ticket) = waiting.pop_front()
            {
                Ticket::wait(ticket)?;
            }
            waiting.push_back(store.submit(self.message(), at)?);
        }
        waiting
            .into_iter()
            .try_for_each(|ticket| ticket.wait().map(drop))?;
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }

    /// Callers that each wait for their insertion; how many were acknowledged a second.
    pub(super) async fn call(
        &self,
        store: &Store,
        callers: u64,
        count: u64,
    ) -> anyhow::Result<f64> {
        let start = now();
        let each = count.div_ceil(callers);
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (load, store) = (self.clone(), store.clone());
                tokio::spawn(async move {
                    for _ in 0..each {
                        store.insert(load.message(), NOW).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok((each * callers) as f64 / start.elapsed().as_secs_f64())
    }

    /// One insertion after the other with a pause between them, until told to stop; seconds that each took.
    pub(super) fn trickle(
        &self,
        store: &Store,
        stop: &AtomicBool,
        pause: Duration,
        at: UnixSeconds,
    ) -> anyhow::Result<Vec<f64>> {
        let mut waits = Vec::new();
        loop {
            let start = now();
            store.submit(self.message(), at)?.wait()?;
            waits.push(start.elapsed().as_secs_f64());
            if stop.load(Relaxed) {
                return Ok(waits);
            }
            thread::sleep(pause);
        }
    }
}

fn put(target: &mut [u8; 32], number: u64) {
    for (to, from) in target.iter_mut().zip(number.to_be_bytes()) {
        *to = from;
    }
}
