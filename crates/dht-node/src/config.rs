//! Settings of a node as plain data.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dht_core::{
    Address, AddressPolicy, ClaimError, Features, Host, Network, OutOfRange, PeerAddress, PublicKey,
};
use dht_inbound::{
    DEFAULT_ALLOWED_OCCURRENCES, DEFAULT_FLOOD_MESSAGES, DEFAULT_FLOOD_SECONDS, RateLimits,
};
use dht_outbound::DISCOVERY_SECONDS;
use dht_peers::{ClaimPolicy, policy::AttributionProfile};
use dht_proto::limits::MAX_CLAIM_ADDRESSES;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::config_error::ConfigError;

/// Memory for messages, in MiB (law 2): eleven sixteenths for inbound messages and peer-sync sessions, a sixteenth for the
/// peer directory, an eighth and at least 4 MiB for bytes that no stream has read yet, an eighth and at least 16 MiB for
/// queued outbound messages. Enough for twenty of the largest messages; peers that send more are held back at their
/// sockets.
pub const DEFAULT_MEMORY_MIB: usize = 256;

/// Address that a node listens on by default: loopback, with the port of stock nodes.
pub const DEFAULT_LISTEN: &str = "/ip4/127.0.0.1/tcp/18189";

/// Most seeds in the settings of a node: the peers that the operator named leave the directory for no others.
pub const MAX_CONFIGURED_SEEDS: usize = 100;

/// Bytes of all public addresses: an identity has 1 024, of which its other fields take less than a quarter.
const MAX_PUBLIC_BYTES: usize = 768;

/// Settings of a node. Reads and writes the file `config.toml`, in which every key is optional and an unknown key is an
/// error.
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
    /// Network to join, by name; only nodes of one network talk to each other. Defaults to `localnet`.
    #[serde(serialize_with = "show", deserialize_with = "parse")]
    pub network: Network,
    /// Addresses to listen on; a node without any only dials. Defaults to [`DEFAULT_LISTEN`].
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub listen: Vec<Address>,
    /// Addresses that the node claims in its identity, at most 5; if empty, those it listens on. A node that listens on `0.0.0.0` or `::`
    /// needs them: without any it claims loopback, at which only nodes of its own machine reach it. `0.0.0.0` and `::` here stand for
    /// the public addresses that the machine [has](crate::Builder::interfaces), also for those that come later.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub public_addresses: Vec<Address>,
    /// Peers that the node stays connected to, as `KEY::ADDRESS`.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub peers: Vec<PeerAddress>,
    /// Nodes at which a full node begins when it knows no other, or loses all, as `KEY::ADDRESS`, at most [`MAX_CONFIGURED_SEEDS`]. It asks them
    /// for others and does not stay connected to them.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub seeds: Vec<PeerAddress>,
    /// Names whose TXT records in DNS are further seeds, looked up when neither these nor known peers answer, at most 16. The name of
    /// the network replaces `{network}`; such names are not looked up in a local network. None by default;
    /// [`DEFAULT_DNS_SEEDS`](crate::DEFAULT_DNS_SEEDS) is that of stock nodes. Name servers are asked directly: there must be none
    /// with a proxy that names go through.
    #[cfg(feature = "dns-seeds")]
    pub dns_seeds: Vec<String>,
    /// Name servers that are asked for [`dns_seeds`](Self::dns_seeds), as `9.9.9.9:53`, at most 3; those of the operating system if
    /// there are none.
    #[cfg(feature = "dns-seeds")]
    #[serde(deserialize_with = "crate::dns_seeds::parse_servers")]
    pub dns_servers: Vec<std::net::SocketAddr>,
    /// Whether this node announces its key and port on its local networks, and dials others that do, at private addresses too. Anybody
    /// on such a network learns that it runs there, so that there must be neither an onion service nor a proxy that hides it. Of
    /// the addresses that it listens on, those of IPv4 that are not loopback are announced. Defaults to false.
    #[cfg(feature = "lan")]
    pub lan_discovery: bool,
    /// Peers that are banned for as long as they are listed, by public key.
    #[serde(serialize_with = "show_all", deserialize_with = "parse_all")]
    pub banned: Vec<PublicKey>,
    /// Memory for messages and the peer directory in MiB, 1 to 1 048 576. Defaults to [`DEFAULT_MEMORY_MIB`].
    ///
    /// Tables of past messages have bounds of their own beside it: the table of messages seen takes at most 90 MiB, with 500 000
    /// of them, that of exact copies 7, that of messages received 22 and a quarter of a KiB for each deliverer of some
    /// ([`Stats::remembered_bytes`](crate::Stats::remembered_bytes));
    /// with a folder, the index of stored messages takes at most 72 MiB.
    pub memory_mib: usize,
    /// Seconds in which an unknown recipient must be found, connected and sent to, 1 to 86 400. Defaults to 120.
    pub discovery_seconds: u64,
    /// Whether an unknown recipient is looked up, by asking nodes ever closer to its key, before a discovery is sent. The nodes that
    /// are asked learn whom this node searches for, as those do that pass a discovery on. Defaults to true.
    #[cfg(feature = "overlay")]
    pub lookups: bool,
    /// Number of copies of one message that are delivered, at least 1. More than one lets an application pass on
    /// messages without a destination again. Defaults to 1.
    pub allowed_occurrences: u32,
    /// Party that a ban for an invalid message hits: `strict` bans only for proven offences, `legacy` bans as stock
    /// nodes do.
    /// Defaults to `strict`.
    #[serde(serialize_with = "show", deserialize_with = "parse")]
    pub attribution: AttributionProfile,
    /// Messages that a peer may send within [`flood_seconds`](Self::flood_seconds) before it is banned for ten minutes
    /// in the legacy profile, at least 1; the strict one bans no peer for volume. Defaults to [`DEFAULT_FLOOD_MESSAGES`].
    pub flood_messages: u32,
    /// Window of [`flood_messages`](Self::flood_messages) in seconds, 1 to 86 400. Defaults to
    /// [`DEFAULT_FLOOD_SECONDS`].
    pub flood_seconds: u64,
    /// Whether a node with the feature store-and-forward forwards messages for other recipients. Defaults to true.
    pub forward: bool,
    /// Whether gossip that the validator accepts is passed on, byte for byte. Defaults to false: applications pass on
    /// gossip themselves.
    pub relay_gossip: bool,
    /// Rates at which one connected peer may send messages of each type.
    pub rates: RateLimits,
    /// Connections: how many, and how long their steps may take.
    pub transport: dht_transport::Config,
    /// Sending: the number of peers that messages go to, and how many messages wait.
    pub outbound: dht_outbound::Config,
    /// Store-and-forward: messages for offline peers.
    #[cfg(feature = "saf")]
    pub saf: dht_saf::Config,
    /// The durable inbox of a node with a home.
    #[cfg(feature = "spool")]
    pub inbox: dht_spool::InboxConfig,
    /// The overlay: whom the node finds and stays connected to by itself.
    #[cfg(feature = "overlay")]
    pub overlay: dht_overlay::Config,
    /// The onion service.
    #[cfg(feature = "tor")]
    pub tor: crate::onion::TorConfig,
}

/// Settings that [`Node::reload`](crate::Node::reload) takes over: keys, or sections with all their keys.
pub const RELOADABLE: [&str; 8] = [
    "rates",
    "banned",
    "public_addresses",
    "transport.max_handshakes",
    "transport.max_handshakes_per_source",
    "transport.max_connections",
    "transport.max_connections_per_source",
    "transport.trusted_sources",
];

impl Config {
    /// Takes over the settings of [`RELOADABLE`].
    pub(crate) fn reload(&mut self, read: &Self) {
        self.rates = read.rates;
        self.banned.clone_from(&read.banned);
        self.public_addresses.clone_from(&read.public_addresses);
        let (own, read) = (&mut self.transport, &read.transport);
        own.max_handshakes = read.max_handshakes;
        own.max_handshakes_per_source = read.max_handshakes_per_source;
        own.max_connections = read.max_connections;
        own.max_connections_per_source = read.max_connections_per_source;
        own.trusted_sources.clone_from(&read.trusted_sources);
    }

    /// Checks that every setting is in its range, and that none defeats another.
    ///
    /// ```
    /// let config = dht_node::Config { memory_mib: 0, ..Default::default() };
    /// let error = config.validate().unwrap_err();
    /// assert_eq!(error.to_string(), "memory_mib is 0, which is not in the range 1 to 1048576");
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const DAY: u64 = 24 * 60 * 60;
        const MOST: u64 = u32::MAX as u64;
        let (copies, flood) = (self.allowed_occurrences, self.flood_messages);
        OutOfRange::check("memory_mib", self.memory_mib as u64, 1..=1 << 20)?;
        let (seeds, most) = (self.seeds.len() as u64, MAX_CONFIGURED_SEEDS as u64);
        OutOfRange::check("seeds", seeds, 0..=most)?;
        self.validate_addresses()?;
        #[cfg(feature = "dns-seeds")]
        crate::dns_seeds::validate(&self.dns_seeds, &self.dns_servers)?;
        #[cfg(all(feature = "dns-seeds", feature = "socks"))]
        if !self.dns_seeds.is_empty() && self.transport.proxies_names() {
            return Err(ConfigError::DnsBesideProxy);
        }
        #[cfg(all(feature = "lan", feature = "socks"))]
        if self.lan_discovery && self.hides() {
            return Err(ConfigError::LanBesideTor);
        }
        OutOfRange::check("discovery_seconds", self.discovery_seconds, 1..=DAY)?;
        OutOfRange::check("allowed_occurrences", copies.into(), 1..=MOST)?;
        OutOfRange::check("flood_messages", flood.into(), 1..=MOST)?;
        OutOfRange::check("flood_seconds", self.flood_seconds, 1..=DAY)?;
        self.transport.validate()?;
        self.outbound.validate()?;
        #[cfg(feature = "saf")]
        self.saf.validate()?;
        #[cfg(feature = "spool")]
        self.inbox.validate()?;
        #[cfg(feature = "overlay")]
        self.overlay.validate()?;
        #[cfg(feature = "tor")]
        self.tor.validate()?;
        Ok(())
    }

    /// Whether others are not to learn where this node is.
    #[cfg(all(feature = "lan", feature = "socks"))]
    fn hides(&self) -> bool {
        #[cfg(feature = "tor")]
        if self.tor.control.is_some() {
            return true;
        }
        self.transport.proxies_names()
    }

    /// Checks the addresses that this node dials, and those at which others are to reach it.
    fn validate_addresses(&self) -> Result<(), ConfigError> {
        let public = &self.public_addresses;
        let (count, most) = (public.len() as u64, MAX_CLAIM_ADDRESSES as u64);
        OutOfRange::check("public_addresses", count, 0..=most)?;
        let bytes: usize = public.iter().map(|address| address.as_bytes().len()).sum();
        if bytes > MAX_PUBLIC_BYTES {
            let (bytes, why) = (
                format!("{bytes} bytes long"),
                format!("more than the {MAX_PUBLIC_BYTES} that peers accept"),
            );
            return Err(ConfigError::unusable("public_addresses", bytes, why));
        }
        for address in public {
            // The unspecified address stands for those of the machine.
            let outcome = address.check_policy(&AddressPolicy { allow_test: true });
            usable("public_addresses", address, outcome)?;
        }
        for (key, peers) in [("peers", &self.peers), ("seeds", &self.seeds)] {
            for address in peers.iter().flat_map(|peer| &peer.addresses) {
                usable(key, address, address.check_dialled())?;
            }
        }
        #[cfg(feature = "socks")]
        if let Some(proxy) = self.transport.proxy
            && (proxy.ip().is_unspecified() || proxy.port() == 0)
        {
            let why = "where no proxy answers, as at 127.0.0.1:9050";
            return Err(ConfigError::unusable("transport.proxy", proxy, why));
        }
        Ok(())
    }
}

/// Names the setting of an address that does not hold. Addresses in memory are those of nodes of one process.
fn usable(
    key: &'static str,
    address: &Address,
    outcome: Result<(), ClaimError>,
) -> Result<(), ConfigError> {
    match outcome {
        Ok(()) | Err(ClaimError::AddressTestOnly) => Ok(()),
        Err(error) => {
            let why = format!("which nobody can dial: {error}");
            Err(ConfigError::unusable(key, address, why))
        }
    }
}

impl Config {
    /// The addresses that a node claims which listens on `listening`, on a machine whose addresses nobody reads: the public ones if
    /// there are any. Peers refuse the unspecified address (`0.0.0.0` or `::`); loopback, which it includes, takes its place.
    #[must_use]
    pub fn claimed_addresses(&self, listening: &[Address]) -> Vec<Address> {
        self.claimed_addresses_on(&BTreeSet::new(), listening)
    }

    /// As [`claimed_addresses`](Self::claimed_addresses), on a machine with these addresses: the public ones among them take the
    /// place of an unspecified public address, behind the others.
    pub(crate) fn claimed_addresses_on(
        &self,
        machine: &BTreeSet<IpAddr>,
        listening: &[Address],
    ) -> Vec<Address> {
        let (addresses, machine) = match &*self.public_addresses {
            [] => (listening, &BTreeSet::new()),
            public => (public, machine),
        };
        let (mut claimed, mut expanded) = (Vec::new(), Vec::new());
        for address in addresses {
            let (any, port, loopback) = match address.host() {
                Some(Host::Ip(ip @ IpAddr::V4(_), port)) if ip.is_unspecified() => {
                    (ip, port, Ipv4Addr::LOCALHOST.into())
                }
                Some(Host::Ip(ip @ IpAddr::V6(_), port)) if ip.is_unspecified() => {
                    (ip, port, Ipv6Addr::LOCALHOST.into())
                }
                _ => {
                    claimed.push(address.clone());
                    continue;
                }
            };
            let own = machine.iter().filter(|own| own.is_ipv4() == any.is_ipv4());
            let own = own.map(|own| Address::tcp(*own, port));
            let before = expanded.len();
            expanded.extend(own.filter(Address::is_public));
            if expanded.len() == before {
                expanded.push(Address::tcp(loopback, port));
            }
        }
        // A machine of many addresses leaves those that are named their place.
        claimed.append(&mut expanded);
        let mut seen = BTreeSet::new();
        claimed.retain(|address| seen.insert(address.as_bytes().to_vec()));
        claimed.truncate(MAX_CLAIM_ADDRESSES);
        claimed
    }

    /// Whether peers on other machines learn no address of a node that listens for them: it listens on every address
    /// of its machine and has no [`public_addresses`](Self::public_addresses).
    #[must_use]
    pub fn hides_addresses(&self) -> bool {
        let is_unspecified = |address: &Address| matches!(address.host(), Some(Host::Ip(ip, _)) if ip.is_unspecified());
        self.public_addresses.is_empty() && self.listen.iter().any(is_unspecified)
    }

    /// Whether a node with these settings is told of no node that it could dial: it waits until others connect, as the first of its
    /// network does.
    #[must_use]
    pub fn has_no_bootstrap(&self) -> bool {
        self.peers.is_empty() && self.seeds.is_empty() && self.seed_names().is_empty()
    }

    /// The names of seeds in the network of this node.
    #[cfg(feature = "dns-seeds")]
    pub(crate) fn seed_names(&self) -> Vec<String> {
        crate::dns_seeds::names(&self.dns_seeds, self.network)
    }

    /// Without the feature `dns-seeds` none is looked up.
    #[cfg(not(feature = "dns-seeds"))]
    pub(crate) const fn seed_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Rules for the claims that peers make.
    pub(crate) fn claim_policy(&self) -> ClaimPolicy {
        let mut claims = ClaimPolicy::default().under(self.attribution);
        // Nodes of one machine claim loopback addresses, which every other network refuses.
        claims.addresses.allow_test = self.network == Network::LocalNet;
        claims
    }

    /// The features that a node with these settings has of those it is meant to have: one that stores nothing for others
    /// does not announce that it does.
    pub(crate) fn features(&self, meant: Features) -> Features {
        #[cfg(feature = "saf")]
        if self.saf.enabled {
            return meant;
        }
        meant - Features::DHT_STORE_FORWARD
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::LocalNet,
            listen: DEFAULT_LISTEN.parse().into_iter().collect(),
            public_addresses: Vec::new(),
            peers: Vec::new(),
            seeds: Vec::new(),
            #[cfg(feature = "dns-seeds")]
            dns_seeds: Vec::new(),
            #[cfg(feature = "dns-seeds")]
            dns_servers: Vec::new(),
            #[cfg(feature = "lan")]
            lan_discovery: false,
            banned: Vec::new(),
            memory_mib: DEFAULT_MEMORY_MIB,
            discovery_seconds: DISCOVERY_SECONDS,
            #[cfg(feature = "overlay")]
            lookups: true,
            allowed_occurrences: DEFAULT_ALLOWED_OCCURRENCES,
            attribution: AttributionProfile::default(),
            flood_messages: DEFAULT_FLOOD_MESSAGES,
            flood_seconds: DEFAULT_FLOOD_SECONDS,
            forward: true,
            relay_gossip: false,
            rates: RateLimits::default(),
            transport: dht_transport::Config::default(),
            outbound: dht_outbound::Config::default(),
            #[cfg(feature = "saf")]
            saf: dht_saf::Config::default(),
            #[cfg(feature = "spool")]
            inbox: dht_spool::InboxConfig::default(),
            #[cfg(feature = "overlay")]
            overlay: dht_overlay::Config::default(),
            #[cfg(feature = "tor")]
            tor: crate::onion::TorConfig::default(),
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
    fn unspecified_addresses_become_loopback() {
        let listen: Vec<Address> = [
            "/ip4/0.0.0.0/tcp/7",
            "/ip6/::/tcp/7",
            "/ip4/127.0.0.1/tcp/7",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        let mut config = Config {
            listen: listen.clone(),
            ..Config::default()
        };
        let claimed = config.claimed_addresses(&listen);
        let shown: Vec<String> = claimed.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/ip4/127.0.0.1/tcp/7", "/ip6/::1/tcp/7"]);
        assert!(config.hides_addresses());
        config.public_addresses = vec!["/dns4/a.example/tcp/7".parse().unwrap()];
        assert_eq!(config.claimed_addresses(&listen), config.public_addresses);
        assert!(!config.hides_addresses());
    }

    #[test]
    fn public_addresses_follow_the_machine() {
        let config = Config {
            public_addresses: ["/ip4/0.0.0.0/tcp/7", "/ip6/::/tcp/7", "/ip4/8.8.8.8/tcp/7"]
                .map(|address| address.parse().unwrap())
                .into(),
            ..Config::default()
        };
        let claimed = |machine: &[&str]| {
            let machine = machine.iter().map(|ip| ip.parse().unwrap()).collect();
            let claimed = config.claimed_addresses_on(&machine, &config.listen);
            let claimed = claimed.iter().map(ToString::to_string);
            claimed.collect::<Vec<_>>().join(" ")
        };
        // An address of the machine is named once.
        assert_eq!(
            claimed(&["10.0.0.1", "9.9.9.9", "8.8.8.8", "2620:fe::fe"]),
            "/ip4/8.8.8.8/tcp/7 /ip4/9.9.9.9/tcp/7 /ip6/2620:fe::fe/tcp/7"
        );
        // Nor do many of them take the place of one that is named.
        assert_eq!(
            claimed(&["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4", "5.5.5.5"]),
            "/ip4/8.8.8.8/tcp/7 /ip4/1.1.1.1/tcp/7 /ip4/2.2.2.2/tcp/7 /ip4/3.3.3.3/tcp/7 /ip4/4.4.4.4/tcp/7"
        );
        assert_eq!(
            claimed(&["10.0.0.1"]),
            "/ip4/8.8.8.8/tcp/7 /ip4/127.0.0.1/tcp/7 /ip6/::1/tcp/7"
        );
    }

    #[cfg(feature = "saf")]
    #[test]
    fn disabled_storage_is_not_announced() {
        let mut config = Config::default();
        assert_eq!(config.features(Features::NODE), Features::NODE);
        config.saf.enabled = false;
        let features = config.features(Features::NODE);
        assert_eq!(features, Features::MESSAGE_PROPAGATION);
        assert_eq!(config.features(Features::CLIENT), Features::CLIENT);
    }

    #[test]
    fn defaults_round_trip() {
        let text = toml::to_string(&Config::default()).unwrap();
        let back: Config = toml::from_str(&text).unwrap();
        assert_eq!(back.listen, Config::default().listen);
        assert_eq!(back.memory_mib, DEFAULT_MEMORY_MIB);
        assert_eq!(back.rates, RateLimits::default());
        assert!(back.forward);
    }

    #[test]
    fn dead_addresses_are_refused() {
        let key = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";
        let listed = |list: &str, addresses: &[String]| {
            let text = format!("{list} = {addresses:?}");
            toml::from_str::<Config>(&text).unwrap().validate()
        };
        for (address, why) in [
            ("/ip4/203.0.113.7/tcp/0", "address has port 0"),
            ("/ip4/203.0.113.7", "address has no shape"),
        ] {
            for (list, address) in [
                ("public_addresses", address.to_owned()),
                ("peers", format!("{key}::{address}")),
                ("seeds", format!("{key}::{address}")),
            ] {
                let error = listed(list, &[address]).unwrap_err();
                let text = error.to_string();
                assert!(text.starts_with(list) && text.contains(why), "{text}");
                assert_eq!(error.key(), list);
            }
        }
        let unspecified = "/ip4/0.0.0.0/tcp/5";
        assert_eq!(
            listed("public_addresses", &[unspecified.to_owned()]),
            Ok(())
        );
        for list in ["peers", "seeds"] {
            let error = listed(list, &[format!("{key}::{unspecified}")]).unwrap_err();
            assert!(
                error.to_string().contains("address is unspecified"),
                "{error}"
            );
        }
        let name = |length| format!("/dns4/{}/tcp/5", "a".repeat(length));
        let many: Vec<String> = (1..=6).map(name).collect();
        assert_eq!(listed("public_addresses", &many[..5]), Ok(()));
        let error = listed("public_addresses", &many).unwrap_err();
        assert!(error.to_string().ends_with("range 0 to 5"), "{error}");
        let error = listed("public_addresses", &vec![name(250); 4]).unwrap_err();
        assert!(error.to_string().contains("more than the 768"), "{error}");
    }

    #[cfg(feature = "dns-seeds")]
    #[test]
    fn wrong_names_are_refused() {
        let named = |names: &[&str]| {
            let text = format!("dns_seeds = {names:?}");
            toml::from_str::<Config>(&text).unwrap().validate()
        };
        let longest = ["a"; 127].join(".");
        for name in [
            crate::DEFAULT_DNS_SEEDS,
            "seeds",
            "_seeds.a-b.example.",
            &longest,
        ] {
            assert_eq!(named(&[name]), Ok(()), "{name}");
        }
        let too_long = format!("{longest}.a");
        let label = "a".repeat(64);
        for name in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a b",
            "{net}.example",
            "https://a.example",
            &label,
            &too_long,
        ] {
            let error = named(&["a.example", name]).unwrap_err();
            assert_eq!(error.key(), "dns_seeds", "{name}: {error}");
        }
        for server in ["9.9.9.9:0", "0.0.0.0:53"] {
            let text = format!("dns_servers = ['{server}']");
            let error = toml::from_str::<Config>(&text).unwrap().validate();
            assert_eq!(error.unwrap_err().key(), "dns_servers");
        }
    }

    #[cfg(all(feature = "lan", feature = "tor"))]
    #[test]
    fn hidden_nodes_are_not_announced() {
        let with = |more: &str| {
            let text = format!("lan_discovery = true\n{more}");
            toml::from_str::<Config>(&text).unwrap().validate()
        };
        let proxy = "[transport]\nproxy = '127.0.0.1:9050'\nproxy_for = ";
        assert_eq!(with(""), Ok(()));
        assert_eq!(with(&format!("{proxy}'onion'")), Ok(()));
        for hidden in [
            &format!("{proxy}'all'"),
            &format!("{proxy}'names'"),
            "[tor]\ncontrol = '127.0.0.1:9051'",
        ] {
            let error = with(hidden).unwrap_err();
            assert_eq!(
                (&error, error.key()),
                (&ConfigError::LanBesideTor, "lan_discovery")
            );
        }
        assert!(!Config::default().lan_discovery);
    }

    #[test]
    fn mistakes_name_valid_values() {
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
