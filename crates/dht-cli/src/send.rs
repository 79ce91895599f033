//! `send`: gives a message to the node of a home, and waits for what becomes of it.

use std::{io::Read as _, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use dht_api::{
    Client,
    types::{MAX_TTL_SECONDS, MessageState, NewMessage, OutgoingMessage},
};
use dht_core::PublicKey;
use dht_node::MAX_PAYLOAD_BYTES;
use tokio::time::{Instant, timeout_at};

use crate::{
    exit::Failure,
    home::{DialingHome, Home},
    number::number,
    output::{json, print},
    progress::shown,
    session::{Session, appearance, refused, warn},
    settings::has_no_bootstrap,
    signals,
    target::Recipient,
};

/// Consequence of a short-lived node reaching nobody: it goes no further.
const NOT_QUEUED: &str = "nothing was queued: send it again later, or through a node that runs (`dht-node run`), which keeps \
    it until it is delivered";

/// Consequence of a node that does not answer.
const PERHAPS_QUEUED: &str =
    "it may be queued all the same: sent again with one --key, it is one message";

/// `dht-node send`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node send --home b --to \"$(dht-node id --home a --address)\" --text hi\n  \
    dht-node send --home b --to KEY --text hi --wait received     # searches for the key\n  \
    dht-node send --to KEY --file letter.txt --key letter-17      # once, however often it runs\n  \
    echo hi | dht-node send --to KEY::ADDR\n\n\
    If a node runs on the home, it sends the message. If none does, the command starts one for as long as it waits. A \
    message that was taken and has not come as far when the time is over stays in the outbox of the home: the node goes \
    on, or the next one does."
)]
pub(crate) struct Send {
    #[command(flatten)]
    home: DialingHome,
    /// The recipient: KEY::ADDR as printed by `dht-node id --address`, or the public key alone, which is searched for.
    #[arg(long, value_name = "KEY[::ADDR]")]
    to: Recipient,
    /// Send this text.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    text: Option<String>,
    /// Send the content of this file; standard input without --text and --file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Message type of the application.
    #[arg(long = "type", value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true,
        value_parser = number(i32::MIN..=i32::MAX))]
    message_type: i32,
    /// How far the message must have come.
    #[arg(long, value_enum, value_name = "STATE", default_value_t = Wait::Sent)]
    wait: Wait,
    /// Give up waiting after this many seconds, at least 1.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        allow_negative_numbers = true, value_parser = number::<u64>(1..=MAX_TTL_SECONDS))]
    timeout: u64,
    /// Seconds for which the message is tried, at most 3 days.
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_TTL_SECONDS,
        allow_negative_numbers = true, value_parser = number::<u64>(1..=MAX_TTL_SECONDS))]
    ttl: u64,
    /// Own name for the message, at most 128 bytes: the same message with the same name is sent once.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How far a message must have come before the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Wait {
    /// A copy has left this node.
    Sent,
    /// Other nodes store it, or the recipient has it.
    Stored,
    /// The node of the recipient has confirmed it.
    Received,
}

impl Wait {
    /// Whether a message in this state has come as far.
    const fn is_over(self, state: MessageState) -> bool {
        match state {
            MessageState::Received => true,
            MessageState::Stored => !matches!(self, Self::Received),
            MessageState::Sent => matches!(self, Self::Sent),
            _ => false,
        }
    }
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
        let mut message = NewMessage::bytes(self.to.key, payload);
        message.message_type = self.message_type;
        message.ttl_seconds = Some(self.ttl);
        message.key.clone_from(&self.key);
        let home = self.home.home();
        if self.to.peer.is_none() && has_no_bootstrap(&home.config()?) {
            signals::or_interrupted(appearance(&home)).await?;
        }
        let sending =
            async |session: &Session| shown("sending", self.send(&home, session, &message)).await;
        let (sent, detour) = Session::with(&home, "send", Home::key_or_new, sending).await?;
        let text = if self.json {
            if let Some(Detour::Unreached(cause)) = &detour {
                warn(cause);
            }
            json(&sent)?
        } else {
            outcome_line(&sent, bytes, detour.as_ref())
        };
        signals::or_interrupted(print(text)).await
    }

    /// The message as far as it has come, and whether only other nodes have it.
    async fn send(
        &self,
        home: &Home,
        session: &Session,
        message: &NewMessage,
    ) -> Result<(OutgoingMessage, Option<Detour>), Failure> {
        let limit = Duration::from_secs(self.timeout);
        let until = Instant::now() + limit;
        let late =
            |what: &str| Failure::unreachable(format!("{what} within {limit:?}; see --timeout"));
        let dial_failure = timeout_at(until, self.prepare(home, session))
            .await
            .map_err(|_| late("not connected").with(NOT_QUEUED))??;
        let sent = timeout_at(until, session.client.send(message)).await;
        let mut sent = sent
            .map_err(|_| late("not taken by the node").with(PERHAPS_QUEUED))?
            .map_err(|error| refused(&error))?;
        while !self.wait.is_over(sent.state) {
            if sent.state.has_ended() || sent.ended_at.is_some() {
                return Err(ended(&sent, dial_failure.as_ref()));
            }
            let changed = timeout_at(until, session.client.message_after(sent.id, sent.state));
            match changed.await {
                Ok(now) => sent = now.map_err(|error| refused(&error))?,
                Err(_) => {
                    let now = session.client.message(sent.id).await;
                    let now = now.as_ref().unwrap_or(&sent);
                    return Err(not_so_far(home, now, dial_failure.as_ref(), limit));
                }
            }
        }
        let detour = match dial_failure {
            Some(cause) => Some(Detour::Unreached(cause)),
            None if sent.state == MessageState::Received => None,
            // A copy goes to the recipient over a connection, and to others while there is none.
            None => match session.client.peer(&sent.to.to_string()).await {
                Ok(found) if found.peer.is_connected => None,
                _ => Some(Detour::NotConnected),
            },
        };
        Ok((sent, detour))
    }

    /// Connects to the recipient at the address given; why it is not reached if other nodes may reach it. A short-lived
    /// node also connects to the configured peers.
    async fn prepare(&self, home: &Home, session: &Session) -> Result<Option<Failure>, Failure> {
        let config = home.config()?;
        let is_alone = session.own.is_some() && has_no_bootstrap(&config);
        let dial_failure = match &self.to.peer {
            None if is_alone && self.to.key != own_key(&session.client).await? => {
                return Err(Failure::config(
                    "no node to ask for the recipient; name its address with --to KEY::ADDR, or set peers or seeds in the configuration"
                        .to_owned(),
                ));
            }
            // A message to this node itself needs no connection.
            Some(_) if self.to.key == own_key(&session.client).await? => return Ok(None),
            Some(peer) => match session.reach(std::iter::once(peer)).await {
                Err(failure) if is_alone => return Err(failure.with(NOT_QUEUED)),
                Err(failure) => Some(failure),
                Ok(()) => None,
            },
            None => None,
        };
        let reached = session.reach_configured(&config, &[]).await;
        reached.map_err(|failure| failure.with(NOT_QUEUED))?;
        Ok(dial_failure)
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

/// Why only other nodes have a message.
enum Detour {
    /// The recipient was not reached at the address given.
    Unreached(Failure),
    /// The recipient is not connected.
    NotConnected,
}

/// Outcome of a message. A copy that was sent while the recipient was not reached has only gone to other nodes.
fn outcome_line(sent: &OutgoingMessage, bytes: usize, detour: Option<&Detour>) -> String {
    let (state, to) = (sent.state.name(), sent.to);
    let cause = detour.map(|detour| match detour {
        Detour::Unreached(cause) => cause.to_string(),
        Detour::NotConnected => {
            let error = sent.last_error.as_deref();
            error.unwrap_or("it is not connected").to_owned()
        }
    });
    match (sent.state, cause) {
        (MessageState::Sent, Some(cause)) => {
            format!("{state} {bytes} bytes towards {to} by other nodes: {cause}")
        }
        (MessageState::Stored, Some(cause)) => {
            format!("{state} {bytes} bytes for {to} at other nodes: {cause}")
        }
        _ => format!("{state} {bytes} bytes to {to}"),
    }
}

/// Why a message has not come further. The failure to connect to the recipient says more than that of a later attempt.
fn reason<'a>(sent: &'a OutgoingMessage, dial_failure: Option<&'a Failure>) -> Option<&'a str> {
    match (&sent.reason, dial_failure) {
        (Some(reason), _) => Some(reason),
        (None, Some(dial_failure)) => match sent.last_error.as_deref() {
            // Waiting for holders is in vain.
            Some(error) if error.starts_with("too large for holders") => Some(error),
            _ => Some(dial_failure.message()),
        },
        (None, None) => sent.last_error.as_deref(),
    }
}

/// No attempt follows, and the message has not come as far.
fn ended(sent: &OutgoingMessage, dial_failure: Option<&Failure>) -> Failure {
    let (id, state) = (sent.id, sent.state.name());
    Failure::unreachable(match sent.state {
        MessageState::Sent => {
            format!("message {id} is sent, to a node that gives no receipts")
        }
        MessageState::Stored => {
            let holders = sent.holders.unwrap_or(1);
            format!(
                "message {id} is stored: the nodes that have it, {holders}, deliver it when the recipient is back"
            )
        }
        _ => {
            let reason = reason(sent, dial_failure).unwrap_or("no reason given");
            format!("{state}: {reason}")
        }
    })
}

/// The time is over, and the message stays in the outbox.
fn not_so_far(
    home: &Home,
    now: &OutgoingMessage,
    dial_failure: Option<&Failure>,
    limit: Duration,
) -> Failure {
    let reason = reason(now, dial_failure);
    let reason = reason.map_or_else(String::new, |error| format!(": {error}"));
    Failure::unreachable(format!(
        "message {} is {} after {limit:?}{reason}; it stays in the outbox of {} and is tried again; see --timeout",
        now.id,
        now.state.name(),
        home.path().display()
    ))
}

async fn own_key(client: &Client) -> Result<PublicKey, Failure> {
    let status = client.status().await;
    status
        .map(|status| status.public_key)
        .map_err(|error| refused(&error))
}

/// Reads at most one byte more than can be sent, which is enough to notice that the input is too long.
fn read_bounded(from: impl std::io::Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    from.take(MAX_PAYLOAD_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
