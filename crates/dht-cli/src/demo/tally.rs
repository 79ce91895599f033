//! Expected and actual arrivals of every message.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use dht_core::PublicKey;
use parking_lot::Mutex;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng};
use tokio::{sync::Notify, time::Instant};

use super::Outcome;

/// Messages of the run by number, and their arrivals.
#[derive(Debug, Default)]
pub(super) struct Tally {
    state: Mutex<State>,
    /// Woken at each arrival.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: HashMap<i32, Sent>,
    arrivals: HashMap<(i32, usize), u64>,
    latencies: Vec<Duration>,
    altered: u64,
    misattributed: u64,
    expected: u64,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    content: Bytes,
    /// Sender that the recipient must see; `None` for clear messages.
    sender: Option<PublicKey>,
}

/// Reproducible content of a message.
pub(super) fn content(number: i32, bytes: usize, seed: u64) -> Bytes {
    let mut rng = ChaCha12Rng::seed_from_u64(seed ^ u64::from(number.unsigned_abs()));
    let mut content = vec![0; bytes];
    rng.fill_bytes(&mut content);
    content.into()
}

impl Tally {
    /// Records a message before it is sent, and the number of nodes that should receive it.
    pub(super) fn sent(
        &self,
        number: i32,
        content: Bytes,
        sender: Option<PublicKey>,
        recipients: u64,
    ) {
        let mut state = self.state.lock();
        state.messages.insert(
            number,
            Sent {
                at: Instant::now(),
                content,
                sender,
            },
        );
        state.expected += recipients;
    }

    /// Records an arrival at a node; true if it is the first one there.
    pub(super) fn arrived(
        &self,
        number: i32,
        node: usize,
        content: &Bytes,
        sender: Option<PublicKey>,
    ) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(sent) = state.messages.get(&number) else {
            // No message has this number: the header was altered.
            state.altered += 1;
            return false;
        };
        state.altered += u64::from(sent.content != content);
        state.misattributed += u64::from(sent.sender != sender);
        let count = state.arrivals.entry((number, node)).or_default();
        *count += 1;
        let first = *count == 1;
        if first {
            state.latencies.push(sent.at.elapsed());
        }
        self.changed.notify_one();
        first
    }

    pub(super) fn delivered(&self) -> u64 {
        self.state.lock().arrivals.len() as u64
    }

    /// Waits until every message has arrived, or until none arrives for `patience`.
    pub(super) async fn settled(&self, patience: Duration) {
        loop {
            let (delivered, expected) = {
                let state = self.state.lock();
                (state.arrivals.len() as u64, state.expected)
            };
            if delivered >= expected {
                return;
            }
            if tokio::time::timeout(patience, self.changed.notified())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let mut state = self.state.lock();
        let delivered = state.arrivals.len() as u64;
        state.latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = state.latencies.len().saturating_sub(1) * percent / 100;
            state
                .latencies
                .get(index)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        Outcome {
            sent: state.messages.len() as u64,
            expected: state.expected,
            delivered,
            lost: state.expected.saturating_sub(delivered),
            duplicated: state.arrivals.values().map(|count| count - 1).sum(),
            altered: state.altered,
            misattributed: state.misattributed,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            ..Outcome::default()
        }
    }
}
