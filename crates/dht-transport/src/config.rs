//! Settings of a transport.

use std::time::Duration;

use crate::{IdentityRules, limits};

/// Settings; each defaults to the constant of [`limits`] it names.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How identities are judged. Defaults to version 0 without test addresses.
    pub identity: IdentityRules,
    /// [`limits::WIRE_BYTE_TIMEOUT`].
    pub wire_byte_timeout: Duration,
    /// [`limits::UPGRADE_TIMEOUT`].
    pub upgrade_timeout: Duration,
    /// [`limits::CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// [`limits::DIAL_STAGGER`].
    pub dial_stagger: Duration,
    /// [`limits::MAX_HANDSHAKES`].
    pub max_handshakes: usize,
    /// [`limits::MAX_HANDSHAKES_PER_SOURCE`].
    pub max_handshakes_per_source: usize,
    /// [`limits::MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// [`limits::MAX_CONNECTIONS_PER_SOURCE`].
    pub max_connections_per_source: usize,
    /// Whether the limits per source leave out loopback and memory connections. On by default: there may be
    /// a proxy, and many nodes on one machine are a test.
    pub exempt_local: bool,
    /// Liveness sessions at once. 0 by default: such sockets are closed.
    pub liveness_sessions: usize,
    /// [`limits::MAX_INBOUND_STREAMS`].
    pub max_inbound_streams: usize,
    /// [`limits::MAX_UNREAD_BYTES_TOTAL`].
    pub max_unread_bytes_total: usize,
    /// [`limits::MAX_QUEUED_MESSAGES`].
    pub max_queued_messages: usize,
    /// [`limits::MAX_QUEUED_BYTES`].
    pub max_queued_bytes: usize,
    /// [`limits::MAX_QUEUED_BYTES_TOTAL`].
    pub max_queued_bytes_total: usize,
    /// [`limits::MESSAGE_LIFETIME`].
    pub message_lifetime: Duration,
    /// [`limits::WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// [`limits::INBOUND_CHANNEL_MESSAGES`].
    pub inbound_channel: usize,
    /// [`limits::EVENT_CHANNEL_EVENTS`].
    pub event_channel: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: IdentityRules::default(),
            wire_byte_timeout: limits::WIRE_BYTE_TIMEOUT,
            upgrade_timeout: limits::UPGRADE_TIMEOUT,
            connect_timeout: limits::CONNECT_TIMEOUT,
            dial_stagger: limits::DIAL_STAGGER,
            max_handshakes: limits::MAX_HANDSHAKES,
            max_handshakes_per_source: limits::MAX_HANDSHAKES_PER_SOURCE,
            max_connections: limits::MAX_CONNECTIONS,
            max_connections_per_source: limits::MAX_CONNECTIONS_PER_SOURCE,
            exempt_local: true,
            liveness_sessions: 0,
            max_inbound_streams: limits::MAX_INBOUND_STREAMS,
            max_unread_bytes_total: limits::MAX_UNREAD_BYTES_TOTAL,
            max_queued_messages: limits::MAX_QUEUED_MESSAGES,
            max_queued_bytes: limits::MAX_QUEUED_BYTES,
            max_queued_bytes_total: limits::MAX_QUEUED_BYTES_TOTAL,
            message_lifetime: limits::MESSAGE_LIFETIME,
            write_timeout: limits::WRITE_TIMEOUT,
            inbound_channel: limits::INBOUND_CHANNEL_MESSAGES,
            event_channel: limits::EVENT_CHANNEL_EVENTS,
        }
    }
}
