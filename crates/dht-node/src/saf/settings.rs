//! Settings of store-and-forward, as plain data.

use dht_core::AttributionProfile;
use dht_mailbox::{
    DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_ROWS, DEFAULT_HIGH_SECONDS, DEFAULT_LOW_SECONDS,
    DEFAULT_MAX_BODY_BYTES, DEFAULT_MAX_RETURNED, Durability, Lifetimes, Limits, Order, Room,
    StoreConfig,
};
use dht_saf::{AskConfig, PagerConfig, Rate, SafConfig};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
/// Messages in one answer that every node of this implementation decodes.
const MAX_RETURNED: usize = 1024;

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
    /// Largest encrypted body that is kept, in bytes. Defaults to 524 288, which is also the most.
    pub max_message_bytes: u64,
    /// The part of the store that one mailbox may take, in percent. Defaults to 10.
    pub mailbox_percent: u64,
    /// The part of the store that one neighbour may fill, in percent. Defaults to 50, as in a small network there may be
    /// only one.
    pub neighbour_percent: u64,
    /// Messages a second that are kept for one neighbour; more are passed on and not kept. Defaults to 1000.
    pub neighbour_rate: u64,
    /// Messages that are kept for one neighbour at once, after a rest. Defaults to 20 000.
    pub neighbour_burst: u64,
    /// Requests a second that one peer has answered with its mail; others are answered with nothing. Defaults to 2.
    pub requester_rate: u64,
    /// Requests of one peer that are answered at once, after a rest. Defaults to 320: a full mailbox takes some 270.
    pub requester_burst: u64,
    /// Messages in one answer, and the most that are accepted in one. Defaults to 50; 1 to 1024.
    pub max_returned: usize,
    /// Serve the newest first, as stock nodes do: of more than `max_returned` messages the oldest are then lost.
    /// Defaults to false.
    pub newest_first: bool,
    /// Known nodes that make up the neighbourhood for which mail is kept. Defaults to 8.
    pub neighbouring_nodes: usize,
    /// Seconds before the newest message had from a peer from which it is asked again, for what became visible there
    /// late. Defaults to 30.
    pub margin_seconds: u64,
    /// Seconds without an answer after which a peer counts as silent. Defaults to 30.
    pub patience_seconds: u64,
    /// Seconds after a request in which its answer is accepted. Defaults to 120.
    pub answer_seconds: u64,
    /// Age in seconds beyond which a stored message is refused as a replay, and for which received ones are remembered.
    /// Longer than anybody keeps mail, or what is had could come again. Defaults to 4 days.
    pub max_age_seconds: u64,
}

impl Default for SafSettings {
    fn default() -> Self {
        let saf = SafConfig::default();
        Self {
            enabled: true,
            auto_request: true,
            durable: true,
            capacity_rows: DEFAULT_CAPACITY_ROWS,
            capacity_mib: DEFAULT_CAPACITY_BYTES / MIB,
            low_priority_seconds: DEFAULT_LOW_SECONDS,
            high_priority_seconds: DEFAULT_HIGH_SECONDS,
            max_message_bytes: saf.max_body_bytes,
            mailbox_percent: 10,
            neighbour_percent: 50,
            neighbour_rate: saf.neighbour_rate.per_second,
            neighbour_burst: saf.neighbour_rate.burst,
            requester_rate: saf.requester_rate.per_second,
            requester_burst: saf.requester_rate.burst,
            max_returned: DEFAULT_MAX_RETURNED,
            newest_first: false,
            neighbouring_nodes: saf.region_size,
            margin_seconds: saf.margin_seconds,
            patience_seconds: saf.asking.patience_seconds,
            answer_seconds: saf.asking.max_age_seconds,
            max_age_seconds: saf.max_age_seconds,
        }
    }
}

impl SafSettings {
    /// The settings of the store.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        let part = |percent: u64| {
            let of = |all: u64| u128::from(all) * u128::from(percent.min(100)) / 100;
            let of = |all| u64::try_from(of(all)).unwrap_or(u64::MAX);
            Room {
                rows: of(self.capacity_rows).max(1),
                bytes: of(self.capacity_mib.saturating_mul(MIB)).max(MIB),
            }
        };
        StoreConfig {
            durability: if self.durable {
                Durability::Immediate
            } else {
                Durability::Eventual
            },
            limits: Limits {
                capacity: part(100),
                per_recipient: part(self.mailbox_percent),
                per_neighbour: part(self.neighbour_percent),
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
                max_returned: self.max_returned.clamp(1, MAX_RETURNED),
                ..PagerConfig::default()
            },
            asking: AskConfig {
                profile,
                max_age_seconds: self.answer_seconds,
                patience_seconds: self.patience_seconds,
            },
            max_accepted: self.max_returned,
            margin_seconds: self.margin_seconds,
            region_size: self.neighbouring_nodes,
            max_body_bytes: self.max_body_bytes(),
            neighbour_rate: Rate {
                per_second: self.neighbour_rate,
                burst: self.neighbour_burst,
            },
            requester_rate: Rate {
                per_second: self.requester_rate,
                burst: self.requester_burst,
            },
            max_age_seconds: self.max_age_seconds,
            ..SafConfig::default()
        };
        config.rule.auto_request = self.auto_request;
        config
    }

    /// Nobody decodes a larger one.
    fn max_body_bytes(&self) -> u64 {
        self.max_message_bytes.min(DEFAULT_MAX_BODY_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let settings = SafSettings::default();
        assert_eq!(
            settings.saf(AttributionProfile::default()),
            SafConfig::default()
        );
        let (store, default) = (settings.store().limits, Limits::default());
        assert_eq!(store.capacity, default.capacity);
        assert_eq!(store.per_recipient.rows, default.per_recipient.rows);
        assert_eq!(store.per_neighbour, default.per_neighbour);
        assert_eq!(store.max_body_bytes, default.max_body_bytes);
    }

    #[test]
    fn what_is_set_reaches_the_parts() {
        let settings: SafSettings = toml::from_str(
            "requester_rate = 7\nrequester_burst = 8\nneighbour_rate = 9\nneighbour_burst = 10\n\
             margin_seconds = 11\npatience_seconds = 12\nanswer_seconds = 13\nmax_age_seconds = 14\n\
             max_message_bytes = 15\nmailbox_percent = 50\nneighbour_percent = 200\nmax_returned = 0",
        )
        .unwrap();
        let saf = settings.saf(AttributionProfile::Legacy);
        let rate = |rate: Rate| (rate.per_second, rate.burst);
        assert_eq!(rate(saf.requester_rate), (7, 8));
        assert_eq!(rate(saf.neighbour_rate), (9, 10));
        assert_eq!((saf.margin_seconds, saf.max_age_seconds), (11, 14));
        assert_eq!(saf.asking.patience_seconds, 12);
        assert_eq!(saf.asking.max_age_seconds, 13);
        assert_eq!((saf.max_body_bytes, saf.paging.max_returned), (15, 1));
        let limits = settings.store().limits;
        assert_eq!(limits.max_body_bytes, 15);
        assert_eq!(limits.per_recipient.rows, limits.capacity.rows / 2);
        assert_eq!(limits.per_neighbour, limits.capacity, "all is the most");
    }

    #[test]
    fn a_store_without_room_has_room_for_one() {
        let settings = SafSettings {
            capacity_rows: 0,
            capacity_mib: 0,
            ..SafSettings::default()
        };
        for store in [settings.store(), settings.store_in_memory(0)] {
            assert_eq!(store.limits.capacity, store.limits.per_recipient);
            assert_eq!(store.limits.capacity.rows, 1);
        }
    }
}
