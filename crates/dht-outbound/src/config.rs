//! Numbers of the outbound pipeline: specification 04, section 10.

use std::time::Duration;

use dht_core::{Address, ProtocolVersion};

/// Nodes a broadcast goes to. Each of them passes the message on, so this is the degree of the gossip graph: below
/// 4 or so messages get lost when nodes fail, above it only the number of duplicates grows.
pub const BROADCAST_FACTOR: usize = 8;

/// Nodes a message without a destination is propagated to.
pub const PROPAGATION_FACTOR: usize = 20;

/// Connected nodes closest to a destination that a message to it is handed to; the size of a neighbourhood.
pub const NEIGHBOURING_NODES: usize = 8;

/// Peers one request may name or draw from the directory: each may have to be dialled, so a request without a bound
/// would be a way to make a node dial everybody it knows.
pub const MAX_DIALLED: usize = 256;

/// Seconds until a message loses its meaning: 3 hours. Relays drop it afterwards; must stay below the time their
/// duplicate tables remember it (3 h 10 min).
pub const MESSAGE_VALIDITY_SECONDS: u64 = 3 * 60 * 60;

/// Time to find an unknown recipient and send to it.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// Time one request may spend in the pipeline, discovery not included.
pub const PIPELINE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests waiting for the pipeline; whoever sends more waits.
pub const QUEUE_REQUESTS: usize = 20;

/// Bytes of messages queued or in the pipeline at one time (law 2): four of the largest.
pub const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Requests in the pipeline at one time.
pub const MAX_CONCURRENT: usize = 64;

/// Requests whose delivery is reported under way at one time.
pub const MAX_REPORTS: usize = 512;

/// Requests waiting for a discovery at one time; more fail at once.
pub const MAX_PARKED: usize = 64;

/// Settings of the outbound pipeline.
///
/// Specification 04, section 10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundConfig {
    /// Whom strategies choose.
    pub select: SelectConfig,
    /// Lifetime of messages in seconds; defaults to [`MESSAGE_VALIDITY_SECONDS`].
    pub validity_seconds: u64,
    /// Version in the header; defaults to 2.
    pub version: ProtocolVersion,
    /// Defaults to [`DISCOVERY_TIMEOUT`].
    pub discovery_timeout: Duration,
}

/// Settings of peer selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectConfig {
    /// Defaults to [`BROADCAST_FACTOR`].
    pub broadcast_factor: usize,
    /// Defaults to [`PROPAGATION_FACTOR`].
    pub propagation_factor: usize,
    /// Defaults to [`NEIGHBOURING_NODES`].
    pub neighbouring_nodes: usize,
    /// Defaults to [`MAX_DIALLED`].
    pub max_dialled: usize,
    /// Whether propagation prefers nodes closer to the destination than this one; defaults to the network's rule.
    pub propagation: PropagationRule,
    /// Peers that can only be reached at these addresses are not chosen, unless connected. None by default.
    pub excluded_dial_addresses: Vec<Address>,
}

/// Which of the connected nodes closest to a destination get a message for it.
///
/// Specification 04, section 3; F-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PropagationRule {
    /// What the network does: nodes farther than this one are left out only if at least
    /// [`SelectConfig::propagation_factor`] candidates exist, which with default factors never happens.
    #[default]
    Legacy,
    /// If any candidate is closer to the destination than this node, only those.
    PreferCloser,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            select: SelectConfig::default(),
            validity_seconds: MESSAGE_VALIDITY_SECONDS,
            version: ProtocolVersion::default(),
            discovery_timeout: DISCOVERY_TIMEOUT,
        }
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
            excluded_dial_addresses: Vec::new(),
        }
    }
}
