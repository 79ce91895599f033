//! Settings of the outbound side: specification 04, section 10.

use dht_core::{Cause, OutOfRange, ProtocolVersion};
use serde::{Deserialize, Serialize};

/// Nodes a broadcast goes to. Each of them passes the message on, so this is the degree of the gossip graph: below
/// 4 or so messages get lost when nodes fail, above it only the number of duplicates grows.
pub const BROADCAST_FACTOR: usize = 8;

/// Nodes a message without a destination is propagated to.
pub const PROPAGATION_FACTOR: usize = 20;

/// Connected nodes closest to a destination that a message to it is handed to; the size of a neighbourhood.
pub const NEIGHBOURING_NODES: usize = 8;

/// Peers one request may name or draw from the directory: each may have to be dialled, so a request without a bound
/// would be a way to make a node dial every peer it knows.
pub const MAX_DIALLED: usize = 256;

/// Seconds until a message loses its meaning: 3 hours. Relays drop it afterwards; must stay below the time their
/// duplicate tables remember it (3 h 10 min).
pub const MESSAGE_VALIDITY_SECONDS: u64 = 3 * 60 * 60;

/// Longest such time in seconds: relays remember a message for as long.
const MAX_VALIDITY_SECONDS: u64 = MESSAGE_VALIDITY_SECONDS + 10 * 60;

/// Seconds to find an unknown recipient and send to it.
pub const DISCOVERY_SECONDS: u64 = 120;

/// Seconds one request may spend in the pipeline, discovery and waiting for room not included.
pub const PIPELINE_SECONDS: u64 = 10;

/// Requests admitted at one time: queued, or on their way to the queues of their peers. Applications wait for room; the
/// other parts of the node are refused. Enough that a burst of one inbound worker's messages fits.
pub const MAX_REQUESTS: usize = 1_024;

/// Bytes of the messages admitted at one time (law 2): four of the largest.
pub const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Callers waiting for room at one time; more are refused. Each waits with its own message.
pub const MAX_WAITING: usize = 16_384;

/// Requests waiting for a discovery at one time; more fail at once. They hold no room.
pub const MAX_SEARCHING: usize = 64;

/// Requests whose delivery is watched for the part of the node that asked, at one time; more are refused. Each cause has
/// its share of them, as of the room, and control has some for itself.
pub const MAX_REPORTS: usize = 512;

/// Fraction of the room that requests of each [`Cause`] may have, so that none keeps the others out. Gossip is passed on
/// only in what applications and answers leave.
pub(crate) const fn share(cause: Cause) -> f64 {
    match cause {
        Cause::Application | Cause::StoredAnswer => 0.75,
        Cause::Forward => 0.5,
        _ => 0.25,
    }
}

/// Settings of the outbound side.
///
/// Specification 04, section 10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How strategies choose peers.
    pub select: SelectConfig,
    /// Lifetime of messages in seconds, 60 to 11 400; defaults to [`MESSAGE_VALIDITY_SECONDS`].
    pub validity_seconds: u64,
    /// Version in the header; the network's unless a test sets another. Not read from files.
    #[serde(skip)]
    pub version: ProtocolVersion,
    /// Seconds; defaults to [`DISCOVERY_SECONDS`]. Not read from files: it is a setting of the node.
    #[serde(skip)]
    pub discovery_seconds: u64,
    /// Seconds, 1 to 3 600; defaults to [`PIPELINE_SECONDS`].
    pub pipeline_seconds: u64,
    /// Requests, 1 to 65 536; defaults to [`MAX_REQUESTS`].
    pub max_requests: usize,
    /// Bytes, 8 MiB, one message, to 1 TiB; defaults to [`MAX_REQUEST_BYTES`].
    pub max_request_bytes: usize,
    /// Callers, 0 to 1 048 576; defaults to [`MAX_WAITING`].
    pub max_waiting: usize,
    /// Requests, 0 to 65 536; defaults to [`MAX_SEARCHING`].
    pub max_searching: usize,
    /// Requests, 1 to 65 536; defaults to [`MAX_REPORTS`].
    pub max_reports: usize,
}

/// Settings of peer selection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectConfig {
    /// Nodes that a broadcast goes to, 1 to 1 000; defaults to [`BROADCAST_FACTOR`].
    pub broadcast_factor: usize,
    /// Nodes that a message without a destination goes to, 1 to 1 000; defaults to [`PROPAGATION_FACTOR`].
    pub propagation_factor: usize,
    /// Connected nodes that a message for a destination goes to, 1 to 1 000; defaults to [`NEIGHBOURING_NODES`].
    pub neighbouring_nodes: usize,
    /// Peers that one request may name or draw from the directory, 1 to 65 536; defaults to [`MAX_DIALLED`].
    pub max_dialled: usize,
    /// Whether propagation prefers nodes closer to the destination than this one; defaults to the network's rule.
    pub propagation: PropagationRule,
}

/// Which of the connected nodes closest to a destination get a message for it.
///
/// 04 section 3 and F-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PropagationRule {
    /// The rule of the network: nodes farther than this one are left out only if at least
    /// [`SelectConfig::propagation_factor`] candidates exist, which with default factors never happens.
    #[default]
    Legacy,
    /// If any candidate is closer to the destination than this node, only those.
    PreferCloser,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            select: SelectConfig::default(),
            validity_seconds: MESSAGE_VALIDITY_SECONDS,
            version: ProtocolVersion::default(),
            discovery_seconds: DISCOVERY_SECONDS,
            pipeline_seconds: PIPELINE_SECONDS,
            max_requests: MAX_REQUESTS,
            max_request_bytes: MAX_REQUEST_BYTES,
            max_waiting: MAX_WAITING,
            max_searching: MAX_SEARCHING,
            max_reports: MAX_REPORTS,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let check = |key, value: usize, range| OutOfRange::check(key, value as u64, range);
        let select = &self.select;
        let (broadcast, propagation) = (select.broadcast_factor, select.propagation_factor);
        let nodes = select.neighbouring_nodes;
        check("outbound.select.broadcast_factor", broadcast, 1..=1_000)?;
        check("outbound.select.propagation_factor", propagation, 1..=1_000)?;
        check("outbound.select.neighbouring_nodes", nodes, 1..=1_000)?;
        check(
            "outbound.select.max_dialled",
            select.max_dialled,
            1..=1 << 16,
        )?;
        let (validity, pipeline) = (self.validity_seconds, self.pipeline_seconds);
        OutOfRange::check(
            "outbound.validity_seconds",
            validity,
            60..=MAX_VALIDITY_SECONDS,
        )?;
        OutOfRange::check("outbound.pipeline_seconds", pipeline, 1..=3_600)?;
        let bytes = self.max_request_bytes;
        check("outbound.max_requests", self.max_requests, 1..=1 << 16)?;
        check("outbound.max_request_bytes", bytes, (8 << 20)..=1 << 40)?;
        check("outbound.max_waiting", self.max_waiting, 0..=1 << 20)?;
        check("outbound.max_searching", self.max_searching, 0..=1 << 16)?;
        check("outbound.max_reports", self.max_reports, 1..=1 << 16)
    }
}

impl Default for SelectConfig {
    fn default() -> Self {
        Self {
            broadcast_factor: BROADCAST_FACTOR,
            propagation_factor: PROPAGATION_FACTOR,
            neighbouring_nodes: NEIGHBOURING_NODES,
            max_dialled: MAX_DIALLED,
            propagation: PropagationRule::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_settings_have_defaults() {
        let config: Config =
            serde_json::from_str(r#"{"select": {"broadcast_factor": 3}, "max_waiting": 7}"#)
                .unwrap();
        let expected = Config {
            max_waiting: 7,
            select: SelectConfig {
                broadcast_factor: 3,
                ..SelectConfig::default()
            },
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert!(serde_json::from_str::<Config>(r#"{"max_wating": 7}"#).is_err());
        assert_eq!(config.validate(), Ok(()));
        let wrong = Config {
            validity_seconds: 12_000,
            ..config
        };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "outbound.validity_seconds is 12000, which is not in the range 60 to 11400"
        );
    }
}
