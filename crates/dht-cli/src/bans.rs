//! `bans`: the offences for which a node bans peers.

use clap::{Args, Subcommand};
use dht_peers::policy::{AttributionProfile, BanTerms, Penalty, Rule, rules};
use serde_json::{Value, json};

use crate::{exit::Failure, output::print};

/// `dht-node bans`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node bans rules\n  dht-node bans rules --profile legacy\n  dht-node bans rules --json"
)]
pub(crate) struct Bans {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print each offence with the banned party, the length of the ban and its section of the specification.
    Rules(Rules),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dht-node bans rules\n  dht-node bans rules --profile legacy")]
struct Rules {
    /// The attribution profile: strict or legacy; see the configuration.
    #[arg(long, default_value_t)]
    profile: AttributionProfile,
    /// Print one JSON array, with both profiles.
    #[arg(long)]
    json: bool,
}

impl Bans {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let Command::Rules(rules) = &self.command;
        print(rules.text()).await
    }
}

impl Rules {
    fn text(&self) -> String {
        if self.json {
            let all: Vec<Value> = rules().iter().map(json).collect();
            return Value::from(all).to_string();
        }
        let line = |offence: &str, who: &str, length: &str, section: &str, text: &str| {
            format!("{offence:<28} {who:<10} {length:<8} {section:<24} {text}")
        };
        let mut lines = vec![line("OFFENCE", "WHO", "BAN", "SPECIFICATION", "FOR WHAT")];
        for rule in rules() {
            let (who, length) = rule.offence.penalty(self.profile).map_or_else(
                || ("nobody", "-".to_owned()),
                |penalty| (penalty.party.name(), length(seconds(penalty))),
            );
            lines.push(line(rule.name, who, &length, rule.section, rule.text));
        }
        lines.join("\n")
    }
}

fn json(rule: &Rule) -> Value {
    let ban = |penalty: Option<Penalty>| {
        penalty.map(|penalty| {
            json!({
                "who": penalty.party.name(),
                "severity": format!("{:?}", penalty.severity).to_lowercase(),
                "seconds": seconds(penalty),
            })
        })
    };
    json!({
        "offence": rule.name,
        "text": rule.text,
        "section": rule.section,
        "strict": ban(rule.strict),
        "legacy": ban(rule.legacy),
    })
}

fn seconds(penalty: Penalty) -> u64 {
    BanTerms::default().seconds(penalty.term)
}

fn length(seconds: u64) -> String {
    match seconds {
        hours if hours % 3_600 == 0 => format!("{} h", hours / 3_600),
        minutes => format!("{} min", minutes / 60),
    }
}
