//! `run` and `listen`: a node that runs until it is interrupted.

use clap::Args;
use dht_node::{Message, Node, Received, StartError};
use serde_json::json;

use crate::{
    exit::Failure,
    home::{Home, print},
};

/// `dht-node run`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dht-node run --home a --listen /ip4/0.0.0.0/tcp/18189 --log info"
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
        serve(&self.home, None, |received| {
            tracing::info!(from = %sender(received), bytes = received.message.payload.len(), "message received");
        })
        .await
    }
}

impl Listen {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        serve(&self.home, self.count, |received| {
            print(&line(received, self.json));
        })
        .await
    }
}

/// Starts the node of this home.
pub(crate) async fn start(home: &Home) -> Result<Node, Failure> {
    let secret = home.secret_key()?;
    let config = home.config()?;
    Node::builder(secret)
        .config(config)
        .home(home.path())
        .start()
        .await
        .map_err(not_started)
}

/// The failure of a node that did not start, with its exit code.
pub(crate) fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Listen { .. } => Failure::listen(error.to_string()),
        StartError::Config(_) | StartError::Identity(_) => Failure::config(error.to_string()),
        error => Failure::other(error.to_string()),
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

#[expect(
    clippy::print_stderr,
    reason = "tells the person at the terminal what runs"
)]
async fn serve(
    home: &Home,
    count: Option<u64>,
    on_message: impl Fn(&Received),
) -> Result<(), Failure> {
    // Before "running as" is printed, so that a reader of that line can interrupt the node.
    let mut interrupt = std::pin::pin!(interrupted());
    let node = start(home).await?;
    let mut inbox = node.subscribe();
    home.write_addresses(&node.listen_addresses())?;
    eprintln!("running as {}; stop with ctrl-c", node.peer_address());
    let mut left = count.unwrap_or(u64::MAX);
    let outcome = loop {
        if left == 0 {
            break Ok(());
        }
        tokio::select! {
            received = inbox.recv() => match received {
                Some(received) => {
                    on_message(&received);
                    left -= 1;
                }
                None => break Err(Failure::other("the node stopped unexpectedly".to_owned())),
            },
            () = &mut interrupt => break Ok(()),
        }
    };
    home.remove_addresses();
    node.shutdown().await;
    outcome
}

/// Ends on SIGINT or SIGTERM. Signals are caught from this call on, before the future is first polled.
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        )
    };
    async move {
        #[cfg(unix)]
        if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
        // Without signals only the end of the process stops the node.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
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
