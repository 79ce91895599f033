//! Prints messages, and acks them once they were read.

use std::time::Duration;

use clap::Args;
use dht_api::{
    Client,
    types::{Ack, InboxMessage, MAX_TEXT_BYTES},
};
use tokio::time::sleep;

use crate::{
    exit::Failure,
    number::number,
    output::{all_read, check_open, is_read, json, print, print_read, printable},
    session::refused,
};

/// Messages that one request acks.
const MAX_ACKS: usize = 1000;
/// Interval at which a slow reader is looked after.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Selection of messages to print, and the form.
#[derive(Clone, Debug, Args)]
pub(crate) struct Print {
    /// Print one JSON object for each message instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop after this many messages, at least 1.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::<u64>(1..=u64::from(u32::MAX)))]
    pub(crate) count: Option<u64>,
}

/// Prints what waits for a consumer and what comes later.
pub(crate) async fn follow(
    client: &Client,
    consumer: &str,
    ack: bool,
    how: &Print,
) -> Result<(), Failure> {
    let mut printer = Printer::new(client, consumer, ack, how)?;
    let mut messages = client.inbox_stream(consumer, None);
    while printer.left > 0 {
        let message = tokio::select! {
            message = messages.next() => message.map_err(|error| refused(&error))?,
            () = sleep(LOOK_AGAIN), if !printer.unacked.is_empty() => {
                printer.ack_if_read().await?;
                continue;
            }
        };
        let message = message.ok_or_else(|| Failure::other("the node has stopped".to_owned()))?;
        printer.take(&message).await?;
    }
    printer.finish().await
}

/// Prints messages, and acks them once they were read.
pub(super) struct Printer<'a> {
    client: &'a Client,
    consumer: &'a str,
    acks: bool,
    how: &'a Print,
    /// Messages still to be printed.
    pub(super) left: u64,
    /// Ids of printed messages that are not acked. Bounded by what a pipe holds.
    unacked: Vec<u64>,
}

impl<'a> Printer<'a> {
    /// # Errors
    /// If messages are to be acked and standard output is closed.
    pub(super) fn new(
        client: &'a Client,
        consumer: &'a str,
        acks: bool,
        how: &'a Print,
    ) -> Result<Self, Failure> {
        if acks {
            check_open()?;
        }
        Ok(Self {
            client,
            consumer,
            acks,
            how,
            left: how.count.unwrap_or(u64::MAX),
            unacked: Vec::new(),
        })
    }

    pub(super) async fn take(&mut self, message: &InboxMessage) -> Result<(), Failure> {
        let line = if self.how.json {
            json(message)?
        } else {
            text_line(message)
        };
        self.left = self.left.saturating_sub(1);
        if !self.acks {
            return print(line).await;
        }
        // The last one is waited for in `finish`.
        if self.left == 0 {
            print(line).await?;
            self.unacked.push(message.id);
            return Ok(());
        }
        let is_read = print_read(line).await?;
        self.unacked.push(message.id);
        if is_read {
            self.ack().await?;
        }
        Ok(())
    }

    async fn ack_if_read(&mut self) -> Result<(), Failure> {
        if is_read().await? {
            self.ack().await?;
        }
        Ok(())
    }

    /// Waits for the reader once more, also for a slow one, and acks what was printed if it was read.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        if !self.unacked.is_empty() && all_read().await? {
            self.ack().await?;
        }
        Ok(())
    }

    /// Acks what was printed: these messages only, as another process of the same consumer may be between two others.
    async fn ack(&mut self) -> Result<(), Failure> {
        for ids in self.unacked.chunks(MAX_ACKS) {
            let ack = Ack {
                consumer: self.consumer.to_owned(),
                up_to: None,
                ids: ids.to_vec(),
            };
            let acked = self.client.ack(&ack).await;
            acked.map_err(|error| refused(&error))?;
        }
        self.unacked.clear();
        Ok(())
    }
}

/// A message as one line.
fn text_line(message: &InboxMessage) -> String {
    let sender = message
        .from
        .map_or_else(|| "anonymous".to_owned(), |key| key.to_string());
    let payload = &message.payload.0;
    let bytes = payload.len();
    let shown = match message.payload.text() {
        Some(text) => printable(text.trim_end()),
        None if bytes > MAX_TEXT_BYTES => format!("<{bytes} bytes; --json shows them in base64>"),
        None => format!("<{bytes} bytes that are not text; --json shows them in base64>"),
    };
    format!("{sender} {shown}")
}

#[cfg(test)]
mod tests {
    use dht_api::types::{Arrival, Base64, Version};
    use dht_core::NodeId;

    use super::*;

    fn received(payload: &'static [u8]) -> InboxMessage {
        InboxMessage {
            version: Version,
            id: 1,
            received_at: 2,
            from: None,
            message_type: 3,
            payload: Base64(payload.into()),
            text: None,
            via: NodeId::default(),
            arrival: Arrival::Live,
        }
    }

    #[test]
    fn control_characters_are_replaced() {
        let text = received("gr\u{fc}\u{df}e \u{1b}[31m\n".as_bytes());
        assert_eq!(text_line(&text), "anonymous gr\u{fc}\u{df}e \u{fffd}[31m");
        let binary = text_line(&received(&[0xff, 0]));
        assert!(binary.starts_with("anonymous <2 bytes"), "{binary}");
        let longer = vec![b'x'; MAX_TEXT_BYTES + 1].leak();
        let longer = text_line(&received(longer));
        assert!(longer.starts_with("anonymous <65537 bytes"), "{longer}");
    }
}
