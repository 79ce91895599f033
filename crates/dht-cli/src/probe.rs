//! `probe`: visits the nodes of a network and prints what they are.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use clap::Args;
use dht_api::types::API_VERSION;
use dht_core::{Clock as _, Entropy as _, Features, Network, PeerAddress, SecretKey, error_chain};
use dht_node::{
    Node, OsEntropy, ProbeLimits, ProbeProgress, ProbeReport, ProbeVisit, ProbedPeer, ReachedPeer,
    SystemClock,
};
use dht_transport::DialError;
use serde_json::{Value, json};

use crate::{
    exit::Failure,
    home::DialingHome,
    known,
    number::number,
    output::{print, printable},
    progress::{shown, shown_as},
    session::WAITING,
    target::dialled,
};

/// `dht-node probe`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node probe --home a\n  dht-node probe --network esmeralda --seed KEY::ADDR --json\n\n\
    Each node is asked for up to 500 of the nodes that it knows, at random. `tells of` counts those, `told by` the nodes that \
    told of it; the claim is as old as its signature. The probe has a key of its own and changes nothing in the home."
)]
pub(crate) struct Probe {
    #[command(flatten)]
    home: DialingHome,
    /// Node to begin at, instead of the configured peers, those that the node of the home knows, and the configured seeds; may be
    /// given several times.
    #[arg(long, value_name = "KEY::ADDR", value_parser = dialled)]
    seed: Vec<PeerAddress>,
    /// Most nodes to visit, 1 to 10000.
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true, value_parser = number::<u64>(1..=10_000))]
    limit: u64,
    /// Nodes to visit at a time, 1 to 64.
    #[arg(long, default_value_t = 16, allow_negative_numbers = true, value_parser = number::<u64>(1..=64))]
    at_once: u64,
    /// End after this many seconds, 1 to 3600.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number::<u64>(1..=3600))]
    timeout: u64,
    /// Print one JSON object, in which nodes name each other by their places in the list.
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let home = self.home.home();
        let mut config = home.config()?;
        let network = config.network;
        let mut seeds = self.seed.clone();
        if seeds.is_empty() {
            seeds.append(&mut config.peers);
            match shown(WAITING, known::nodes(&home, config.network)).await {
                Ok(mut known) => seeds.append(&mut known),
                // The seeds may do.
                Err(failure) => {
                    tracing::warn!(%failure, "the peers that the home knows are left out")
                }
            }
            seeds.append(&mut config.seeds);
        }
        config.listen.clear();
        config.peers.clear();
        config.seeds.clear();
        config.tor.control = None;
        config.forward = false;
        config.overlay.enabled = false;
        config.saf.auto_request = false;
        // Another key than that of the home, whose node may run.
        let secret = SecretKey::random(&mut OsEntropy.rng());
        let builder = Node::builder(secret).config(config);
        let node = builder.features(Features::CLIENT).start().await;
        let node = node.map_err(|error| Failure::config(error_chain(&error)))?;
        if seeds.is_empty() {
            seeds = node.dns_seeds().await;
        }
        let probed = self.probe(&node, &seeds).await;
        node.shutdown().await;
        let report = probed?;
        let now = SystemClock.now().0;
        if self.json {
            print(to_json(&report, now).to_string()).await?;
        } else {
            print(table(&report, now)).await?;
        }
        match reached(&report).next() {
            Some(_) => Ok(()),
            None => Err(Failure::unreachable(format!(
                "no node was reached{}",
                advice(&report, network)
            ))),
        }
    }

    async fn probe(&self, node: &Node, seeds: &[PeerAddress]) -> Result<ProbeReport, Failure> {
        if seeds.is_empty() {
            return Err(Failure::config(
                "no node to begin at: the home knows none; name one with --seed KEY::ADDR, or set seeds in the configuration"
                    .to_owned(),
            ));
        }
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = ProbeLimits {
            peers: count(self.limit),
            at_once: count(self.at_once),
            time: Duration::from_secs(self.timeout),
        };
        let last = Cell::new(ProbeProgress::default());
        let text = || {
            let ProbeProgress {
                known,
                visited,
                reached,
            } = last.get();
            format!("probing: {visited} of {known} nodes visited, {reached} reached")
        };
        let probing = node.probe(seeds, limits, |progress| last.set(progress));
        Ok(shown_as(text, probing).await)
    }
}

/// Advice if a node was there and ended the handshake.
fn advice(report: &ProbeReport, network: Network) -> String {
    let is_refused =
        |peer: &ProbedPeer| matches!(&peer.visit, ProbeVisit::Failed(DialError::Upgrade(_)));
    if report.peers.iter().any(is_refused) {
        return format!(
            "; some ended the handshake: are they nodes of the network {network}? Name another with --network"
        );
    }
    String::new()
}

fn reached(report: &ProbeReport) -> impl Iterator<Item = &ReachedPeer> {
    report.peers.iter().filter_map(|peer| match &peer.visit {
        ProbeVisit::Reached(reached) => Some(reached),
        _ => None,
    })
}

// === as a table ===

fn table(report: &ProbeReport, now: u64) -> String {
    let mut lines = vec![row([
        "NODE", "STATE", "VERSION", "CLAIM", "TELLS OF", "TOLD BY", "DIAL", "ADDRESS",
    ])];
    lines.extend(report.peers.iter().map(|peer| line(peer, now)));
    lines.push(String::new());
    lines.extend(summary(report, now));
    lines.join("\n")
}

fn row(
    [
        node,
        state,
        version,
        claim,
        tells_of,
        told_by,
        dial,
        address,
    ]: [&str; 8],
) -> String {
    format!(
        "{node:<26} {state:<12} {version:<24} {claim:>7} {tells_of:>8} {told_by:>7} {dial:>9} {address}"
    )
}

fn line(peer: &ProbedPeer, now: u64) -> String {
    let (id, told_by) = (
        peer.public_key.node_id().to_string(),
        peer.told_by.to_string(),
    );
    let address = peer.addresses.first().map(ToString::to_string);
    let address = printable(&address.unwrap_or_default());
    match &peer.visit {
        ProbeVisit::NotVisited => row([&id, "not visited", "-", "-", "-", &told_by, "-", &address]),
        ProbeVisit::Failed(error) => {
            let why = format!("{address}: {}", error_chain(error));
            row([&id, "unreachable", "-", "-", "-", &told_by, "-", &why])
        }
        ProbeVisit::Reached(reached) => {
            let failure = reached.failure.map(|failure| format!(": {failure}"));
            let address = address + &failure.unwrap_or_default();
            row([
                &id,
                "reached",
                &printable(&reached.user_agent),
                &age(now, reached),
                &reached.tells_of.len().to_string(),
                &told_by,
                &format!("{} ms", reached.dial_time.as_millis()),
                &address,
            ])
        }
    }
}

/// Time since a node signed its claim, in its largest unit.
fn age(now: u64, reached: &ReachedPeer) -> String {
    match now.checked_sub(reached.claimed_at.0) {
        None => "future".to_owned(),
        Some(seconds @ 0..60) => format!("{seconds} s"),
        Some(seconds @ 60..3_600) => format!("{} min", seconds / 60),
        Some(seconds @ 3_600..86_400) => format!("{} h", seconds / 3_600),
        Some(seconds) => format!("{} d", seconds / 86_400),
    }
}

fn summary(report: &ProbeReport, now: u64) -> Vec<String> {
    let mut found: Vec<_> = reached(report).collect();
    let known = report.peers.len();
    let is_waiting = |peer: &&ProbedPeer| matches!(peer.visit, ProbeVisit::NotVisited);
    let waiting = report.peers.iter().filter(is_waiting).count();
    let mut lines = vec![format!(
        "{} of {known} nodes reached, {waiting} not visited{}",
        found.len(),
        match report.is_complete {
            true => "",
            false => "; there are more, see --limit",
        }
    )];
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for peer in &found {
        *versions.entry(&peer.user_agent).or_default() += 1;
    }
    let mut versions: Vec<_> = versions.into_iter().collect();
    versions.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
    let versions = versions.iter();
    let versions: Vec<_> = versions
        .map(|(version, nodes)| format!("{nodes} × {}", printable(version)))
        .collect();
    lines.push(format!("versions: {}", versions.join(", ")));
    // The newest claim first.
    found.sort_by_key(|peer| std::cmp::Reverse(peer.claimed_at));
    let middle = found.get(found.len() / 2);
    if let (Some(newest), Some(middle), Some(oldest)) = (found.first(), middle, found.last()) {
        let [newest, middle, oldest] = [newest, middle, oldest].map(|peer| age(now, peer));
        lines.push(format!(
            "claims: newest {newest}, median {middle}, oldest {oldest} old"
        ));
    }
    let edges: usize = found.iter().map(|peer| peer.tells_of.len()).sum();
    let untold = report.peers.iter().filter(|peer| peer.told_by == 0);
    lines.push(format!(
        "graph: {edges} edges, {} a node reached; none told of {} nodes",
        edges.checked_div(found.len()).unwrap_or(0),
        untold.count()
    ));
    lines
}

// === as JSON ===

fn to_json(report: &ProbeReport, now: u64) -> Value {
    let peers: Vec<Value> = report
        .peers
        .iter()
        .map(|peer| peer_json(peer, now))
        .collect();
    json!({
        "version": API_VERSION,
        "is_complete": report.is_complete,
        "known": report.peers.len(),
        "reached": reached(report).count(),
        "peers": peers,
    })
}

fn peer_json(peer: &ProbedPeer, now: u64) -> Value {
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    let mut value = json!({
        "public_key": peer.public_key.to_string(),
        "node_id": peer.public_key.node_id().to_string(),
        "addresses": addresses,
        "told_by": peer.told_by,
    });
    let more = match &peer.visit {
        ProbeVisit::NotVisited => json!({ "state": "not_visited" }),
        ProbeVisit::Failed(error) => json!({ "state": "unreachable", "error": error_chain(error) }),
        ProbeVisit::Reached(reached) => {
            let features = reached.features.iter_names();
            let features: Vec<String> = features.map(|(name, _)| name.to_lowercase()).collect();
            json!({
                "state": "reached",
                "user_agent": &*reached.user_agent,
                "features": features,
                "claimed_at": reached.claimed_at.0,
                "claim_age_seconds": now.saturating_sub(reached.claimed_at.0),
                "dial_micros": u64::try_from(reached.dial_time.as_micros()).unwrap_or(u64::MAX),
                "tells_of": reached.tells_of,
                "error": reached.failure.map(|failure| failure.to_string()),
            })
        }
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    value
}
