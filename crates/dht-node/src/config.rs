//! Settings of a node, as plain data.

use dht_core::{Address, Network, PeerAddress};
use dht_inbound::{
    AttributionProfile, DEFAULT_ALLOWED_OCCURRENCES, DEFAULT_FLOOD_MESSAGES, DEFAULT_FLOOD_SECONDS,
};
use dht_outbound::DISCOVERY_TIMEOUT;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::RateSettings;

/// Memory for messages of other peers, in MiB (law 2): three quarters for what arrives, an eighth for what sockets
/// brought and nobody read yet, which has 4 MiB at least, and an eighth for what waits to be sent, which has 16 MiB at
/// least. Enough for twenty of the largest messages; a flood beyond it is held back at the sockets.
pub const DEFAULT_MEMORY_MIB: usize = 256;

/// Where a node listens unless told otherwise: the port the network's own nodes use.
pub const DEFAULT_LISTEN: &str = "/ip4/127.0.0.1/tcp/18189";

/// Settings of a node; see `dht-node config default` for the file with every default.
///
/// ```
/// use dht_node::Config;
///
/// let config: Config = toml::from_str("network = 'esmeralda'")?;
/// assert_eq!(config.network.to_string(), "esmeralda");
/// assert!(toml::from_str::<Config>("netwrok = 'esmeralda'").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which network to join, by name.
    #[serde(serialize_with = "show", deserialize_with = "parse")]
    pub network: Network,
    /// Addresses to listen on; none makes a node that only dials.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub listen: Vec<Address>,
    /// Addresses to tell others; empty = the addresses listened on.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub public_addresses: Vec<Address>,
    /// Peers to connect to at start, as `KEY::ADDRESS`.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub peers: Vec<PeerAddress>,
    /// Memory for messages of other peers, in MiB. Defaults to [`DEFAULT_MEMORY_MIB`].
    pub memory_mib: usize,
    /// Time to find an unknown recipient, connect and send to it, in seconds. Defaults to 120.
    pub discovery_seconds: u64,
    /// How often a message may arrive and still be delivered; more than once only lets an application pass
    /// undirected messages on again. Defaults to 1.
    pub allowed_occurrences: u32,
    /// Whom to blame for bad messages: `strict`, which bans only for what is proven, or `legacy`, which bans as the
    /// network's first nodes do. Defaults to strict.
    #[serde(serialize_with = "show", deserialize_with = "parse")]
    pub attribution: AttributionProfile,
    /// Messages a peer may send within [`flood_seconds`](Self::flood_seconds) before it is banned for ten minutes.
    /// Defaults to [`DEFAULT_FLOOD_MESSAGES`].
    pub flood_messages: u32,
    /// Seconds in which they count. Defaults to [`DEFAULT_FLOOD_SECONDS`].
    pub flood_seconds: u64,
    /// Whether a node that keeps mail for others also passes on what it cannot read. Defaults to true.
    pub forward: bool,
    /// Whether gossip the application accepts is passed on byte for byte. Off by default: that is the
    /// application's business.
    pub relay_gossip: bool,
    /// How much of each kind one neighbour may send.
    pub rates: RateSettings,
    /// Mail for peers that are away.
    #[cfg(feature = "saf")]
    pub saf: crate::SafSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::LocalNet,
            listen: DEFAULT_LISTEN.parse().into_iter().collect(),
            public_addresses: Vec::new(),
            peers: Vec::new(),
            memory_mib: DEFAULT_MEMORY_MIB,
            discovery_seconds: DISCOVERY_TIMEOUT.as_secs(),
            allowed_occurrences: DEFAULT_ALLOWED_OCCURRENCES,
            attribution: AttributionProfile::default(),
            flood_messages: DEFAULT_FLOOD_MESSAGES,
            flood_seconds: DEFAULT_FLOOD_SECONDS,
            forward: true,
            relay_gossip: false,
            rates: RateSettings::default(),
            #[cfg(feature = "saf")]
            saf: crate::SafSettings::default(),
        }
    }
}

fn show<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn show_all<S: Serializer>(values: &[impl ToString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

fn parse<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

fn parse_all<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| text.parse().map_err(D::Error::custom))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_round_trip() {
        let text = toml::to_string(&Config::default()).unwrap();
        let back: Config = toml::from_str(&text).unwrap();
        assert_eq!(back.listen, Config::default().listen);
        assert_eq!(back.memory_mib, DEFAULT_MEMORY_MIB);
        assert_eq!(back.rates, RateSettings::default());
        assert!(back.forward);
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let error = toml::from_str::<Config>("lisen = []")
            .unwrap_err()
            .to_string();
        assert!(error.contains("listen"), "{error}");
        let error = toml::from_str::<Config>("network = 'mars'")
            .unwrap_err()
            .to_string();
        assert!(error.contains("esmeralda"), "{error}");
        let error = toml::from_str::<Config>("attribution = 'harsh'")
            .unwrap_err()
            .to_string();
        assert!(error.contains("strict"), "{error}");
        let error = toml::from_str::<Config>("[rates]\njoins = { per_second = 1 }")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`join`"), "{error}");
        let error = toml::from_str::<Config>("[rates]\njoin = { per_second = 0 }")
            .unwrap_err()
            .to_string();
        assert!(error.contains("nonzero"), "{error}");
    }
}
