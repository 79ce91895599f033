//! `status`: what the running node is and does.

use clap::Args;

use crate::{
    exit::Failure,
    home::Home,
    output::{self, print},
    session::{refused, running},
};

/// `dht-node status`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node status --home a\n  dht-node status --home a --json | jq .problems"
)]
pub(crate) struct Status {
    #[command(flatten)]
    home: Home,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let client = running(&self.home).await?;
        let status = client.status().await.map_err(|error| refused(&error))?;
        if self.json {
            return print(output::json(&status)?).await;
        }
        let totals = &status.totals;
        let up = status.now_at.saturating_sub(status.started_at);
        let mut rows = vec![
            ("address", status.peer_address.clone()),
            ("network", status.network.clone()),
            ("process", status.pid.to_string()),
            ("runs for", format!("{up} s")),
            ("connections", status.connections.to_string()),
            ("known peers", status.known_peers.to_string()),
            ("received", totals.messages_received.to_string()),
            ("delivered", totals.delivered.to_string()),
            ("forwarded", totals.forwarded.to_string()),
            ("dropped", totals.dropped.to_string()),
        ];
        if let Some(inbox) = status.inbox {
            let messages = inbox.messages;
            let rest = notes(
                inbox.full,
                inbox.refused,
                inbox.damaged,
                inbox.damaged_files,
            );
            rows.push(("inbox", format!("{messages} messages{rest}")));
        }
        if let Some(outbox) = status.outbox {
            let messages = outbox.messages;
            let rest = notes(outbox.full, outbox.refused, 0, outbox.damaged_files);
            rows.push(("outbox", format!("{messages} messages{rest}")));
        }
        if let Some(store) = status.store {
            rows.push(("stored", format!("{} messages for others", store.messages)));
        }
        let files = status.damaged_files;
        let files = [
            (files.peers, "of known peers"),
            (files.seen, "of messages seen"),
            (files.ledgers, "of messages received"),
        ];
        for (count, what) in files.into_iter().filter(|(count, _)| *count > 0) {
            rows.push(("damaged files", format!("{count} {what}, set aside")));
        }
        for problem in &status.problems {
            rows.push(("problem", problem.message.clone()));
        }
        let ready = if status.ready { "yes" } else { "no" };
        rows.push(("ready", ready.to_owned()));
        let lines: Vec<String> = rows
            .iter()
            .map(|(name, value)| format!("{name:<13} {value}"))
            .collect();
        print(lines.join("\n")).await
    }
}

/// Notes for an operator on an inbox or outbox beside the messages in it.
fn notes(full: bool, refused: u64, damaged: u64, damaged_files: u64) -> String {
    let counts = [
        (refused, "refused"),
        (damaged, "damaged"),
        (damaged_files, "damaged files set aside"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, what)| format!(", {count} {what}"));
    let full = full.then(|| ", full".to_owned());
    full.into_iter().chain(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::notes;

    #[test]
    fn damaged_files_are_named() {
        assert_eq!(notes(false, 0, 0, 0), "");
        let all = notes(true, 3, 2, 1);
        assert_eq!(
            all,
            ", full, 3 refused, 2 damaged, 1 damaged files set aside"
        );
    }
}
