//! Everything that happened in a run, in order, as one digest.

use std::{
    fmt::{self, Write as _},
    io,
    sync::Arc,
};

use blake2b_simd::{Params, State};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 16;

/// A hash over the events of a run: two runs with one digest did the same, in the same order and at the same times. Clones
/// share it.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Inner>>);

struct Inner {
    start: Instant,
    hash: State,
    events: u64,
    line: String,
    trace: Option<Box<dyn io::Write + Send>>,
}

impl Log {
    /// An empty log that starts now. Each event is also a line of `trace`, by which two runs can be compared.
    #[must_use]
    pub fn new(trace: Option<Box<dyn io::Write + Send>>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            start: Instant::now(),
            hash: Params::new().hash_length(DIGEST_BYTES).to_state(),
            events: 0,
            line: String::new(),
            trace,
        })))
    }

    /// Records an event at this moment.
    pub fn record(&self, event: fmt::Arguments<'_>) {
        let inner = &mut *self.0.lock();
        inner.line.clear();
        let at = inner.start.elapsed().as_micros();
        // Writing to a string does not fail.
        let _ = writeln!(inner.line, "{at} {event}");
        inner.hash.update(inner.line.as_bytes());
        inner.events += 1;
        if let Some(trace) = &mut inner.trace
            && trace.write_all(inner.line.as_bytes()).is_err()
        {
            inner.trace = None;
        }
    }

    /// Number of events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.lock().events
    }

    /// The digest of the events so far, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        HEXLOWER.encode(self.0.lock().hash.finalize().as_bytes())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("events", &self.events())
            .finish_non_exhaustive()
    }
}
