//! Settings of store-and-forward, as plain data.

use dht_core::AttributionProfile;
use dht_saf::{
    DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_ROWS, DEFAULT_HIGH_SECONDS, DEFAULT_LOW_SECONDS,
    DEFAULT_MAX_RETURNED, Durability, Lifetimes, Limits, Order, PagerConfig, Room, SafConfig,
    StoreConfig,
};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// Settings of store-and-forward: the section `[saf]` of the configuration.
///
/// ```
/// let config: dht_node::Config = toml::from_str("[saf]\ncapacity_mib = 512")?;
/// assert_eq!(config.saf.capacity_mib, 512);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SafSettings {
    /// Whether this node keeps mail for others and fetches its own. Defaults to true.
    pub enabled: bool,
    /// Whether it asks peers for its mail when they connect. Defaults to true.
    pub auto_request: bool,
    /// Whether mail is on the device before it counts as kept; otherwise a power failure may take the last
    /// moments, the end of the process nothing. Defaults to true.
    pub durable: bool,
    /// Messages kept for others. Defaults to 100 000.
    pub capacity_rows: u64,
    /// Room for them, in MiB. Defaults to 2048; a node without a home keeps them in memory, within a sixteenth of
    /// [`Config::memory_mib`](crate::Config::memory_mib).
    pub capacity_mib: u64,
    /// Seconds a message is kept that is addressed to nobody. Defaults to 6 hours.
    pub low_priority_seconds: u64,
    /// Seconds any other is kept. Defaults to 3 days.
    pub high_priority_seconds: u64,
    /// Messages in one answer, and the most that are accepted in one. Defaults to 50.
    pub max_returned: usize,
    /// Serve the newest first, as stock nodes do: of more than `max_returned` messages the oldest are then lost.
    /// Defaults to false.
    pub newest_first: bool,
    /// Known nodes that make up the neighbourhood for which mail is kept. Defaults to 8.
    pub neighbouring_nodes: usize,
}

impl Default for SafSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            auto_request: true,
            durable: true,
            capacity_rows: DEFAULT_CAPACITY_ROWS,
            capacity_mib: DEFAULT_CAPACITY_BYTES / MIB,
            low_priority_seconds: DEFAULT_LOW_SECONDS,
            high_priority_seconds: DEFAULT_HIGH_SECONDS,
            max_returned: DEFAULT_MAX_RETURNED,
            newest_first: false,
            neighbouring_nodes: 8,
        }
    }
}

impl SafSettings {
    /// The settings of the store: a mailbox gets a tenth of it, a neighbour half.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        let part = |n: u64| Room {
            rows: (self.capacity_rows / n).max(1),
            bytes: (self.capacity_mib.saturating_mul(MIB) / n).max(MIB),
        };
        StoreConfig {
            durability: if self.durable {
                Durability::Immediate
            } else {
                Durability::Eventual
            },
            limits: Limits {
                capacity: part(1),
                per_recipient: part(10),
                per_neighbour: part(2),
                ..Limits::default()
            },
            lifetimes: Lifetimes {
                low_seconds: self.low_priority_seconds,
                high_seconds: self.high_priority_seconds,
                ..Lifetimes::default()
            },
            ..StoreConfig::default()
        }
    }

    /// The settings of a store without a folder, for a node that is given this much memory for messages: a sixteenth of
    /// it, in pieces small enough that what has gone is given back.
    pub(crate) fn store_in_memory(&self, memory_mib: usize) -> StoreConfig {
        let most = u64::try_from(memory_mib / 16).unwrap_or(u64::MAX).max(1);
        let within = Self {
            capacity_mib: self.capacity_mib.min(most),
            ..self.clone()
        };
        let piece = within.capacity_mib.saturating_mul(MIB) / 8;
        let config = within.store();
        StoreConfig {
            segment_bytes: config
                .segment_bytes
                .min(u32::try_from(piece).unwrap_or(u32::MAX)),
            checkpoint_bytes: config.checkpoint_bytes.min(piece),
            ..config
        }
    }

    /// The settings of everything else.
    pub(crate) fn saf(&self, profile: AttributionProfile) -> SafConfig {
        let mut config = SafConfig {
            profile,
            paging: PagerConfig {
                order: if self.newest_first {
                    Order::NewestFirst
                } else {
                    Order::OldestFirst
                },
                max_returned: self.max_returned,
                ..PagerConfig::default()
            },
            max_accepted: self.max_returned,
            region_size: self.neighbouring_nodes,
            ..SafConfig::default()
        };
        config.rule.auto_request = self.auto_request;
        config
    }
}
