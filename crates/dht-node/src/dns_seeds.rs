//! Seeds that are named in DNS (feature `dns-seeds`): each TXT record of a name is a node as `KEY::ADDRESS` (specification 02,
//! section 2).
//!
//! # Security
//! Nobody signs the answers that this node takes, so whoever is between it and its name server can name other nodes. Names are
//! looked up only when neither anchors, nor peers that are known, nor configured seeds answer; what they name is hearsay, which a
//! handshake with the named key must prove.

mod resolver;

use std::{net::SocketAddr, time::Duration};

use dht_core::{Clock as _, Entropy as _, Network, NodeId, OutOfRange, PeerAddress};
use dht_peers::{ClaimPolicy, PeerRecord};
use metrics::{Unit, counter, describe_counter};
use rand_core::Rng as _;
use serde::{Deserialize as _, Deserializer, de::Error as _};
use tokio::time::timeout;

use self::resolver::{MAX_SERVERS, Resolver};
use crate::{config_error::ConfigError, context::NodeContext};

/// Name at which stock nodes look for seeds.
pub const DEFAULT_DNS_SEEDS: &str = "seeds.{network}.tari.com";
/// Part of a name that the name of the network replaces.
const NETWORK: &str = "{network}";
/// Most names.
const MAX_NAMES: usize = 16;
/// Most records of one name that are read.
const MAX_RECORDS: usize = 100;
/// Longest time that the look-up of a name takes.
const LIMIT: Duration = Duration::from_secs(15);

const RECORDS: &str = "dht_node_dns_seed_records_total";

/// The names of the settings in a network. A local network has no common names.
pub(crate) fn names(names: &[String], network: Network) -> Vec<String> {
    let is_local = network == Network::LocalNet;
    let names = names.iter();
    names
        .filter(|name| !is_local || !name.contains(NETWORK))
        .map(|name| name.replace(NETWORK, &network.to_string()))
        .collect()
}

/// Checks names and name servers, and how many there are.
pub(crate) fn validate(names: &[String], servers: &[SocketAddr]) -> Result<(), ConfigError> {
    OutOfRange::check("dns_seeds", names.len() as u64, 0..=MAX_NAMES as u64)?;
    OutOfRange::check("dns_servers", servers.len() as u64, 0..=MAX_SERVERS as u64)?;
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        let name = format!("`{}`", name.escape_debug());
        let why = format!("which is not a name in DNS, as {DEFAULT_DNS_SEEDS} is");
        return Err(ConfigError::unusable("dns_seeds", name, why));
    }
    let is_dead = |server: &&SocketAddr| server.ip().is_unspecified() || server.port() == 0;
    match servers.iter().find(is_dead) {
        Some(server) => {
            let why = "where no name server answers, as at 9.9.9.9:53";
            Err(ConfigError::unusable("dns_servers", server, why))
        }
        None => Ok(()),
    }
}

/// Whether a name, once that of a network is in it, is one of a host (RFC 1123) or of a service (`_seeds`).
fn is_name(name: &str) -> bool {
    // The network with the longest name.
    let name = name.replace(NETWORK, &Network::Esmeralda.to_string());
    let name = name.strip_suffix('.').unwrap_or(&name);
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let has_edge = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && !has_edge && label.bytes().all(plain)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Reads addresses of name servers.
pub(crate) fn parse_servers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let wrong = |text| D::Error::custom(format!("`{text}` is not an address, as in 9.9.9.9:53"));
    let servers = texts
        .iter()
        .map(|text| text.parse().map_err(|_| wrong(text)));
    servers.collect()
}

/// Looks up seeds at the name servers of the settings.
pub(crate) struct DnsSeeds(Resolver);

impl DnsSeeds {
    /// Asks these name servers, or those of the operating system if there are none.
    pub(crate) const fn new(servers: Vec<SocketAddr>) -> Self {
        Self(Resolver::new(servers))
    }

    /// The seeds that a name stands for.
    pub(crate) async fn seeds(
        &self,
        name: &str,
        shared: &NodeContext,
        claims: &ClaimPolicy,
    ) -> Vec<PeerAddress> {
        let mut rng = shared.entropy.rng();
        let texts = timeout(LIMIT, self.0.texts(name, || rng.next_u32())).await;
        let texts = match texts {
            Ok(Ok(texts)) => texts,
            Ok(Err(error)) => {
                tracing::warn!(name, %error, "no seeds from DNS");
                return Vec::new();
            }
            Err(_late) => {
                tracing::warn!(name, "no seeds from DNS within {LIMIT:?}");
                return Vec::new();
            }
        };
        let (seeds, malformed) = parse(&texts, claims);
        tracing::info!(name, seeds = seeds.len(), malformed, "seeds from DNS");
        seeds
    }

    /// Enters the seeds that a name stands for in the directory. A peer that is known keeps its addresses.
    pub(crate) async fn look_up(
        &self,
        name: &str,
        shared: &NodeContext,
        claims: &ClaimPolicy,
    ) -> Vec<NodeId> {
        let (seeds, now) = (self.seeds(name, shared, claims).await, shared.clock.now());
        for seed in &seeds {
            if !shared.directory.contains(&seed.public_key.node_id()) {
                let addresses = seed.addresses.iter().cloned();
                let record = PeerRecord::unsigned(seed.public_key, addresses, now);
                shared.directory.add_or_update(record, now);
            }
        }
        let ids = seeds.iter().map(|seed| seed.public_key.node_id());
        ids.filter(|id| shared.directory.contains(id)).collect()
    }
}

/// The seeds among texts, each with the addresses that this node may dial, and the number of the other texts.
fn parse(texts: &[String], claims: &ClaimPolicy) -> (Vec<PeerAddress>, u64) {
    let (mut seeds, mut malformed) = (Vec::new(), 0);
    for text in texts.iter().take(MAX_RECORDS) {
        let seed = text.parse().ok().map(|mut seed: PeerAddress| {
            seed.addresses.retain(|address| {
                address.check_policy(&claims.addresses).is_ok()
                    && (claims.addresses.allow_test || address.is_public())
            });
            seed
        });
        match seed {
            Some(seed) if !seed.addresses.is_empty() => seeds.push(seed),
            _ => malformed += 1,
        }
    }
    counter!(RECORDS, "kind" => "seed").increment(seeds.len() as u64);
    counter!(RECORDS, "kind" => "malformed").increment(malformed);
    (seeds, malformed)
}

/// Describes the metrics of this module.
pub(crate) fn describe_metrics() {
    describe_counter!(
        RECORDS,
        Unit::Count,
        "TXT records of the names of seeds, by whether they are seeds or malformed"
    );
}

#[cfg(test)]
mod tests;
