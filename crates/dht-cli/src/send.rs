//! `send`: starts a node, sends one message, and stops the node.

use std::{io::Read as _, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use dht_core::PeerAddress;
use dht_node::{MAX_PAYLOAD_BYTES, Message};

use crate::{
    exit::Failure,
    home::{Home, print},
    listen,
};

/// `dht-node send`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node send --home b --to \"$(dht-node id --home a --address)\" --text hi\n  \
    dht-node send --to KEY::/ip4/203.0.113.7/tcp/18189 --file letter.txt\n  echo hi | dht-node send --to KEY::ADDR"
)]
pub(crate) struct Send {
    #[command(flatten)]
    home: Home,
    /// The recipient, as printed by `dht-node id --address`.
    #[arg(long, value_name = "KEY::ADDR")]
    to: PeerAddress,
    /// Send this text.
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    text: Option<String>,
    /// Send the content of this file; standard input without --text and --file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Message type of the application.
    #[arg(long = "type", value_name = "NUMBER", default_value_t = 0)]
    message_type: i32,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Send {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let payload = self.payload()?;
        let bytes = payload.len();
        if bytes > MAX_PAYLOAD_BYTES {
            return Err(Failure::other(format!(
                "the message has more than {MAX_PAYLOAD_BYTES} bytes, the limit; send it in parts"
            )));
        }
        let secret = self.home.secret_key()?;
        let mut config = self.home.config()?;
        // The node of this home may be running: leave its port free.
        config.listen.clear();
        config.peers.clear();
        // Messages that this short-lived node stored for others would be lost with it.
        config.saf.enabled = false;
        let node = dht_node::Node::builder(secret)
            .config(config)
            .start()
            .await
            .map_err(|error| Failure::other(error.to_string()))?;
        node.add_peer(&self.to);
        let message = Message {
            message_type: self.message_type,
            payload,
        };
        let limit = Duration::from_secs(self.timeout);
        let sending = tokio::time::timeout(limit, node.send(&self.to.public_key, message));
        let outcome = tokio::select! {
            sent = sending => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Failure::unreachable(format!(
                    "{error}; is the peer running, and are address and network right?"
                ))),
                Err(_) => Err(Failure::unreachable(format!("not sent within {limit:?}; see --timeout"))),
            },
            () = listen::interrupted() => Err(Failure::interrupted()),
        };
        node.shutdown().await;
        outcome?;
        let to = self.to.public_key.to_string();
        print(&if self.json {
            serde_json::json!({ "to": to, "bytes": bytes }).to_string()
        } else {
            format!("sent {bytes} bytes to {to}")
        });
        Ok(())
    }

    fn payload(&self) -> Result<Bytes, Failure> {
        if let Some(text) = &self.text {
            return Ok(text.clone().into());
        }
        let (name, read) = match &self.file {
            Some(path) => {
                let file = std::fs::File::open(path);
                (path.display().to_string(), file.and_then(read_bounded))
            }
            None => ("standard input".to_owned(), read_bounded(std::io::stdin())),
        };
        read.map_err(|error| Failure::other(format!("cannot read {name}: {error}")))
    }
}

/// Reads at most one byte more than can be sent, which is enough to notice that the input is too long.
fn read_bounded(from: impl std::io::Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    from.take(MAX_PAYLOAD_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
