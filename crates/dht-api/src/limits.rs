//! Limits of a server.

use std::time::Duration;

use dht_core::OutOfRange;
use serde::{Deserialize, Serialize};

/// Connections served at once: 64. Later ones wait in the backlog of the operating system.
pub const DEFAULT_CONNECTIONS: usize = 64;
/// Streams served at once: 32, so that half of the connections are left for requests.
pub const DEFAULT_STREAMS: usize = 32;
/// Largest body of a request in bytes: 12 MiB, a payload of 8 MiB in base64 and room for the rest.
pub const DEFAULT_BODY_BYTES: usize = 12 << 20;
/// Bytes of all bodies in memory: 48 MiB, four of the largest. Later ones wait before they are read.
pub const DEFAULT_BODIES_BYTES: usize = 48 << 20;
/// Bytes of lists and streamed messages in memory: 64 MiB, two of the largest messages as rows and as JSON, or six
/// pages of the inbox. Later ones wait before they are read.
pub const DEFAULT_RESPONSES_BYTES: usize = 64 << 20;
/// Seconds in which the first request of a connection must be admitted: 5, so that those who show no token hold no
/// place.
pub const DEFAULT_FIRST_REQUEST_SECONDS: u64 = 5;
/// Seconds in which the head of the next request must be there, on an idle connection as well: 30.
pub const DEFAULT_HEAD_SECONDS: u64 = 30;
/// Seconds in which a body must be there: 30.
pub const DEFAULT_BODY_SECONDS: u64 = 30;
/// Seconds that a client may be behind with reading before it is cut off, and one more for each 128 KiB it takes: 30.
pub const DEFAULT_WRITE_SECONDS: u64 = 30;
/// Threads of the blocking pool in use at once: 4, a small share of tokio's 512.
pub const DEFAULT_BLOCKING: usize = 4;
/// Bytes of the largest message as a row and as JSON: 32 MiB.
const LARGEST_RESPONSE: u64 = 32 << 20;
/// Length of a request's head after which no more of it is read (what came with it is taken, so that up to twice as much is), and most bytes read from or written to a socket at once: 64 KiB.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;
/// Bytes in a second that a client which is behind with reading must take in the long run: 128 KiB.
pub(crate) const MIN_READ_BYTES_PER_SECOND: u64 = 128 << 10;
/// Headers of a request.
pub(crate) const MAX_HEADERS: usize = 64;

/// Limits of a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections served at once, at least 1. Defaults to [`DEFAULT_CONNECTIONS`].
    pub connections: usize,
    /// Streams served at once. Defaults to [`DEFAULT_STREAMS`].
    pub streams: usize,
    /// Largest body of a request in bytes. Defaults to [`DEFAULT_BODY_BYTES`].
    pub body_bytes: usize,
    /// Bytes of all bodies in memory, at least [`body_bytes`](Self::body_bytes). Defaults to
    /// [`DEFAULT_BODIES_BYTES`].
    pub bodies_bytes: usize,
    /// Bytes of lists and streamed messages in memory. Defaults to [`DEFAULT_RESPONSES_BYTES`].
    pub responses_bytes: usize,
    /// Seconds in which the head of the first request must be there, with the token where one is asked for. Defaults to
    /// [`DEFAULT_FIRST_REQUEST_SECONDS`].
    pub first_request_seconds: u64,
    /// Seconds in which the head of the next request must be there. Defaults to [`DEFAULT_HEAD_SECONDS`].
    pub head_seconds: u64,
    /// Seconds in which a body must be there. Defaults to [`DEFAULT_BODY_SECONDS`].
    pub body_seconds: u64,
    /// Seconds that a client may be behind with reading before it is cut off, and one more for each 128 KiB it takes.
    /// Defaults to [`DEFAULT_WRITE_SECONDS`].
    pub write_seconds: u64,
    /// Threads of the blocking pool in use at once, at least 1. Defaults to [`DEFAULT_BLOCKING`].
    pub blocking: usize,
}

impl Limits {
    /// Checks every range; the keys are those of the section `[api.limits]`.
    ///
    /// # Errors
    /// [`OutOfRange`] for the first setting out of its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        const MOST: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        const HOUR: u64 = 60 * 60;
        let body = self.body_bytes as u64;
        OutOfRange::check("api.limits.connections", self.connections as u64, 1..=MOST)?;
        OutOfRange::check("api.limits.streams", self.streams as u64, 0..=MOST)?;
        OutOfRange::check("api.limits.body_bytes", body, 1..=GIB)?;
        OutOfRange::check(
            "api.limits.bodies_bytes",
            self.bodies_bytes as u64,
            body..=64 * GIB,
        )?;
        OutOfRange::check(
            "api.limits.responses_bytes",
            self.responses_bytes as u64,
            LARGEST_RESPONSE..=64 * GIB,
        )?;
        OutOfRange::check(
            "api.limits.first_request_seconds",
            self.first_request_seconds,
            1..=HOUR,
        )?;
        OutOfRange::check("api.limits.head_seconds", self.head_seconds, 1..=HOUR)?;
        OutOfRange::check("api.limits.body_seconds", self.body_seconds, 1..=HOUR)?;
        OutOfRange::check("api.limits.write_seconds", self.write_seconds, 1..=HOUR)?;
        OutOfRange::check("api.limits.blocking", self.blocking as u64, 1..=256)
    }

    pub(crate) const fn first_request(&self) -> Duration {
        Duration::from_secs(self.first_request_seconds)
    }

    pub(crate) const fn head(&self) -> Duration {
        Duration::from_secs(self.head_seconds)
    }

    pub(crate) const fn body(&self) -> Duration {
        Duration::from_secs(self.body_seconds)
    }

    pub(crate) const fn write(&self) -> Duration {
        Duration::from_secs(self.write_seconds)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: DEFAULT_CONNECTIONS,
            streams: DEFAULT_STREAMS,
            body_bytes: DEFAULT_BODY_BYTES,
            bodies_bytes: DEFAULT_BODIES_BYTES,
            responses_bytes: DEFAULT_RESPONSES_BYTES,
            first_request_seconds: DEFAULT_FIRST_REQUEST_SECONDS,
            head_seconds: DEFAULT_HEAD_SECONDS,
            body_seconds: DEFAULT_BODY_SECONDS,
            write_seconds: DEFAULT_WRITE_SECONDS,
            blocking: DEFAULT_BLOCKING,
        }
    }
}
