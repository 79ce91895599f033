//! Settings of inbox and outbox: bounds and retention.

use dht_core::OutOfRange;
use serde::{Deserialize, Serialize};

/// Rows an inbox holds: 100,000, as many as a mailbox holder keeps for everybody.
pub const DEFAULT_INBOX_ROWS: u64 = 100_000;
/// Bytes of payloads an inbox holds: 512 MiB, some 5 kB for each of [`DEFAULT_INBOX_ROWS`].
pub const DEFAULT_INBOX_BYTES: u64 = 512 << 20;
/// Seconds an inbox keeps a row that not every consumer acked: 30 days, ten times what mailbox holders keep.
pub const DEFAULT_INBOX_RETENTION_SECONDS: u64 = 30 * DAY_SECONDS;
/// Seconds the hash of a row that left is remembered: 4 days. Mailbox holders hand out a message for 3 days, on
/// clocks that may differ.
pub const DEFAULT_REMEMBER_SECONDS: u64 = 4 * DAY_SECONDS;
/// Hashes of rows that left which are remembered: 200,000, some 20 MB of memory. For another one the oldest of the deliverer with
/// most is forgotten.
pub const DEFAULT_REMEMBER_ROWS: usize = 200_000;
/// Consumers of one inbox: 16. A row stays until the slowest of them acked it.
pub const DEFAULT_CONSUMERS: usize = 16;
/// Rows one consumer may ack out of order: 1,024. They are written again with each of its acks.
pub const DEFAULT_OUT_OF_ORDER_ACKS: usize = 1024;
/// Entries of an outbox that have not ended: 100,000.
pub const DEFAULT_OUTBOX_ROWS: u64 = 100_000;
/// Bytes of payloads and sealed frames an outbox holds: 512 MiB.
pub const DEFAULT_OUTBOX_BYTES: u64 = 512 << 20;
/// Seconds an entry that has ended can be asked for: 7 days, so that a client that was away for the longest
/// time to live still learns what became of its message.
pub const DEFAULT_ENDED_SECONDS: u64 = 7 * DAY_SECONDS;
/// Entries that have ended which are kept: 100,000. The one that ended first leaves first.
pub const DEFAULT_ENDED_ROWS: usize = 100_000;
/// Seconds a message is tried for, if the client says nothing: 3 days, as long as mailbox holders keep it.
pub const DEFAULT_TTL_SECONDS: u64 = MAX_TTL_SECONDS;
/// Longest time to live of an outgoing message in seconds: 3 days. No holder keeps it longer.
pub const MAX_TTL_SECONDS: u64 = 3 * DAY_SECONDS;
/// Largest payload or sealed frame in bytes: 8 MiB, the largest frame of the messaging protocol.
pub const MAX_CONTENT_BYTES: usize = 8 << 20;
/// Longest name of a consumer in bytes: 64, a line of a listing.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest idempotency key in bytes: 128, room for two UUIDs and a prefix.
pub const MAX_KEY_BYTES: usize = 128;
/// Longest error text or reason kept with an entry in bytes: 256. Longer text is cut.
pub const MAX_TEXT_BYTES: usize = 256;
/// Requests that wait for the writer: 4,096, four commits.
pub const DEFAULT_QUEUE_REQUESTS: usize = 4096;
/// Bytes that wait for the writer: 16 MiB, two of the largest messages.
pub const DEFAULT_QUEUE_BYTES: usize = 16 << 20;
/// Requests in one commit: 1,024. More makes the first of them wait longer and saves little.
pub const DEFAULT_BATCH_REQUESTS: usize = 1024;
/// Bytes in one commit: 4 MiB.
pub const DEFAULT_BATCH_BYTES: usize = 4 << 20;
/// Memory for pages of the file in bytes: 16 MiB; the operating system caches the rest.
pub const DEFAULT_CACHE_BYTES: usize = 16 << 20;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Settings of an [`Inbox`](crate::Inbox).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboxConfig {
    /// Rows not acked by every consumer. One deliverer, a peer or all peers of one
    /// [`SourceGroup`](dht_core::SourceGroup), may hold as many as are free: alone, half of them. One origin may hold a
    /// third, and the unproven origins of one deliverer together a third. 1 to 2³² - 1. Defaults to [`DEFAULT_INBOX_ROWS`].
    pub max_rows: u64,
    /// Bytes of their payloads, shared in the same way; 8 MiB, the largest message, to 1 PiB. Defaults to [`DEFAULT_INBOX_BYTES`].
    pub max_bytes: u64,
    /// Seconds after which a row leaves that not every consumer acked, 1 to 2³² - 1. Defaults to
    /// [`DEFAULT_INBOX_RETENTION_SECONDS`].
    pub retention_seconds: u64,
    /// Seconds for which the hash of a row that left is remembered, 1 to 2³² - 1. Defaults to [`DEFAULT_REMEMBER_SECONDS`].
    pub remember_seconds: u64,
    /// Hashes that are remembered, in equal shares for all deliverers that need theirs, 1 to 2³² - 1. Defaults to [`DEFAULT_REMEMBER_ROWS`].
    pub remember_rows: usize,
    /// Consumers that may exist, `default` included, 1 to 1 000. Defaults to [`DEFAULT_CONSUMERS`].
    pub max_consumers: usize,
    /// Rows one consumer may ack out of order, 0 to 65 536. Defaults to [`DEFAULT_OUT_OF_ORDER_ACKS`].
    pub out_of_order_acks: usize,
    /// Bounds of the writer's queue and commits.
    pub writer: WriterConfig,
}

/// Settings of an [`Outbox`](crate::Outbox).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// Entries that have not ended. Defaults to [`DEFAULT_OUTBOX_ROWS`].
    pub max_rows: u64,
    /// Bytes of their payloads and sealed frames. Defaults to [`DEFAULT_OUTBOX_BYTES`].
    pub max_bytes: u64,
    /// Seconds for which an entry that has ended is kept. Defaults to [`DEFAULT_ENDED_SECONDS`].
    pub ended_seconds: u64,
    /// Entries that have ended which are kept. Defaults to [`DEFAULT_ENDED_ROWS`].
    pub ended_rows: usize,
    /// Bounds of the writer's queue and commits.
    pub writer: WriterConfig,
}

/// The writer thread's queue and commits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterConfig {
    /// Requests that may wait, 1 to 1 048 576. Defaults to [`DEFAULT_QUEUE_REQUESTS`].
    pub queue_requests: usize,
    /// Bytes that may wait, 1 to 1 GiB; a larger request waits until the queue is empty. Defaults to [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// Requests in one commit, 1 to 1 048 576. Defaults to [`DEFAULT_BATCH_REQUESTS`].
    pub batch_requests: usize,
    /// Bytes in one commit, 1 to 1 GiB; a larger request is committed alone. Defaults to [`DEFAULT_BATCH_BYTES`].
    pub batch_bytes: usize,
    /// Memory for pages of the file in bytes, 64 KiB to 1 TiB. Defaults to [`DEFAULT_CACHE_BYTES`].
    pub cache_bytes: usize,
}

impl InboxConfig {
    /// Checks every range; the keys are those of the section `[inbox]` of a node's configuration.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first setting out of its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        const MOST: u64 = u32::MAX as u64;
        const MILLION: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        let check = OutOfRange::check;
        let (least, retention) = (MAX_CONTENT_BYTES as u64, self.retention_seconds);
        check("inbox.max_rows", self.max_rows, 1..=MOST)?;
        check("inbox.max_bytes", self.max_bytes, least..=1 << 50)?;
        check("inbox.retention_seconds", retention, 1..=MOST)?;
        check("inbox.remember_seconds", self.remember_seconds, 1..=MOST)?;
        let count = |key, value: usize, range| check(key, value as u64, range);
        count("inbox.remember_rows", self.remember_rows, 1..=MOST)?;
        count("inbox.max_consumers", self.max_consumers, 1..=1_000)?;
        let acks = self.out_of_order_acks;
        count("inbox.out_of_order_acks", acks, 0..=1 << 16)?;
        let writer = &self.writer;
        let (queued, batched) = (writer.queue_requests, writer.batch_requests);
        count("inbox.writer.queue_requests", queued, 1..=MILLION)?;
        count("inbox.writer.queue_bytes", writer.queue_bytes, 1..=GIB)?;
        count("inbox.writer.batch_requests", batched, 1..=MILLION)?;
        count("inbox.writer.batch_bytes", writer.batch_bytes, 1..=GIB)?;
        let cache = writer.cache_bytes;
        count("inbox.writer.cache_bytes", cache, 1 << 16..=1 << 40)
    }
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self {
            max_rows: DEFAULT_INBOX_ROWS,
            max_bytes: DEFAULT_INBOX_BYTES,
            retention_seconds: DEFAULT_INBOX_RETENTION_SECONDS,
            remember_seconds: DEFAULT_REMEMBER_SECONDS,
            remember_rows: DEFAULT_REMEMBER_ROWS,
            max_consumers: DEFAULT_CONSUMERS,
            out_of_order_acks: DEFAULT_OUT_OF_ORDER_ACKS,
            writer: WriterConfig::default(),
        }
    }
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            max_rows: DEFAULT_OUTBOX_ROWS,
            max_bytes: DEFAULT_OUTBOX_BYTES,
            ended_seconds: DEFAULT_ENDED_SECONDS,
            ended_rows: DEFAULT_ENDED_ROWS,
            writer: WriterConfig::default(),
        }
    }
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            queue_requests: DEFAULT_QUEUE_REQUESTS,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            batch_requests: DEFAULT_BATCH_REQUESTS,
            batch_bytes: DEFAULT_BATCH_BYTES,
            cache_bytes: DEFAULT_CACHE_BYTES,
        }
    }
}
