//! `send`: starts a node, sends one message, and stops the node.

use std::{
    io::{ErrorKind, Read as _},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use dht_core::{ClaimError, PeerAddress};
use dht_node::{MAX_PAYLOAD_BYTES, Message, Node, SendOptions};
use dht_transport::{DialError, IdentityError, UpgradeError};

use crate::{
    exit::{Failure, chain},
    home::Home,
    listen, log,
    output::print,
    signals,
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
        let payload = signals::or_interrupted(self.payload()).await?;
        let bytes = payload.len();
        if bytes > MAX_PAYLOAD_BYTES {
            return Err(Failure::other(format!(
                "the message has more than {MAX_PAYLOAD_BYTES} bytes, the limit; send it in parts"
            )));
        }
        let settings = self.home.settings()?;
        log::set(settings.log.as_ref());
        let _lock = self.home.lock("send")?;
        let secret = self.home.key_or_new()?;
        let mut config = settings.node;
        // This node only dials.
        config.listen.clear();
        config.peers.clear();
        // Messages that this short-lived node stored for others would be lost with it.
        config.saf.enabled = false;
        let node = Node::builder(secret)
            .config(config)
            .start()
            .await
            .map_err(|error| listen::not_started(&error))?;
        node.add_peer(&self.to);
        let message = Message {
            message_type: self.message_type,
            payload,
        };
        let limit = Duration::from_secs(self.timeout);
        let sending = self.send(&node, message);
        let outcome = tokio::select! {
            sent = tokio::time::timeout(limit, sending) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(Failure::unreachable(format!("not sent within {limit:?}; see --timeout"))),
            },
            () = signals::stopped() => Err(Failure::interrupted()),
        };
        node.shutdown().await;
        outcome?;
        let to = self.to.public_key.to_string();
        let text = if self.json {
            serde_json::json!({ "to": to, "bytes": bytes }).to_string()
        } else {
            format!("sent {bytes} bytes to {to}")
        };
        signals::or_interrupted(print(text)).await
    }

    async fn send(&self, node: &Node, message: Message) -> Result<(), Failure> {
        // Connecting first tells why a peer cannot be reached.
        node.connect(&self.to)
            .await
            .map_err(|error| Failure::unreachable(explain(&error)))?;
        let options = SendOptions {
            direct_only: true,
            ..SendOptions::default()
        };
        let sent = node.send(&self.to.public_key, message, options).await;
        let mut delivery = sent.map_err(|error| Failure::unreachable(chain(&error)))?;
        let sent = delivery.first_attempt().await;
        sent.map(drop)
            .map_err(|error| Failure::unreachable(chain(&error)))
    }

    async fn payload(&self) -> Result<Bytes, Failure> {
        if let Some(text) = &self.text {
            return Ok(text.clone().into());
        }
        let path = self.file.clone();
        let name = path.as_ref().map_or_else(
            || "standard input".to_owned(),
            |path| path.display().to_string(),
        );
        // Input may take as long as it likes; signals are served meanwhile.
        let read = tokio::task::spawn_blocking(move || match path {
            Some(path) => std::fs::File::open(path).and_then(read_bounded),
            None => read_bounded(std::io::stdin()),
        });
        read.await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| Failure::other(format!("cannot read {name}: {error}")))
    }
}

/// Why a peer was not reached, with everything that caused it and what can be done about it.
fn explain(error: &DialError) -> String {
    let text = chain(error);
    let advice = match error {
        DialError::Connect(ErrorKind::ConnectionRefused) => {
            "; is the peer running, and is the port right?"
        }
        DialError::Upgrade(UpgradeError::WrongKey) => {
            "; ask the peer for its address, as printed by: dht-node id --address"
        }
        DialError::Upgrade(
            UpgradeError::Noise(_) | UpgradeError::WireByte(_) | UpgradeError::Io(_),
        ) => "; the other side ended the handshake: is it on the same network (--network)?",
        DialError::Upgrade(UpgradeError::Identity(IdentityError::Io(_))) => {
            "; the peer refused our identity: is the clock of this machine right?"
        }
        DialError::Upgrade(UpgradeError::Identity(IdentityError::Claim(
            ClaimError::NegativeTime | ClaimError::FromTheFuture | ClaimError::BadSignature,
        ))) => "; are the clocks of both machines right?",
        _ => "",
    };
    format!("{text}{advice}")
}

/// Reads at most one byte more than can be sent, which is enough to notice that the input is too long.
fn read_bounded(from: impl std::io::Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    from.take(MAX_PAYLOAD_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
