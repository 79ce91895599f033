//! `bans`: who is banned for what.

use clap::{Args, Subcommand};
use dht_core::Severity;
use dht_inbound::{AttributionProfile, BanTerms, Culprit, Rule, Sanction, rules};
use dht_saf::{FAULT_RULES, FaultRule};
use serde_json::{Value, json};

use crate::{exit::Failure, home::print};

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
    /// Print for what a node bans, whom, how long, and where the specification says so.
    Rules(Rules),
}

#[derive(Debug, Args)]
struct Rules {
    /// The attribution profile: strict or legacy; see the configuration.
    #[arg(long, default_value_t)]
    profile: AttributionProfile,
    /// Print one JSON array, with both profiles.
    #[arg(long)]
    json: bool,
}

impl Bans {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let Command::Rules(rules) = &self.command;
        rules.run();
        Ok(())
    }
}

impl Rules {
    fn run(&self) {
        if self.json {
            let stored = FAULT_RULES.iter().filter(|rule| bans(rule)).map(fault);
            let all: Vec<Value> = rules().iter().map(json).chain(stored).collect();
            print(&Value::from(all).to_string());
            return;
        }
        let row = |offence: &str, who: &str, length: &str, section: &str, text: &str| {
            format!("{offence:<28} {who:<10} {length:<8} {section:<24} {text}")
        };
        print(&row("OFFENCE", "WHO", "BAN", "SPECIFICATION", "FOR WHAT"));
        for rule in rules() {
            let sanction = rule.sanction(self.profile);
            let (who, length) = sanction.map_or_else(
                || ("nobody", "-".to_owned()),
                |sanction| (who(sanction.culprit), length(sanction)),
            );
            let section = format!("03 {}", rule.section);
            print(&row(rule.name, who, &length, &section, rule.text));
        }
        for rule in FAULT_RULES.iter().filter(|rule| bans(rule)) {
            let ban = rule.ruling(self.profile).ban;
            let (who, length) = ban.map_or_else(
                || ("nobody", "-".to_owned()),
                |severity| (who(Culprit::Source), text(seconds(severity))),
            );
            let name = format!("saf_{}", rule.name);
            print(&row(&name, who, &length, "05 8.1", rule.text));
        }
    }
}

fn json(rule: &Rule) -> Value {
    let sanction = |sanction: Option<Sanction>| {
        sanction.map(|sanction| {
            json!({
                "who": who(sanction.culprit),
                "severity": format!("{:?}", sanction.severity).to_lowercase(),
                "seconds": BanTerms::default().seconds(sanction.term),
            })
        })
    };
    json!({
        "offence": rule.name,
        "text": rule.text,
        "section": format!("03 {}", rule.section),
        "strict": sanction(rule.strict),
        "legacy": sanction(rule.legacy),
    })
}

/// Whether the fault of a stored message is a ban at all.
const fn bans(rule: &FaultRule) -> bool {
    rule.strict.ban.is_some() || rule.legacy.ban.is_some()
}

fn fault(rule: &FaultRule) -> Value {
    let sanction = |ban: Option<Severity>| {
        ban.map(|severity| {
            json!({
                "who": who(Culprit::Source),
                "severity": format!("{severity:?}").to_lowercase(),
                "seconds": seconds(severity),
            })
        })
    };
    json!({
        "offence": format!("saf_{}", rule.name),
        "text": rule.text,
        "section": "05 8.1",
        "strict": sanction(rule.strict.ban),
        "legacy": sanction(rule.legacy.ban),
    })
}

const fn seconds(severity: Severity) -> u64 {
    severity.default_seconds()
}

const fn who(culprit: Culprit) -> &'static str {
    match culprit {
        Culprit::Source => "deliverer",
        Culprit::Origin => "signer",
        Culprit::Sought => "sought",
    }
}

fn length(sanction: Sanction) -> String {
    text(BanTerms::default().seconds(sanction.term))
}

fn text(seconds: u64) -> String {
    match seconds {
        hours if hours % 3_600 == 0 => format!("{} h", hours / 3_600),
        minutes => format!("{} min", minutes / 60),
    }
}
