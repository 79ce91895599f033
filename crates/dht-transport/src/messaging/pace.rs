//! How fast messages are written to a peer that bans fast senders.
//!
//! Stock nodes before version 2 never ban for volume (spec 03, F-13). Later ones ban a peer for ten minutes that sends 1 000
//! messages in 60 seconds, as seen in 6.3.0-pre.2.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// Start of the user agent of stock nodes, which is `tari/APPLICATION/VERSION`.
const STOCK: &str = "tari/";
/// Major version from which on they ban at 1 000 messages in 60 s.
const PACED: u64 = 2;
/// Messages that may be written at once.
const BURST: u32 = 400;
/// Time between messages after that: with the burst, 900 in any 60 s.
const INTERVAL: Duration = Duration::from_millis(120);

/// Messages that may still be written to one peer, over whichever stream: a token bucket, as the time at which it will be full
/// again.
#[derive(Debug, Default)]
pub(super) struct PaceBucket(Mutex<Option<Instant>>);

/// Spaces the messages of one stream.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    bucket: &'a PaceBucket,
    wait: Pin<Box<Sleep>>,
}

impl PaceBucket {
    /// The bucket that will be full at this time.
    pub(super) const fn new(full_at: Option<Instant>) -> Self {
        Self(Mutex::new(full_at))
    }

    /// When it will be full; `None` if it is.
    pub(super) fn full_at(&self, now: Instant) -> Option<Instant> {
        self.0.lock().filter(|at| *at > now)
    }

    /// When the next message may be written; `None` if it may be now.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let full_at = (*self.0.lock())?;
        let next = full_at.checked_sub(INTERVAL * (BURST - 1))?;
        (next > now).then_some(next)
    }

    fn count(&self, now: Instant) {
        let mut full_at = self.0.lock();
        *full_at = Some(full_at.map_or(now, |at| at.max(now)) + INTERVAL);
    }
}

impl<'a> Pace<'a> {
    /// The pace for a peer with this user agent; `None` if it takes all it can read.
    pub(super) fn of(user_agent: &str, bucket: &'a PaceBucket) -> Option<Self> {
        let (_, version) = user_agent.strip_prefix(STOCK)?.rsplit_once('/')?;
        let version = version.strip_prefix('v').unwrap_or(version);
        let major: u64 = version.split('.').next()?.parse().ok()?;
        (major >= PACED).then(|| Self {
            bucket,
            wait: Box::pin(sleep_until(Instant::now())),
        })
    }

    /// Ready when a message may be written.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.bucket.next_at(Instant::now()) else {
            return Poll::Ready(());
        };
        if self.wait.deadline() != at {
            self.wait.as_mut().reset(at);
        }
        self.wait.as_mut().poll(cx)
    }

    /// Counts a message that is written.
    pub(super) fn count(&self) {
        self.bucket.count(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_newer_stock_nodes_are_paced() {
        let bucket = PaceBucket::default();
        for agent in [
            "tari/basenode/6.3.0-pre.2",
            "tari/wallet/v2.0.1",
            "tari/a/b/4",
        ] {
            assert!(Pace::of(agent, &bucket).is_some(), "{agent}");
        }
        for agent in [
            "tari/basenode/1.0.0-rc.5",
            "dht-node/9.0",
            "tari/6",
            "tari/a/",
            "app/tari/6",
            "",
        ] {
            assert!(Pace::of(agent, &bucket).is_none(), "{agent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_a_thousand_messages() {
        let bucket = PaceBucket::default();
        let mut pace = Pace::of("tari/basenode/6.3.0", &bucket).unwrap();
        let mut times = Vec::new();
        for _ in 0..3_000 {
            std::future::poll_fn(|cx| pace.poll_ready(cx)).await;
            pace.count();
            times.push(Instant::now());
        }
        let fewest = times
            .windows(1_000)
            .map(|window| window[999] - window[0])
            .min();
        assert!(fewest >= Some(Duration::from_secs(60)), "{fewest:?}");
        assert_eq!(times[399], times[0], "the burst");
    }
}
