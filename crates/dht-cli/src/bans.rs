//! `bans`: the bans of the running node, and the offences for which a node bans peers.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use dht_api::types::{BanEntry, BanList, MAX_BAN_SECONDS, NewBan};
use dht_peers::policy::{AttributionProfile, BanTerms, Penalty, Rule, rules};
use serde_json::{Value, json};

use crate::{
    exit::Failure,
    home::Home,
    number::number,
    output::{self, print, printable},
    session::{refused, running},
    target::KnownPeer,
};

/// The last second that has a year of four digits.
const END_OF_9999: u64 = 253_402_300_799;

/// `dht-node bans`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node bans list --home a\n  dht-node bans add --home a KEY --seconds 3600 --reason noise\n  \
    dht-node bans lift --home a KEY\n  dht-node bans rules"
)]
pub(crate) struct Bans {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the bans in force.
    List(List),
    /// Ban a peer and close its connection.
    Add(Add),
    /// Lift the ban of a peer.
    Lift(Lift),
    /// Print each offence with the banned party, the length of the ban and its section of the specification.
    Rules(Rules),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node bans list --home a\n  dht-node bans list --home a --json"
)]
struct List {
    #[command(flatten)]
    home: Home,
    /// Print one JSON object with all of them.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dht-node bans add --home a KEY --seconds 3600 --reason noise")]
struct Add {
    #[command(flatten)]
    home: Home,
    /// Public key or node id of the peer.
    #[arg(value_name = "KEY|ID")]
    peer: KnownPeer,
    /// Length of the ban, 1 to 4294967295; without it, the ban lasts until it is lifted.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number::<u64>(1..=MAX_BAN_SECONDS))]
    seconds: Option<u64>,
    /// Reason that is shown with the ban.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON object with all bans.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dht-node bans lift --home a KEY")]
struct Lift {
    #[command(flatten)]
    home: Home,
    /// Public key or node id of the peer.
    #[arg(value_name = "KEY|ID")]
    peer: KnownPeer,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
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
        match &self.command {
            Command::List(list) => {
                let client = running(&list.home).await?;
                let bans = client.bans().await;
                show(&bans.map_err(|error| refused(&error))?, list.json).await
            }
            Command::Add(add) => {
                let client = running(&add.home).await?;
                let ban = NewBan {
                    peer: add.peer.as_str().to_owned(),
                    seconds: add.seconds,
                    reason: add.reason.clone(),
                };
                let bans = client.ban(&ban).await;
                show(&bans.map_err(|error| refused(&error))?, add.json).await
            }
            Command::Lift(lift) => {
                let client = running(&lift.home).await?;
                let done = client.lift_ban(lift.peer.as_str()).await;
                let done = done.map_err(|error| refused(&error))?;
                print(match (lift.json, done.changed) {
                    (true, _) => output::json(&done)?,
                    (false, true) => "lifted".to_owned(),
                    (false, false) => "was not banned".to_owned(),
                })
                .await
            }
            Command::Rules(rules) => print(rules.text()).await,
        }
    }
}

async fn show(list: &BanList, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(output::json(list)?).await;
    }
    for ban in &list.bans {
        print(line(ban)).await?;
    }
    Ok(())
}

fn line(ban: &BanEntry) -> String {
    let key = ban.public_key.map(|key| key.to_string());
    let until = ban.until.map_or_else(
        || "for ever".to_owned(),
        |until| format!("until {}", utc(until)),
    );
    format!(
        "{} {} {until} {}: {}",
        ban.node_id,
        key.as_deref().unwrap_or("-"),
        ban.offence.as_deref().unwrap_or("operator"),
        printable(&ban.reason)
    )
}

/// A time as people read it, to the second.
fn utc(seconds: u64) -> impl std::fmt::Display {
    let at = Duration::from_secs(seconds.min(END_OF_9999));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + at)
}

impl Rules {
    fn text(&self) -> String {
        if self.json {
            let all: Vec<Value> = rules().iter().map(json).collect();
            return Value::from(all).to_string();
        }
        let line =
            |offence: &str, who: &str, length: &str, section: &str, text: &str, framed: &str| {
                format!("{offence:<28} {who:<10} {length:<8} {section:<24} {text:<80} {framed}")
            };
        let mut lines = vec![line(
            "OFFENCE",
            "WHO",
            "BAN",
            "SPECIFICATION",
            "FOR WHAT",
            "WHO COULD FRAME AN HONEST PEER",
        )];
        for rule in rules() {
            let (who, length) = rule.offence.penalty(self.profile).map_or_else(
                || ("nobody", "-".to_owned()),
                |penalty| (penalty.party.name(), length(seconds(penalty))),
            );
            let framed = rule.framed_by.unwrap_or("nobody");
            lines.push(line(
                rule.name,
                who,
                &length,
                rule.section,
                rule.text,
                framed,
            ));
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
        "framed_by": rule.framed_by,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(utc(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(utc(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }
}
