//! `run` and `listen`: a node that runs until it is interrupted.

use clap::Args;
use dht_core::SecretKey;
use dht_node::{Event, Message, Node, Received, StartError};
use serde_json::json;

use crate::{
    exit::{Failure, chain},
    home::Home,
    log,
    output::{print, say},
    settings::Settings,
    signals,
};

/// `dht-node run`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node run --home a --listen /ip4/0.0.0.0/tcp/18189 --log info\n  \
    kill -HUP PID     # reads config.toml again: takes the log filter, names what needs a restart\n\n\
    A home is made with `dht-node init`. SIGINT and SIGTERM stop the node within 5 seconds, the second at once."
)]
pub(crate) struct Run {
    #[command(flatten)]
    home: Home,
}

/// `dht-node listen`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node listen --home a\n  dht-node listen --home a --json --count 1"
)]
pub(crate) struct Listen {
    #[command(flatten)]
    home: Home,
    /// Print one JSON object for each message instead of text.
    #[arg(long)]
    json: bool,
    /// Stop after this many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Run {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let _lock = self.home.lock("run")?;
        let secret = self.home.key()?;
        // Messages stay in the inbox for whoever reads it.
        serve(
            &self.home,
            secret,
            Some(0),
            std::future::pending,
            async |_| Ok(()),
        )
        .await
    }
}

impl Listen {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let _lock = self.home.lock("listen")?;
        let secret = self.home.key_or_new()?;
        let then = || std::future::ready(());
        serve(&self.home, secret, self.count, then, async |received| {
            print(line(received, self.json)).await
        })
        .await
    }
}

/// The failure of a node that did not start, with its exit code.
pub(crate) fn not_started(error: &StartError) -> Failure {
    let text = chain(error);
    match error {
        StartError::Listen { .. } => Failure::listen(text),
        StartError::Config(_) | StartError::Identity(_) => Failure::config(text),
        _ => Failure::other(text),
    }
}

/// Formats a message as one line.
pub(crate) fn line(received: &Received, json: bool) -> String {
    if json {
        json_line(received)
    } else {
        text_line(received)
    }
}

/// Runs the node of a home, reads `count` messages out of its inbox, does what comes `then`, and stops the node.
async fn serve<F: Future<Output = ()>>(
    home: &Home,
    secret: SecretKey,
    count: Option<u64>,
    then: impl FnOnce() -> F,
    on_message: impl AsyncFn(&Received) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut settings = home.settings()?;
    log::set(settings.log.as_ref());
    let node = Node::builder(secret)
        .config(settings.node.clone())
        .home(home.path())
        .start()
        .await
        .map_err(|error| not_started(&error))?;
    let (mut inbox, mut events) = (node.subscribe(), node.events());
    // A home on a full disk still runs; `id` then prints the configured addresses.
    if let Err(failure) = home.write_addresses(&node.listen_addresses()) {
        tracing::warn!(%failure, "the addresses of this node are not written");
    }
    say(
        &format!("running as {}; stop with ctrl-c", node.peer_address()),
        signals::STOP_LIMIT,
    );
    let messages = async {
        let mut left = count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(received) = inbox.recv().await else {
                return Err(Failure::other("the node stopped unexpectedly".to_owned()));
            };
            on_message(&received).await?;
            left -= 1;
        }
        // What was printed is not printed again.
        inbox.ack().await;
        then().await;
        Ok(())
    };
    let reloads = async {
        loop {
            signals::reload().await;
            reload(home, &mut settings);
        }
    };
    let failure = async {
        while let Some(event) = events.recv().await {
            if let Event::Failed { part, reason } = event {
                return Failure::other(format!("{part} has stopped: {reason}"));
            }
        }
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = messages => outcome,
        failure = failure => Err(failure),
        () = signals::stopped() => Ok(()),
        () = reloads => Ok(()),
    };
    home.remove_addresses();
    node.shutdown().await;
    outcome
}

/// Reads the settings again and takes what can change while the node runs: the filter of the log.
fn reload(home: &Home, settings: &mut Settings) {
    let read = match home.settings() {
        Ok(read) => read,
        Err(failure) => {
            tracing::error!(%failure, "the settings are not valid; those before stay");
            return;
        }
    };
    let log = read.log != settings.log && log::set(read.log.as_ref());
    let filter = read.log.clone().unwrap_or_default();
    let later = read.changed(settings);
    // Both are what the operator asked for, so they are seen with the default filter.
    if later.is_empty() {
        tracing::warn!(changed = log, log = filter.as_str(), "settings read again");
    } else {
        tracing::warn!(
            changed = log,
            log = filter.as_str(),
            needs_restart = later.join(", "),
            "settings read again"
        );
    }
    // What needs a restart is reported until then.
    settings.log = read.log;
}

fn sender(received: &Received) -> String {
    received
        .sender
        .map_or_else(|| "anonymous".to_owned(), |key| key.to_string())
}

/// Replaces control characters, with which a sender could write anything on the terminal.
fn text_line(received: &Received) -> String {
    let payload = &received.message.payload;
    let shown = match str::from_utf8(payload) {
        Ok(text) => text
            .trim_end()
            .chars()
            .map(|c| {
                if c.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect(),
        Err(_) => format!(
            "<{} bytes that are not text; --json shows them>",
            payload.len()
        ),
    };
    format!("{} {shown}", sender(received))
}

fn json_line(received: &Received) -> String {
    let Message {
        message_type,
        payload,
    } = &received.message;
    json!({
        "sender": received.sender.map(|key| key.to_string()),
        "via": received.via.to_string(),
        "type": message_type,
        "bytes": payload.len(),
        "text": str::from_utf8(payload).ok(),
        "base64": data_encoding::BASE64.encode(payload),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use dht_core::NodeId;

    use super::*;

    fn received(payload: &'static [u8]) -> Received {
        Received {
            sender: None,
            via: NodeId::default(),
            message: Message {
                message_type: 3,
                payload: payload.into(),
            },
        }
    }

    #[test]
    fn control_characters_are_replaced() {
        let text = received("gr\u{fc}\u{df}e \u{1b}[31m\n".as_bytes());
        assert_eq!(line(&text, false), "anonymous gr\u{fc}\u{df}e \u{fffd}[31m");
        let binary = line(&received(&[0xff, 0]), false);
        assert!(binary.starts_with("anonymous <2 bytes"), "{binary}");
    }

    #[test]
    fn json_lines_carry_every_byte() {
        let json: serde_json::Value = line(&received(&[0xff, 0]), true).parse().unwrap();
        assert_eq!(json["text"], serde_json::Value::Null);
        assert_eq!(
            (&json["bytes"], &json["base64"]),
            (&2.into(), &"/wA=".into())
        );
        assert_eq!((&json["type"], &json["sender"]), (&3.into(), &json!(null)));
    }
}
