//! Settings of store-and-forward, as plain data.

use dht_core::OutOfRange;
use dht_mailbox::{
    DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_ROWS, DEFAULT_HIGH_SECONDS, DEFAULT_LOW_SECONDS,
    DEFAULT_MAX_BODY_BYTES, DEFAULT_MAX_RETURNED, Durability, Lifetimes, Limits, Order, Quota,
    StoreConfig,
};
use dht_proto::limits::MAX_STORED_MESSAGES;
use dht_stack::Rate;
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
const DAY_SECONDS: u64 = 24 * 60 * 60;
const MONTH_SECONDS: u64 = 30 * DAY_SECONDS;

/// Share of the store that one mailbox may take, in percent: ten recipients fill the store together.
pub const DEFAULT_MAILBOX_PERCENT: u64 = 10;
/// Share of the store that one deliverer may fill, in percent: half, as a small network may have one deliverer only.
pub const DEFAULT_DELIVERER_PERCENT: u64 = 50;
/// Messages a second that are stored for one deliverer, so that a flood does not fill the store within minutes.
pub const DEFAULT_DELIVERER_RATE: u32 = 1_000;
/// Messages that are stored for one deliverer at once after a rest: what it kept back while it was disconnected.
pub const DEFAULT_DELIVERER_BURST: u32 = 20_000;
/// Requests a second of one peer that are answered with messages; each may read 4 MiB from the disk.
pub const DEFAULT_REQUESTER_RATE: u32 = 2;
/// Requests of one peer that are answered at once after a rest: a full mailbox of default size takes some 270.
pub const DEFAULT_REQUESTER_BURST: u32 = 320;
/// Known nodes that make up a node's region (05 section 11, `saf.num_neighbouring_nodes`).
pub const DEFAULT_NEIGHBOURING_NODES: usize = 8;
/// Seconds that a request reaches back before the newest message read from a peer, for rows that became visible there
/// late (05 defects D3 and D4).
pub const DEFAULT_MARGIN_SECONDS: u64 = 30;
/// Seconds without a response after which a peer counts as silent: a page of 4 MiB takes that long at 1 Mbit/s.
pub const DEFAULT_PATIENCE_SECONDS: u64 = 30;
/// Seconds after a request in which its response is accepted (05 section 11, `saf.max_inflight_request_age`).
pub const DEFAULT_ANSWER_SECONDS: u64 = 120;
/// Age in seconds beyond which a stored message is a replay: 4 days, the longest that messages are stored and a day
/// for clocks that differ.
pub const DEFAULT_MAX_AGE_SECONDS: u64 = 4 * DAY_SECONDS;

/// Settings of store-and-forward: the section `[saf]` of a node's configuration.
///
/// ```
/// let config: dht_saf::Config = toml::from_str("capacity_mib = 512")?;
/// assert_eq!(config.capacity_mib, 512);
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// Values out of range are refused by [`Config::validate`]; parts made without it use the nearest value in range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether this node stores messages for offline peers and fetches its own. Defaults to true.
    pub enabled: bool,
    /// Whether peers are asked for stored messages when they connect. Defaults to true.
    pub auto_request: bool,
    /// Number of closest connected peers that `auto_request` is limited to, up to 65 536; 0, the default, asks every peer.
    pub auto_request_closest: usize,
    /// Whether a message is on the device before it counts as stored. If not, a power failure may take the last
    /// moments; the end of the process takes nothing. Defaults to true.
    pub durable: bool,
    /// Messages stored for others, 1 to 2³² - 1. Defaults to [`DEFAULT_CAPACITY_ROWS`].
    pub capacity_rows: u64,
    /// Room for them in MiB, 1 to 2³⁰, 1 PiB. Defaults to 2048 ([`DEFAULT_CAPACITY_BYTES`]). A node without a home stores
    /// them in memory, within a sixteenth of its memory setting, log and index included.
    pub capacity_mib: u64,
    /// Seconds that a message without a destination is stored, up to 30 days. Defaults to [`DEFAULT_LOW_SECONDS`].
    pub low_priority_seconds: u64,
    /// Seconds that any other message is stored, up to 30 days. Defaults to [`DEFAULT_HIGH_SECONDS`].
    pub high_priority_seconds: u64,
    /// Largest encrypted body that is stored, in bytes; at most [`DEFAULT_MAX_BODY_BYTES`], the default, as no peer
    /// decodes a larger one.
    pub max_message_bytes: u64,
    /// Share of the store that one mailbox may take, 0 to 100 percent. Defaults to [`DEFAULT_MAILBOX_PERCENT`].
    pub mailbox_percent: u64,
    /// Share of the store that one deliverer may fill, 0 to 100 percent. Defaults to [`DEFAULT_DELIVERER_PERCENT`].
    pub deliverer_percent: u64,
    /// Messages a second that are stored for one deliverer, at least 1; others are passed on without being stored. Defaults to
    /// [`DEFAULT_DELIVERER_RATE`].
    pub deliverer_rate: u32,
    /// Messages that are stored for one deliverer at once after a rest, at least 1. Defaults to [`DEFAULT_DELIVERER_BURST`].
    pub deliverer_burst: u32,
    /// Requests a second of one peer that are answered with messages, at least 1; others get an empty response. Defaults to
    /// [`DEFAULT_REQUESTER_RATE`].
    pub requester_rate: u32,
    /// Requests of one peer that are answered at once after a rest, at least 1. Defaults to [`DEFAULT_REQUESTER_BURST`].
    pub requester_burst: u32,
    /// Most messages in one response, served and accepted; 1 to 1024 ([`MAX_STORED_MESSAGES`]). Defaults to
    /// [`DEFAULT_MAX_RETURNED`].
    pub max_returned: usize,
    /// Whether the newest messages are served first, as stock nodes do: the oldest of more than `max_returned` are
    /// then lost. Defaults to false.
    pub newest_first: bool,
    /// Known nodes that make up the region for which messages are stored, 1 to 1 000. Defaults to
    /// [`DEFAULT_NEIGHBOURING_NODES`].
    pub neighbouring_nodes: usize,
    /// Seconds that a request reaches back before the newest message read from a peer, up to a day. Defaults to
    /// [`DEFAULT_MARGIN_SECONDS`].
    pub margin_seconds: u64,
    /// Seconds without a response after which a peer counts as silent, 1 to 3 600. Defaults to [`DEFAULT_PATIENCE_SECONDS`].
    pub patience_seconds: u64,
    /// Seconds after a request in which its response is accepted, up to a day. Defaults to [`DEFAULT_ANSWER_SECONDS`].
    pub answer_seconds: u64,
    /// Seconds beyond which a stored message is refused as a replay, up to 30 days, and for which received ones are remembered. If
    /// it is shorter than peers store messages, the same message may be delivered twice. Defaults to
    /// [`DEFAULT_MAX_AGE_SECONDS`].
    pub max_age_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            auto_request: true,
            auto_request_closest: 0,
            durable: true,
            capacity_rows: DEFAULT_CAPACITY_ROWS,
            capacity_mib: DEFAULT_CAPACITY_BYTES / MIB,
            low_priority_seconds: DEFAULT_LOW_SECONDS,
            high_priority_seconds: DEFAULT_HIGH_SECONDS,
            max_message_bytes: DEFAULT_MAX_BODY_BYTES,
            mailbox_percent: DEFAULT_MAILBOX_PERCENT,
            deliverer_percent: DEFAULT_DELIVERER_PERCENT,
            deliverer_rate: DEFAULT_DELIVERER_RATE,
            deliverer_burst: DEFAULT_DELIVERER_BURST,
            requester_rate: DEFAULT_REQUESTER_RATE,
            requester_burst: DEFAULT_REQUESTER_BURST,
            max_returned: DEFAULT_MAX_RETURNED,
            newest_first: false,
            neighbouring_nodes: DEFAULT_NEIGHBOURING_NODES,
            margin_seconds: DEFAULT_MARGIN_SECONDS,
            patience_seconds: DEFAULT_PATIENCE_SECONDS,
            answer_seconds: DEFAULT_ANSWER_SECONDS,
            max_age_seconds: DEFAULT_MAX_AGE_SECONDS,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let returned = u64::try_from(self.max_returned).unwrap_or(u64::MAX);
        let (bytes, most) = (self.max_message_bytes, MAX_STORED_MESSAGES as u64);
        let closest = u64::try_from(self.auto_request_closest).unwrap_or(u64::MAX);
        OutOfRange::check("saf.auto_request_closest", closest, 0..=1 << 16)?;
        let rows = self.capacity_rows;
        OutOfRange::check("saf.capacity_rows", rows, 1..=u32::MAX.into())?;
        OutOfRange::check("saf.capacity_mib", self.capacity_mib, 1..=1 << 30)?;
        OutOfRange::check("saf.max_message_bytes", bytes, 0..=DEFAULT_MAX_BODY_BYTES)?;
        OutOfRange::check("saf.mailbox_percent", self.mailbox_percent, 0..=100)?;
        OutOfRange::check("saf.deliverer_percent", self.deliverer_percent, 0..=100)?;
        OutOfRange::check("saf.max_returned", returned, 1..=most)?;
        let nodes = u64::try_from(self.neighbouring_nodes).unwrap_or(u64::MAX);
        OutOfRange::check("saf.neighbouring_nodes", nodes, 1..=1_000)?;
        let (low, high) = (self.low_priority_seconds, self.high_priority_seconds);
        OutOfRange::check("saf.low_priority_seconds", low, 0..=MONTH_SECONDS)?;
        OutOfRange::check("saf.high_priority_seconds", high, 0..=MONTH_SECONDS)?;
        OutOfRange::check("saf.margin_seconds", self.margin_seconds, 0..=DAY_SECONDS)?;
        OutOfRange::check("saf.patience_seconds", self.patience_seconds, 1..=3_600)?;
        OutOfRange::check("saf.answer_seconds", self.answer_seconds, 1..=DAY_SECONDS)?;
        OutOfRange::check(
            "saf.max_age_seconds",
            self.max_age_seconds,
            1..=MONTH_SECONDS,
        )?;
        let rate = |key, rate: u32| OutOfRange::check(key, rate.into(), 1..=u32::MAX.into());
        rate("saf.deliverer_rate", self.deliverer_rate)?;
        rate("saf.deliverer_burst", self.deliverer_burst)?;
        rate("saf.requester_rate", self.requester_rate)?;
        rate("saf.requester_burst", self.requester_burst)
    }

    /// Settings of the store of messages for others, in files.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        StoreConfig {
            durability: if self.durable {
                Durability::Immediate
            } else {
                Durability::Eventual
            },
            limits: Limits {
                capacity: self.share(100),
                per_recipient: self.share(self.mailbox_percent),
                per_deliverer: self.share(self.deliverer_percent),
                max_body_bytes: self.max_body_bytes(),
            },
            lifetimes: Lifetimes {
                low_seconds: self.low_priority_seconds,
                high_seconds: self.high_priority_seconds,
                ..Lifetimes::default()
            },
            ..StoreConfig::default()
        }
    }

    /// Settings of the store of a node without a home, within `bytes` of memory: messages take three eighths of it, the
    /// log with what is not yet removed from it up to as much again, the index a quarter. The segments are small enough
    /// that the memory of removed messages is given back. At least 1 MiB of messages is stored.
    #[must_use]
    pub fn store_in_memory(&self, bytes: u64) -> StoreConfig {
        let within = Self {
            capacity_mib: self.capacity_mib.min(bytes / MIB * 3 / 8),
            ..self.clone()
        };
        let config = within.store();
        let piece = config.limits.capacity.bytes / 8;
        StoreConfig {
            segment_bytes: config
                .segment_bytes
                .min(u32::try_from(piece).unwrap_or(u32::MAX)),
            checkpoint_bytes: config.checkpoint_bytes.min(piece),
            index_bytes: config.index_bytes.min((bytes / 4).max(MIB)),
            ..config
        }
    }

    pub(crate) fn max_body_bytes(&self) -> u64 {
        self.max_message_bytes.min(DEFAULT_MAX_BODY_BYTES)
    }

    pub(crate) fn max_messages(&self) -> usize {
        self.max_returned.clamp(1, MAX_STORED_MESSAGES)
    }

    pub(crate) const fn order(&self) -> Order {
        if self.newest_first {
            Order::NewestFirst
        } else {
            Order::OldestFirst
        }
    }

    pub(crate) const fn deliverer_rate(&self) -> Rate {
        Rate {
            per_second: self.deliverer_rate,
            burst: self.deliverer_burst,
        }
    }

    pub(crate) const fn requester_rate(&self) -> Rate {
        Rate {
            per_second: self.requester_rate,
            burst: self.requester_burst,
        }
    }

    fn share(&self, percent: u64) -> Quota {
        let of = |all: u64| u128::from(all) * u128::from(percent.min(100)) / 100;
        let of = |all| u64::try_from(of(all)).unwrap_or(u64::MAX);
        Quota {
            rows: of(self.capacity_rows).max(1),
            bytes: of(self.capacity_mib.saturating_mul(MIB)).max(MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{DedupHash, Deliverer, UnixSeconds};
    use dht_mailbox::{MemoryDisk, NewRecord, Recipient, Retention, Store};

    use super::*;

    #[test]
    fn default_limits_are_the_stores() {
        let (store, default) = (Config::default().store().limits, Limits::default());
        assert_eq!(store.capacity, default.capacity);
        assert_eq!(store.per_recipient.rows, default.per_recipient.rows);
        assert_eq!(store.per_deliverer, default.per_deliverer);
        assert_eq!(store.max_body_bytes, default.max_body_bytes);
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn keys_reach_the_parts() {
        let config: Config = toml::from_str(
            "requester_rate = 7\nrequester_burst = 8\ndeliverer_rate = 9\ndeliverer_burst = 10\n\
             max_message_bytes = 15\nmailbox_percent = 50\ndeliverer_percent = 200\nmax_returned = 0",
        )
        .unwrap();
        let rate = |rate: Rate| (rate.per_second, rate.burst);
        assert_eq!(rate(config.requester_rate()), (7, 8));
        assert_eq!(rate(config.deliverer_rate()), (9, 10));
        assert_eq!((config.max_body_bytes(), config.max_messages()), (15, 1));
        let limits = config.store().limits;
        assert_eq!(limits.max_body_bytes, 15);
        assert_eq!(limits.per_recipient.rows, limits.capacity.rows / 2);
        assert_eq!(limits.per_deliverer, limits.capacity, "all is the most");
        let error = config.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "saf.deliverer_percent is 200, which is not in the range 0 to 100"
        );
    }

    #[test]
    fn store_in_memory_keeps_its_share() {
        const SHARE: u64 = 8 * MIB;
        for body in [500, 6_000, 400_000] {
            let config = Config::default().store_in_memory(SHARE);
            let store = Store::open_on(MemoryDisk::new(), config).unwrap();
            let mut stored = 0;
            for n in 0..2 * SHARE / (300 + body) {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&n.to_le_bytes());
                let number = u8::try_from(n % 31).unwrap();
                let record = NewRecord {
                    recipient: Recipient::from_bytes([number; 32]),
                    deliverer: Deliverer::from_bytes([number % 3; 32]),
                    hash: DedupHash(hash),
                    retention: Retention::High,
                    expires: None,
                    header: vec![7; 100].into(),
                    body: vec![7; usize::try_from(body).unwrap()].into(),
                };
                let inserted = store.submit(record, UnixSeconds(1_700_000_000)).unwrap();
                stored += u64::from(inserted.wait().is_ok());
                let stats = store.stats();
                let bytes = stats.disk_bytes + stats.index_bytes;
                assert!(bytes <= SHARE, "{stats:?} at {n} of {body} bytes");
            }
            assert!(stored > 0);
        }
    }

    #[test]
    fn an_empty_store_has_one_row() {
        let config = Config {
            capacity_rows: 0,
            capacity_mib: 0,
            ..Config::default()
        };
        for store in [config.store(), config.store_in_memory(0)] {
            assert_eq!(store.limits.capacity, store.limits.per_recipient);
            assert_eq!(store.limits.capacity.rows, 1);
        }
    }
}
