//! `bans`: who is banned for what.

use clap::{Args, Subcommand};
use dht_core::Severity;
use dht_inbound::{AttributionProfile, BanTerms, Culprit, Sanction, rules};
use dht_saf::{FAULT_RULES, FaultRule, TOO_MANY_MESSAGES};
use dht_transport::BAN_RULES;
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

/// One row, whichever crate's table it is from.
struct Row {
    offence: String,
    /// `None` if nobody is banned.
    strict: Option<Ban>,
    legacy: Option<Ban>,
    section: String,
    text: &'static str,
}

struct Ban {
    who: &'static str,
    severity: Severity,
    seconds: u64,
}

impl Rules {
    fn run(&self) {
        let rows = rows();
        if self.json {
            let all: Vec<Value> = rows.iter().map(Row::json).collect();
            print(&Value::from(all).to_string());
            return;
        }
        let line = |offence: &str, who: &str, length: &str, section: &str, text: &str| {
            format!("{offence:<28} {who:<10} {length:<8} {section:<24} {text}")
        };
        print(&line("OFFENCE", "WHO", "BAN", "SPECIFICATION", "FOR WHAT"));
        for row in rows {
            let ban = match self.profile {
                AttributionProfile::Strict => row.strict,
                AttributionProfile::Legacy => row.legacy,
            };
            let (who, length) = ban.map_or_else(
                || ("nobody", "-".to_owned()),
                |ban| (ban.who, length(ban.seconds)),
            );
            print(&line(&row.offence, who, &length, &row.section, row.text));
        }
    }
}

/// Everything a node bans for: on connections, in the inbound stack, in store-and-forward.
fn rows() -> Vec<Row> {
    let connections = BAN_RULES.iter().map(|rule| {
        let ban = || {
            Some(Ban {
                who: "peer",
                severity: Severity::High,
                seconds: rule.length.as_secs(),
            })
        };
        Row {
            offence: rule.name.to_owned(),
            strict: ban(),
            legacy: ban(),
            section: format!("02 {}", rule.section),
            text: rule.text,
        }
    });
    let inbound = rules().iter().map(|rule| Row {
        offence: rule.name.to_owned(),
        strict: rule.strict.map(Ban::from),
        legacy: rule.legacy.map(Ban::from),
        section: format!("03 {}", rule.section),
        text: rule.text,
    });
    let too_many = Row {
        offence: "saf_too_many_messages".to_owned(),
        strict: Some(answerer(Severity::High)),
        legacy: Some(answerer(Severity::High)),
        section: "05 8".to_owned(),
        text: TOO_MANY_MESSAGES,
    };
    let stored = FAULT_RULES
        .iter()
        .filter(|rule| bans(rule))
        .map(|rule| Row {
            offence: format!("saf_{}", rule.name),
            strict: rule.strict.ban.map(answerer),
            legacy: rule.legacy.ban.map(answerer),
            section: "05 8.1".to_owned(),
            text: rule.text,
        });
    connections
        .chain(inbound)
        .chain([too_many])
        .chain(stored)
        .collect()
}

/// Whether the fault of a stored message is a ban at all.
const fn bans(rule: &FaultRule) -> bool {
    rule.strict.ban.is_some() || rule.legacy.ban.is_some()
}

/// Whoever answered a request for mail.
const fn answerer(severity: Severity) -> Ban {
    Ban {
        who: who(Culprit::Source),
        severity,
        seconds: severity.default_seconds(),
    }
}

impl From<Sanction> for Ban {
    fn from(sanction: Sanction) -> Self {
        Self {
            who: who(sanction.culprit),
            severity: sanction.severity,
            seconds: BanTerms::default().seconds(sanction.term),
        }
    }
}

impl Row {
    fn json(&self) -> Value {
        let ban = |ban: &Option<Ban>| {
            ban.as_ref().map(|ban| {
                json!({
                    "who": ban.who,
                    "severity": format!("{:?}", ban.severity).to_lowercase(),
                    "seconds": ban.seconds,
                })
            })
        };
        json!({
            "offence": self.offence,
            "text": self.text,
            "section": self.section,
            "strict": ban(&self.strict),
            "legacy": ban(&self.legacy),
        })
    }
}

const fn who(culprit: Culprit) -> &'static str {
    match culprit {
        Culprit::Source => "deliverer",
        Culprit::Origin => "signer",
        Culprit::Sought => "sought",
    }
}

fn length(seconds: u64) -> String {
    match seconds {
        hours if hours % 3_600 == 0 => format!("{} h", hours / 3_600),
        minutes => format!("{} min", minutes / 60),
    }
}
