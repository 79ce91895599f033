//! Settings of a store: limits, lifetimes and durability.

use dht_core::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::record::Retention;

/// Rows one store holds (`saf.msg_storage_capacity`, 05 section 11).
pub const DEFAULT_CAPACITY_ROWS: u64 = 100_000;
/// Bytes one store holds: 2 GiB, some 20 kB for each of [`DEFAULT_CAPACITY_ROWS`].
///
/// The reference has no such bound; full-size messages would let it grow to 49 GiB.
pub const DEFAULT_CAPACITY_BYTES: u64 = 2 << 30;
/// Rows of one mailbox: a tenth of the store.
pub const DEFAULT_RECIPIENT_ROWS: u64 = DEFAULT_CAPACITY_ROWS / 10;
/// Bytes of one mailbox: an eighth of the store.
pub const DEFAULT_RECIPIENT_BYTES: u64 = DEFAULT_CAPACITY_BYTES / 8;
/// Rows one deliverer may have delivered: half of the store, as a small network may have one deliverer only.
pub const DEFAULT_DELIVERER_ROWS: u64 = DEFAULT_CAPACITY_ROWS / 2;
/// Bytes one deliverer may have delivered: half of the store.
pub const DEFAULT_DELIVERER_BYTES: u64 = DEFAULT_CAPACITY_BYTES / 2;
/// Largest body, in bytes (`saf.max_message_size`).
pub const DEFAULT_MAX_BODY_BYTES: u64 = 524_288;
/// How long a [`Retention::Low`] row is kept: 6 hours, in seconds.
pub const DEFAULT_LOW_SECONDS: u64 = 6 * 60 * 60;
/// How long a [`Retention::High`] or [`Retention::Unmet`] row is kept: 3 days, in seconds.
pub const DEFAULT_HIGH_SECONDS: u64 = 3 * 24 * 60 * 60;
/// Bytes of requests that may wait for the writer: 32 MiB, sixty-four of the largest messages.
pub const DEFAULT_QUEUE_BYTES: usize = 32 << 20;
/// Bytes of one segment file: 32 MiB, so that a full store has 64 files open.
pub const DEFAULT_SEGMENT_BYTES: u32 = 32 << 20;
/// Bytes of the log that a restart may have to read again: 48 MiB, a tenth of a second.
pub const DEFAULT_CHECKPOINT_BYTES: u64 = 48 << 20;
/// Bytes of memory for the index: 72 MiB, more than [`DEFAULT_CAPACITY_ROWS`] take when each row has a mailbox and
/// a deliverer of its own.
pub const DEFAULT_INDEX_BYTES: u64 = 72 << 20;
/// Whether the sender's own time limit ends a row: it does, as a message that has expired only takes room.
pub const DEFAULT_HONOUR_EXPIRES: bool = true;

/// When an insertion is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// After the message is on the device: it survives a power failure.
    #[default]
    Immediate,
    /// After the operating system has it: it survives the end of this process at any moment, while a power
    /// failure loses what was acknowledged since the last background sync (at most
    /// [`EVENTUAL_LOSS_BYTES`], usually the last 50 ms).
    Eventual,
}

/// The most that a power failure can take from a store with [`Durability::Eventual`], in bytes.
pub const EVENTUAL_LOSS_BYTES: u64 = 64 << 20;

/// Everything the store needs to know.
///
/// ```
/// let config: dht_mailbox::StoreConfig = serde_json::from_str(r#"{ "durability": "eventual" }"#)?;
/// assert_eq!(config.limits, dht_mailbox::Limits::default());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// When an insertion is acknowledged. Defaults to [`Durability::Immediate`].
    pub durability: Durability,
    /// Bounds in rows and bytes of the store, of one mailbox and of one deliverer.
    pub limits: Limits,
    /// Seconds for which rows of each class are kept.
    pub lifetimes: Lifetimes,
    /// Defaults to [`DEFAULT_QUEUE_BYTES`]. A larger request waits until the queue is empty.
    pub queue_bytes: usize,
    /// Defaults to [`DEFAULT_SEGMENT_BYTES`]; 2 GiB at most. With 0 each commit has a file of its own.
    pub segment_bytes: u32,
    /// Defaults to [`DEFAULT_CHECKPOINT_BYTES`]. With 0 each commit is followed by a checkpoint.
    pub checkpoint_bytes: u64,
    /// Memory of the index, in bytes; a row counts 288, a mailbox or deliverer 160, a deliverer in a mailbox 128. A store whose index is full
    /// evicts as one whose capacity is. Defaults to [`DEFAULT_INDEX_BYTES`].
    pub index_bytes: u64,
}

/// Room for rows and bytes; a row counts its header and body and some 150 bytes for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Number of rows; 0 admits none.
    pub rows: u64,
    /// Number of bytes; 0 admits none.
    pub bytes: u64,
}

/// Bounds that each insertion is checked against; with zeros every insertion is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of the whole store. Defaults to [`DEFAULT_CAPACITY_ROWS`], [`DEFAULT_CAPACITY_BYTES`].
    pub capacity: Quota,
    /// Of one mailbox. Defaults to [`DEFAULT_RECIPIENT_ROWS`], [`DEFAULT_RECIPIENT_BYTES`].
    pub per_recipient: Quota,
    /// Of what one deliverer brought. Defaults to [`DEFAULT_DELIVERER_ROWS`], [`DEFAULT_DELIVERER_BYTES`].
    pub per_deliverer: Quota,
    /// Of one body, in bytes. Defaults to [`DEFAULT_MAX_BODY_BYTES`].
    pub max_body_bytes: u64,
}

/// How long rows are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifetimes {
    /// Seconds of a [`Retention::Low`] row. Defaults to [`DEFAULT_LOW_SECONDS`].
    pub low_seconds: u64,
    /// Seconds of a [`Retention::High`] or [`Retention::Unmet`] row. Defaults to [`DEFAULT_HIGH_SECONDS`].
    pub high_seconds: u64,
    /// Whether a row also ends with the message's own `expires` (05 D5). Defaults to [`DEFAULT_HONOUR_EXPIRES`].
    pub honour_expires: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            limits: Limits::default(),
            lifetimes: Lifetimes::default(),
            queue_bytes: DEFAULT_QUEUE_BYTES,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            checkpoint_bytes: DEFAULT_CHECKPOINT_BYTES,
            index_bytes: DEFAULT_INDEX_BYTES,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacity: Quota {
                rows: DEFAULT_CAPACITY_ROWS,
                bytes: DEFAULT_CAPACITY_BYTES,
            },
            per_recipient: Quota {
                rows: DEFAULT_RECIPIENT_ROWS,
                bytes: DEFAULT_RECIPIENT_BYTES,
            },
            per_deliverer: Quota {
                rows: DEFAULT_DELIVERER_ROWS,
                bytes: DEFAULT_DELIVERER_BYTES,
            },
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
        }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            low_seconds: DEFAULT_LOW_SECONDS,
            high_seconds: DEFAULT_HIGH_SECONDS,
            honour_expires: DEFAULT_HONOUR_EXPIRES,
        }
    }
}

impl Lifetimes {
    /// The last second in which a row that is stored now is served.
    #[must_use]
    pub fn keep_until(
        &self,
        retention: Retention,
        now: UnixSeconds,
        expires: Option<UnixSeconds>,
    ) -> UnixSeconds {
        let seconds = match retention {
            Retention::Low => self.low_seconds,
            Retention::Unmet | Retention::High => self.high_seconds,
        };
        let limit = now.saturating_add(seconds);
        match expires {
            Some(expires) if self.honour_expires => limit.min(expires),
            _ => limit,
        }
    }
}
