//! Settings of a transport.

#[cfg(feature = "socks")]
use std::net::SocketAddr;
use std::time::Duration;

use dht_core::{Address, OutOfRange};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

#[cfg(feature = "socks")]
use crate::medium::ProxyFor;
use crate::{
    connection::IdentityRules,
    limits::{self, EVICTION_OVERLAP, MOST_INBOUND_STREAMS, OUTBOUND_RESERVE},
};

/// Settings; each defaults to the constant of [`limits`] it names. In a file, times are in milliseconds, and their keys
/// end in `_ms`.
///
/// Values out of range are refused by [`Config::validate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Rules for the identities of peers. Defaults to version 0 without test addresses. Not read from files.
    #[serde(skip)]
    pub identity: IdentityRules,
    /// [`limits::WIRE_BYTE_TIMEOUT`], 1 ms to 1 h.
    #[serde(rename = "wire_byte_timeout_ms", with = "millis")]
    pub wire_byte_timeout: Duration,
    /// [`limits::UPGRADE_TIMEOUT`], 1 ms to 1 h.
    #[serde(rename = "upgrade_timeout_ms", with = "millis")]
    pub upgrade_timeout: Duration,
    /// [`limits::CONNECT_TIMEOUT`], 1 ms to 1 h.
    #[serde(rename = "connect_timeout_ms", with = "millis")]
    pub connect_timeout: Duration,
    /// SOCKS5 proxy through which peers are dialled, as `127.0.0.1:9050`; none by default, and onion addresses are
    /// dialled through no other.
    #[cfg(feature = "socks")]
    #[serde(with = "optional_address")]
    pub proxy: Option<SocketAddr>,
    /// Addresses that are dialled through the proxy: `all`, `names` (with onion addresses) or `onion`. All by default.
    #[cfg(feature = "socks")]
    pub proxy_for: ProxyFor,
    /// [`limits::PROXY_CONNECT_TIMEOUT`], 1 ms to 1 h; in place of the other for addresses dialled through the proxy.
    #[cfg(feature = "socks")]
    #[serde(rename = "proxy_connect_timeout_ms", with = "millis")]
    pub proxy_connect_timeout: Duration,
    /// [`limits::DIAL_STAGGER`], 0 to 1 h.
    #[serde(rename = "dial_stagger_ms", with = "millis")]
    pub dial_stagger: Duration,
    /// [`limits::MAX_HANDSHAKES`], 1 to 65 536.
    pub max_handshakes: usize,
    /// [`limits::MAX_HANDSHAKES_PER_SOURCE`], 1 to 65 536.
    pub max_handshakes_per_source: usize,
    /// [`limits::MAX_CONNECTIONS`], 1 to 65 536. See [`fit`](Self::fit).
    pub max_connections: usize,
    /// [`limits::MAX_CONNECTIONS_PER_SOURCE`], 1 to 65 536.
    pub max_connections_per_source: usize,
    /// Ranges of IP addresses, as `10.0.0.0/8`, whose connections and handshakes are not limited by source: NAT gateways and
    /// networks of one's own. At most 1 024. By default loopback and the ranges that no packet of the internet comes from
    /// ([`limits::TRUSTED_SOURCES`]). A public address in it keeps its group for every other limit; a private one has none, and
    /// each key counts for itself. Where peers come from a private address, as behind a proxy or the port forwarding of a
    /// container, list only what is really one's own, or nothing: they are then one group.
    #[serde(deserialize_with = "ranges")]
    pub trusted_sources: Vec<IpNet>,
    /// Liveness sessions at once, 0 to 1 024. 0 by default: such sockets are closed.
    pub liveness_sessions: usize,
    /// Ranges of IP addresses that may have liveness sessions, at most 1 024. Loopback by default.
    #[serde(deserialize_with = "ranges")]
    pub liveness_sources: Vec<IpNet>,
    /// [`limits::MAX_INBOUND_STREAMS`], 1 to [`limits::MOST_INBOUND_STREAMS`].
    pub max_inbound_streams: usize,
    /// [`limits::MAX_UNREAD_BYTES_TOTAL`]. Not read from files: a node derives it from its memory.
    #[serde(skip)]
    pub max_unread_bytes_total: usize,
    /// [`limits::MAX_QUEUED_MESSAGES`], 1 to 65 536.
    pub max_queued_messages: usize,
    /// [`limits::MAX_QUEUED_BYTES`], 8 MiB, one frame, to 1 TiB.
    pub max_queued_bytes: usize,
    /// [`limits::MAX_QUEUED_BYTES_TOTAL`]. Not read from files: a node derives it from its memory.
    #[serde(skip)]
    pub max_queued_bytes_total: usize,
    /// [`limits::MESSAGE_LIFETIME`], 1 ms to 1 h.
    #[serde(rename = "message_lifetime_ms", with = "millis")]
    pub message_lifetime: Duration,
    /// [`limits::WRITE_TIMEOUT`], 1 ms to 1 h.
    #[serde(rename = "write_timeout_ms", with = "millis")]
    pub write_timeout: Duration,
    /// [`limits::INBOUND_CHANNEL_MESSAGES`], 1 to 65 536.
    pub inbound_channel: usize,
    /// [`limits::EVENT_CHANNEL_EVENTS`], 1 to 65 536.
    pub event_channel: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: IdentityRules::default(),
            wire_byte_timeout: limits::WIRE_BYTE_TIMEOUT,
            upgrade_timeout: limits::UPGRADE_TIMEOUT,
            connect_timeout: limits::CONNECT_TIMEOUT,
            #[cfg(feature = "socks")]
            proxy: None,
            #[cfg(feature = "socks")]
            proxy_for: ProxyFor::default(),
            #[cfg(feature = "socks")]
            proxy_connect_timeout: limits::PROXY_CONNECT_TIMEOUT,
            dial_stagger: limits::DIAL_STAGGER,
            max_handshakes: limits::MAX_HANDSHAKES,
            max_handshakes_per_source: limits::MAX_HANDSHAKES_PER_SOURCE,
            max_connections: limits::MAX_CONNECTIONS,
            max_connections_per_source: limits::MAX_CONNECTIONS_PER_SOURCE,
            trusted_sources: limits::TRUSTED_SOURCES.to_vec(),
            liveness_sessions: 0,
            liveness_sources: limits::LOOPBACK.to_vec(),
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

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        const HOUR_MS: u64 = 60 * 60 * 1_000;
        let time = |key, value: Duration, least| {
            let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
            OutOfRange::check(key, ms, least..=HOUR_MS)
        };
        let count = |key, value: usize| OutOfRange::check(key, value as u64, 1..=1 << 16);
        time("transport.wire_byte_timeout_ms", self.wire_byte_timeout, 1)?;
        time("transport.upgrade_timeout_ms", self.upgrade_timeout, 1)?;
        time("transport.connect_timeout_ms", self.connect_timeout, 1)?;
        #[cfg(feature = "socks")]
        time(
            "transport.proxy_connect_timeout_ms",
            self.proxy_connect_timeout,
            1,
        )?;
        time("transport.dial_stagger_ms", self.dial_stagger, 0)?;
        time("transport.message_lifetime_ms", self.message_lifetime, 1)?;
        time("transport.write_timeout_ms", self.write_timeout, 1)?;
        count("transport.max_handshakes", self.max_handshakes)?;
        let (handshakes, connections) = (
            self.max_handshakes_per_source,
            self.max_connections_per_source,
        );
        count("transport.max_handshakes_per_source", handshakes)?;
        count("transport.max_connections", self.max_connections)?;
        count("transport.max_connections_per_source", connections)?;
        let (liveness, streams) = (
            self.liveness_sessions as u64,
            self.max_inbound_streams as u64,
        );
        OutOfRange::check("transport.liveness_sessions", liveness, 0..=1_024)?;
        let ranges = |key, ranges: &[IpNet]| OutOfRange::check(key, ranges.len() as u64, 0..=1_024);
        ranges("transport.trusted_sources", &self.trusted_sources)?;
        ranges("transport.liveness_sources", &self.liveness_sources)?;
        let most = MOST_INBOUND_STREAMS as u64;
        OutOfRange::check("transport.max_inbound_streams", streams, 1..=most)?;
        count("transport.max_queued_messages", self.max_queued_messages)?;
        let bytes = self.max_queued_bytes as u64;
        OutOfRange::check("transport.max_queued_bytes", bytes, (8 << 20)..=1 << 40)?;
        count("transport.inbound_channel", self.inbound_channel)?;
        count("transport.event_channel", self.event_channel)
    }
}

impl Config {
    /// Lowers `max_connections` and `max_handshakes` to what this many sockets are enough for, both at least 1. `None` if they
    /// are enough, else how many the settings need. Out of sockets, a node can accept nobody, while one that holds as many
    /// connections as it may closes the least useful for another.
    pub fn fit(&mut self, sockets: usize) -> Option<usize> {
        let above = OUTBOUND_RESERVE + EVICTION_OVERLAP;
        let needed = (self.max_connections + above).saturating_add(self.max_handshakes);
        if needed <= sockets {
            return None;
        }
        self.max_handshakes = self.max_handshakes.min(sockets / 4).max(1);
        let left = sockets.saturating_sub(self.max_handshakes + above);
        self.max_connections = self.max_connections.min(left).max(1);
        Some(needed)
    }

    /// Whether names go to the proxy, so that this machine must look up none by itself.
    #[cfg(feature = "socks")]
    #[must_use]
    pub fn proxies_names(&self) -> bool {
        self.proxy.is_some() && self.proxy_for != ProxyFor::Onion
    }

    /// Time in which a socket to this address must be open.
    #[cfg_attr(not(feature = "socks"), expect(unused_variables))]
    pub(crate) fn connect_limit(&self, address: &Address) -> Duration {
        #[cfg(feature = "socks")]
        if self.proxy.is_some() && self.proxy_for.covers(address) {
            return self.proxy_connect_timeout;
        }
        self.connect_timeout
    }
}

/// Reads and writes an address that may be missing, which is the empty text, so that every setting has a default that can be
/// shown: for `#[serde(with = "…")]`.
#[cfg(feature = "socks")]
pub mod optional_address {
    use std::net::SocketAddr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes the address, or the empty text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = address.map(|address| address.to_string());
        to.serialize_str(&text.unwrap_or_default())
    }

    /// Reads an address with its port, or the empty text.
    ///
    /// # Errors
    /// A text that is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let text = text.escape_debug();
            D::Error::custom(format_args!(
                "`{text}` is not an address with port, as in 127.0.0.1:9050"
            ))
        })
    }
}

/// Reads ranges of IP addresses.
fn ranges<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let wrong = |text: &str| {
        let text = text.escape_debug();
        D::Error::custom(format_args!(
            "`{text}` is not a range of IP addresses, as in 10.0.0.0/8 or 2001:db8::/32"
        ))
    };
    let ranges = texts
        .iter()
        .map(|text| text.parse().map_err(|_| wrong(text)));
    ranges.collect()
}

/// Times as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis())
            .unwrap_or(u64::MAX)
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_sockets() {
        let fitted = |sockets| {
            let mut config = Config::default();
            let needed = config.fit(sockets);
            (needed, config.max_connections, config.max_handshakes)
        };
        assert_eq!(fitted(648), (None, 500, 100));
        assert_eq!(fitted(647), (Some(648), 499, 100));
        assert_eq!(fitted(200), (Some(648), 102, 50));
        assert_eq!(fitted(0), (Some(648), 1, 1));
    }

    #[test]
    fn settings_are_read_and_checked() {
        let text = r#"{"max_connections": 7, "connect_timeout_ms": 1500, "trusted_sources": ["10.1.0.0/16"]}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let expected = Config {
            max_connections: 7,
            connect_timeout: Duration::from_millis(1500),
            trusted_sources: vec!["10.1.0.0/16".parse().unwrap()],
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert_eq!(config.validate(), Ok(()));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        assert!(serde_json::from_str::<Config>(r#"{"max_conections": 7}"#).is_err());
        let error = serde_json::from_str::<Config>(r#"{"liveness_sources": ["10.1.0.0/33"]}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("`10.1.0.0/33` is not a range"), "{error}");
        let wrong = Config {
            max_inbound_streams: 49,
            ..Config::default()
        };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "transport.max_inbound_streams is 49, which is not in the range 1 to 48"
        );
    }
}
