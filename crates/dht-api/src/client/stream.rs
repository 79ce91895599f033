//! Streams that connect again and go on where they were.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{StatusCode, body::Incoming};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Call, Client, ClientError, answer,
    sse::{SseEvent, SseParser},
};
use crate::types::{ErrorBody, InboxMessage, NodeEvent};

/// Time without any byte after which a connection counts as lost: three of the server's signs of life.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// Time for which a lost node is tried again, by default: 30 s, enough for a restart.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
/// First and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Received messages as they come; see [`Client::inbox_stream`].
#[derive(Debug)]
pub struct InboxReader {
    consumer: String,
    stream: Stream,
}

/// Events as they come; see [`Client::events`].
#[derive(Debug)]
pub struct EventReader {
    stream: Stream,
}

/// A stream of server-sent events over one connection after another.
#[derive(Debug)]
struct Stream {
    client: Client,
    /// Id of the last event that was handed out.
    last: Option<u64>,
    /// Time for which a lost node is tried again.
    patience: Duration,
    connected: Option<(Incoming, SseParser)>,
    /// Since when there is no connection, and the pause before the next attempt.
    lost: Option<(Instant, Duration)>,
}

impl InboxReader {
    pub(super) const fn new(client: Client, consumer: String, after: Option<u64>) -> Self {
        Self {
            consumer,
            stream: Stream::new(client, after),
        }
    }

    /// Sets for how long a node that went away is tried again. Defaults to 30 s.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.stream.patience = patience;
        self
    }

    /// The next message; `None` when the node stops in order. Calling again connects again.
    ///
    /// A message that is not acked comes again in a later stream of the same consumer, not in this one.
    ///
    /// # Errors
    /// [`ClientError`]: the node refused, or is gone for longer than the patience. The call may be repeated.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Result<Option<InboxMessage>, ClientError> {
        let consumer = Some(&self.consumer);
        self.stream
            .next(|| Call::get("/v1/inbox/stream").with("consumer", consumer))
            .await
    }
}

impl EventReader {
    pub(super) const fn new(client: Client) -> Self {
        Self {
            stream: Stream::new(client, None),
        }
    }

    /// Sets for how long a node that went away is tried again. Defaults to 30 s.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.stream.patience = patience;
        self
    }

    /// The next event; `None` when the node stops in order. Calling again connects again.
    ///
    /// # Errors
    /// [`ClientError`]: the node refused, or is gone for longer than the patience. The call may be repeated.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Result<Option<NodeEvent>, ClientError> {
        self.stream.next(|| Call::get("/v1/events")).await
    }
}

impl Stream {
    const fn new(client: Client, last: Option<u64>) -> Self {
        Self {
            client,
            last,
            patience: DEFAULT_PATIENCE,
            connected: None,
            lost: None,
        }
    }

    async fn next<T: DeserializeOwned>(
        &mut self,
        call: impl Fn() -> Call<'static>,
    ) -> Result<Option<T>, ClientError> {
        loop {
            let Some((body, parser)) = &mut self.connected else {
                self.connect(call()).await?;
                continue;
            };
            if let Some(event) = parser.next() {
                self.lost = None;
                return match event.name.as_str() {
                    END => {
                        self.connected = None;
                        Ok(None)
                    }
                    FAILED => {
                        self.connected = None;
                        Err(failed(&event))
                    }
                    _ => self.take(&event).map(Some),
                };
            }
            match timeout(SILENCE_LIMIT, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    if parser.push(&bytes).is_err() {
                        self.connected = None;
                        return Err(ClientError::Answer("a line without end".to_owned()));
                    }
                }
                // The end, a failure, or silence.
                Ok(_) | Err(_) => self.connected = None,
            }
        }
    }

    /// Connects, or pauses after a failure that may pass.
    async fn connect(&mut self, call: Call<'_>) -> Result<(), ClientError> {
        let now = Instant::now();
        let (since, pause) = *self.lost.get_or_insert((now, PAUSES.0));
        match self.client.open(call, self.last).await {
            Ok(body) => {
                self.connected = Some((body, SseParser::default()));
                Ok(())
            }
            Err(error @ (ClientError::Refused { .. } | ClientError::Answer(_))) => Err(error),
            Err(error) if since.elapsed() + pause > self.patience => {
                self.lost = None;
                Err(error)
            }
            Err(_) => {
                self.lost = Some((since, (pause * 2).min(PAUSES.1)));
                sleep(pause).await;
                Ok(())
            }
        }
    }

    fn take<T: DeserializeOwned>(&mut self, event: &SseEvent) -> Result<T, ClientError> {
        let value = serde_json::from_str(&event.data).map_err(|error| answer(&error))?;
        self.last = event.id.or(self.last);
        Ok(value)
    }
}

/// Type of the event with which the server says that the node stops.
const END: &str = "end";
/// Type of the event with which the server says why it ends the stream.
const FAILED: &str = "error";

fn failed(event: &SseEvent) -> ClientError {
    match serde_json::from_str::<ErrorBody>(&event.data) {
        Ok(body) => ClientError::Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error: body.error,
        },
        Err(error) => answer(&error),
    }
}
