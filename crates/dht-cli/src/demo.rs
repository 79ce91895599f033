//! `demo`: many full nodes on loopback TCP in this process that find each other from one seed, and a check that every message arrives
//! once.

use clap::Args;
use serde::Serialize;

use crate::{exit::Failure, number::number, output::print, signals};

mod gossip;
mod network;
mod offline;
mod tally;

/// `dht-node demo`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node demo\n  dht-node demo --nodes 20 --messages 1000 --json\n  \
        dht-node demo --offline    # also: messages for an offline peer"
)]
pub(crate) struct Demo {
    /// Nodes to run, 2 to 200.
    #[arg(long, default_value_t = 8, allow_negative_numbers = true, value_parser = number::<u16>(2..=200))]
    nodes: u16,
    /// Messages to send: three in four encrypted to one node, the rest in the clear to all. At most a million.
    #[arg(long, default_value_t = 200, allow_negative_numbers = true, value_parser = number::<u32>(1..=1_000_000))]
    messages: u32,
    /// Seed of topology, message sizes and contents: the same seed gives the same traffic.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = number(0..=u64::MAX))]
    seed: u64,
    /// Also send 50 messages to a node that is offline, restart half of the nodes that store them, and check that the
    /// recipient gets each once when it returns.
    #[arg(long)]
    offline: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Counts over all nodes.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    nodes: u16,
    /// Messages given to a node to send.
    sent: u64,
    /// Arrivals expected: one for an encrypted message, one at each other node for a clear one.
    expected: u64,
    delivered: u64,
    lost: u64,
    /// Deliveries of one message to one application beyond the first.
    duplicated: u64,
    /// Deliveries whose content differs from what was sent.
    altered: u64,
    /// Deliveries that name a wrong sender.
    misattributed: u64,
    /// Copies that nodes dropped as duplicates.
    duplicates_dropped: u64,
    /// Time until each node had as many neighbours as it wants.
    mesh_seconds: f64,
    /// Connections of a node then, on average.
    connections_per_node: f64,
    p50_ms: f64,
    p99_ms: f64,
    bytes_on_wire: u64,
    handshakes: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<offline::Offline>,
}

impl Outcome {
    /// The last line of the table.
    const fn verdict(&self) -> &'static str {
        if self.is_flawless() {
            "ok: every message arrived once, unaltered and from its sender"
        } else {
            "FAILED: a message is missing, doubled, altered or from a wrong sender"
        }
    }

    const fn is_flawless(&self) -> bool {
        let here =
            self.lost == 0 && self.duplicated == 0 && self.altered == 0 && self.misattributed == 0;
        match &self.offline {
            Some(offline) => here && offline.is_flawless(),
            None => here,
        }
    }
}

impl Demo {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let outcome = tokio::select! {
            outcome = self.measure() => outcome?,
            () = signals::stopped() => return Err(Failure::interrupted()),
        };
        let text = if self.json {
            serde_json::to_string(&outcome)
                .map_err(|error| Failure::other(format!("cannot write the outcome: {error}")))?
        } else {
            table(&outcome)
        };
        signals::or_interrupted(print(text)).await?;
        if outcome.is_flawless() {
            Ok(())
        } else {
            Err(Failure::other("the demo failed".to_owned()))
        }
    }
}

impl Demo {
    async fn measure(&self) -> Result<Outcome, Failure> {
        let mut outcome = network::run(self.nodes, self.messages, self.seed).await?;
        if self.offline {
            outcome.offline = Some(offline::run(self.seed).await?);
        }
        Ok(outcome)
    }
}

fn table(outcome: &Outcome) -> String {
    let rows = [
        ("nodes", outcome.nodes.to_string()),
        (
            "mesh from one seed",
            format!(
                "{:.2} s, {:.1} connections a node",
                outcome.mesh_seconds, outcome.connections_per_node
            ),
        ),
        ("sent", format!("{} messages", outcome.sent)),
        (
            "delivered",
            format!("{} of {} arrivals", outcome.delivered, outcome.expected),
        ),
        ("lost", outcome.lost.to_string()),
        ("delivered twice", outcome.duplicated.to_string()),
        ("altered", outcome.altered.to_string()),
        ("wrong sender", outcome.misattributed.to_string()),
        ("duplicates dropped", outcome.duplicates_dropped.to_string()),
        ("latency p50", format!("{:.2} ms", outcome.p50_ms)),
        ("latency p99", format!("{:.2} ms", outcome.p99_ms)),
        (
            "bytes on the wire",
            format!("{:.1} MB", outcome.bytes_on_wire as f64 / 1e6),
        ),
        ("handshakes", outcome.handshakes.to_string()),
        ("time", format!("{:.2} s", outcome.seconds)),
    ];
    let offline = outcome.offline.as_ref().map(offline::Offline::rows);
    rows.into_iter()
        .chain(offline.unwrap_or_default())
        .chain([("verdict", outcome.verdict().to_owned())])
        .map(|(name, value)| format!("{name:<20} {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_changes_the_verdict() {
        let flawless = Outcome {
            sent: 2,
            expected: 9,
            delivered: 9,
            ..Outcome::default()
        };
        assert!(table(&flawless).ends_with(
            "verdict              ok: every message arrived once, unaltered and from its sender"
        ));
        for fault in [
            |outcome: &mut Outcome| outcome.lost = 1,
            |outcome: &mut Outcome| outcome.duplicated = 1,
            |outcome: &mut Outcome| outcome.altered = 1,
            |outcome: &mut Outcome| outcome.misattributed = 1,
        ] {
            let mut outcome = Outcome::default();
            fault(&mut outcome);
            assert!(table(&outcome).contains("verdict              FAILED"));
        }
    }
}
