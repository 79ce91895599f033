//! Settings of the overlay, as plain data.

use dht_core::OutOfRange;
use serde::{Deserialize, Serialize};

use crate::sync::MAX_TOLD_PEERS;

/// Nodes closest to this one that it stays connected to (06 section 11, `num_neighbouring_nodes`).
pub const DEFAULT_NEIGHBOURS: usize = 8;
/// Nodes drawn at random that it stays connected to (06 section 11, `num_random_nodes`).
pub const DEFAULT_RANDOM_PEERS: usize = 4;
/// Neighbours in one network: a quarter of the pool, so that whoever has addresses in one network only cannot fill it.
pub const DEFAULT_MAX_PER_NETWORK: usize = 2;
/// Seconds in which every random peer has been replaced once (06 section 11, `random_pool_refresh_interval`).
pub const DEFAULT_RANDOM_REFRESH_SECONDS: u64 = 2 * 60 * 60;
/// Seconds between two joins at least (06 section 11, `join_cooldown_interval`).
pub const DEFAULT_JOIN_COOLDOWN_SECONDS: u64 = 10 * 60;
/// Seconds after which a node joins again, give or take a quarter: receivers tell only of peers seen within 7 days.
pub const DEFAULT_JOIN_INTERVAL_SECONDS: u64 = 4 * 60 * 60;
/// Known peers below which a node goes on asking for more (06 section 11).
pub const DEFAULT_MIN_DESIRED_PEERS: usize = 50;
/// Seconds without a round of peer sync (06 section 11).
pub const DEFAULT_IDLE_SECONDS: u64 = 30 * 60;
/// Rounds after which a node waits (06 section 11).
pub const DEFAULT_IDLE_AFTER_ROUNDS: u32 = 10;
/// Seconds that a node waits after a round that failed (06 section 11).
pub const DEFAULT_FAILURE_IDLE_SECONDS: u64 = 5;
/// Peers that one round asks (06 section 11).
pub const DEFAULT_MAX_SYNC_PEERS: usize = 5;
/// Peers that one round asks each of them for (06 section 11).
pub const DEFAULT_MAX_PEERS_PER_ROUND: u32 = 500;
/// Seconds between two requests to one peer for the reason that it connected.
pub const DEFAULT_SYNC_AGAIN_SECONDS: u64 = 60;
/// Seconds between two feelers (as in Bitcoin).
pub const DEFAULT_FEELER_SECONDS: u64 = 2 * 60;
/// Connected nodes from which on a node is online (02 section 10).
pub const DEFAULT_MIN_CONNECTED: usize = 1;
/// Seconds between two looks at the pools without any event (06 section 11, `update_interval`).
pub const DEFAULT_UPDATE_SECONDS: u64 = 2 * 60;
/// Share of connected nodes that have an IPv4 address, in percent, below which a warning is logged (06 section 8.5).
pub const DEFAULT_MIN_IPV4_PERCENT: u64 = 10;

/// Settings of the overlay: the section `[overlay]` of a node's configuration.
///
/// ```
/// let config: dht_overlay::Config = toml::from_str("neighbours = 16")?;
/// assert_eq!(config.neighbours, 16);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether this node looks for peers and stays connected to some by itself. Only full nodes do. Defaults to true.
    pub enabled: bool,
    /// Nodes closest to this one that it stays connected to, 1 to 100. Defaults to [`DEFAULT_NEIGHBOURS`].
    pub neighbours: usize,
    /// Nodes drawn at random that it stays connected to, 0 to 100. Defaults to [`DEFAULT_RANDOM_PEERS`].
    pub random_peers: usize,
    /// Neighbours in one network (a /16 of IPv4, a /32 of IPv6), and random peers, 1 to 100; networks of one machine or
    /// one house have no limit. Defaults to [`DEFAULT_MAX_PER_NETWORK`].
    pub max_per_network: usize,
    /// Seconds in which every random peer has been replaced once, one at a time, 60 to 30 days. Defaults to
    /// [`DEFAULT_RANDOM_REFRESH_SECONDS`].
    pub random_refresh_seconds: u64,
    /// Whether connections that this node opened and has no use for are closed after a minute, as on a phone, and not only
    /// when there are more than 50. Defaults to false.
    pub minimize_connections: bool,
    /// Whether this node announces itself when it gets online. Defaults to true.
    pub auto_join: bool,
    /// Seconds between two joins at least, up to a day. Defaults to [`DEFAULT_JOIN_COOLDOWN_SECONDS`].
    pub join_cooldown_seconds: u64,
    /// Seconds after which a node joins again, give or take a quarter, 60 to 30 days. Defaults to
    /// [`DEFAULT_JOIN_INTERVAL_SECONDS`].
    pub join_interval_seconds: u64,
    /// Whether peers are asked for peers. Defaults to true.
    pub sync: bool,
    /// Seconds between getting online and the first request for peers, up to a day. Defaults to 0.
    pub initial_sync_delay_seconds: u64,
    /// Known peers below which a node goes on asking for more, up to 65 536. Defaults to [`DEFAULT_MIN_DESIRED_PEERS`].
    pub min_desired_peers: usize,
    /// Seconds without a round of requests, 1 to 30 days; then peers may be asked again. Defaults to
    /// [`DEFAULT_IDLE_SECONDS`].
    pub idle_seconds: u64,
    /// Rounds after which a node waits, at least 1. Defaults to [`DEFAULT_IDLE_AFTER_ROUNDS`].
    pub idle_after_rounds: u32,
    /// Seconds that a node waits after a round that failed, 1 to a day. Defaults to [`DEFAULT_FAILURE_IDLE_SECONDS`].
    pub failure_idle_seconds: u64,
    /// Peers that one round asks, 1 to 100. Defaults to [`DEFAULT_MAX_SYNC_PEERS`].
    pub max_sync_peers: usize,
    /// Peers that one round asks each of them for, 1 to 500. Defaults to [`DEFAULT_MAX_PEERS_PER_ROUND`].
    pub max_peers_per_round: u32,
    /// Seconds between two requests to one peer for the reason that it connected, 1 to a day. Defaults to
    /// [`DEFAULT_SYNC_AGAIN_SECONDS`].
    pub sync_again_seconds: u64,
    /// Seconds between two dials that test a peer of which this node has only heard, as long as they connect, up to a day; up to 32
    /// times as many if they fail; 0 for none. Defaults to [`DEFAULT_FEELER_SECONDS`].
    pub feeler_seconds: u64,
    /// Connected nodes from which on this node is online, 1 to 1 000; with fewer it is degraded. Defaults to
    /// [`DEFAULT_MIN_CONNECTED`].
    pub min_connected: usize,
    /// Seconds between two looks at the pools without any event, 1 to a day. Defaults to [`DEFAULT_UPDATE_SECONDS`].
    pub update_seconds: u64,
    /// Share of connected nodes that have an IPv4 address, 0 to 100 percent, below which a warning is logged. Defaults to
    /// [`DEFAULT_MIN_IPV4_PERCENT`].
    pub min_ipv4_percent: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            neighbours: DEFAULT_NEIGHBOURS,
            random_peers: DEFAULT_RANDOM_PEERS,
            max_per_network: DEFAULT_MAX_PER_NETWORK,
            random_refresh_seconds: DEFAULT_RANDOM_REFRESH_SECONDS,
            minimize_connections: false,
            auto_join: true,
            join_cooldown_seconds: DEFAULT_JOIN_COOLDOWN_SECONDS,
            join_interval_seconds: DEFAULT_JOIN_INTERVAL_SECONDS,
            sync: true,
            initial_sync_delay_seconds: 0,
            min_desired_peers: DEFAULT_MIN_DESIRED_PEERS,
            idle_seconds: DEFAULT_IDLE_SECONDS,
            idle_after_rounds: DEFAULT_IDLE_AFTER_ROUNDS,
            failure_idle_seconds: DEFAULT_FAILURE_IDLE_SECONDS,
            max_sync_peers: DEFAULT_MAX_SYNC_PEERS,
            max_peers_per_round: DEFAULT_MAX_PEERS_PER_ROUND,
            sync_again_seconds: DEFAULT_SYNC_AGAIN_SECONDS,
            feeler_seconds: DEFAULT_FEELER_SECONDS,
            min_connected: DEFAULT_MIN_CONNECTED,
            update_seconds: DEFAULT_UPDATE_SECONDS,
            min_ipv4_percent: DEFAULT_MIN_IPV4_PERCENT,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        const DAY: u64 = 24 * 60 * 60;
        const MONTH: u64 = 30 * DAY;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let check = OutOfRange::check;
        check("overlay.neighbours", count(self.neighbours), 1..=100)?;
        check("overlay.random_peers", count(self.random_peers), 0..=100)?;
        let per_network = count(self.max_per_network);
        check("overlay.max_per_network", per_network, 1..=100)?;
        let refresh = self.random_refresh_seconds;
        check("overlay.random_refresh_seconds", refresh, 60..=MONTH)?;
        let cooldown = self.join_cooldown_seconds;
        check("overlay.join_cooldown_seconds", cooldown, 0..=DAY)?;
        let interval = self.join_interval_seconds;
        check("overlay.join_interval_seconds", interval, 60..=MONTH)?;
        let delay = self.initial_sync_delay_seconds;
        check("overlay.initial_sync_delay_seconds", delay, 0..=DAY)?;
        check("overlay.idle_seconds", self.idle_seconds, 1..=MONTH)?;
        let rounds = self.idle_after_rounds.into();
        check("overlay.idle_after_rounds", rounds, 1..=u32::MAX.into())?;
        let desired = count(self.min_desired_peers);
        check("overlay.min_desired_peers", desired, 0..=1 << 16)?;
        let failure = self.failure_idle_seconds;
        check("overlay.failure_idle_seconds", failure, 1..=DAY)?;
        let asked = count(self.max_sync_peers);
        check("overlay.max_sync_peers", asked, 1..=100)?;
        let (told, most) = (self.max_peers_per_round.into(), count(MAX_TOLD_PEERS));
        check("overlay.max_peers_per_round", told, 1..=most)?;
        let again = self.sync_again_seconds;
        check("overlay.sync_again_seconds", again, 1..=DAY)?;
        check("overlay.feeler_seconds", self.feeler_seconds, 0..=DAY)?;
        let connected = count(self.min_connected);
        check("overlay.min_connected", connected, 1..=1_000)?;
        check("overlay.update_seconds", self.update_seconds, 1..=DAY)?;
        check("overlay.min_ipv4_percent", self.min_ipv4_percent, 0..=100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let config = Config {
            neighbours: 0,
            ..Config::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("overlay.neighbours is 0"), "{error}");
        let unknown = toml::from_str::<Config>("neighbors = 8").unwrap_err();
        assert!(unknown.to_string().contains("`neighbours`"), "{unknown}");
    }
}
