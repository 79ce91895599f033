//! `run` and `listen`: a node until interrupted.

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
    /// One JSON object a line instead of text.
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

/// Starts a node of this home.
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

/// What kept a node from starting, with its exit code.
pub(crate) fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Listen { .. } => Failure::listen(error.to_string()),
        StartError::Identity(_) => Failure::config(error.to_string()),
        error => Failure::other(error.to_string()),
    }
}

/// A message as one line.
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
    // First, so that whoever reads "running as" can stop it.
    let mut interrupt = std::pin::pin!(interrupted());
    let node = start(home).await?;
    let mut inbox = node.subscribe();
    home.note_addresses(&node.listen_addresses())?;
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
                None => break Err(Failure::other("the node stopped by itself".to_owned())),
            },
            () = &mut interrupt => break Ok(()),
        }
    };
    home.forget_addresses();
    node.shutdown().await;
    outcome
}

/// Ends on ctrl-c or a request to terminate, from the moment of this call: before anybody polls it, a signal no
/// longer ends the process.
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
        // Without signals there is nothing to wait for but the end of the process.
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

/// Control characters would let a sender write anything on the terminal.
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
            "<{} bytes that are no text; --json shows them>",
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
