//! A rate for one kind of action.

use std::time::Duration;

use tokio::time::Instant;

/// Lets an action happen every so often, and a number of times at once after a rest.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    burst: u32,
    left: u32,
    /// When `left` last grew, or was full.
    since: Instant,
}

impl Pace {
    pub(crate) const fn new(every: Duration, burst: u32, at: Instant) -> Self {
        Self {
            every,
            burst,
            left: burst,
            since: at,
        }
    }

    /// Whether the action may happen now; it then counts.
    pub(crate) fn take(&mut self, at: Instant) -> bool {
        self.refill(at);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// When the action may happen next, if it may not now.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.left == 0).then(|| self.since + self.every)
    }

    fn refill(&mut self, at: Instant) {
        while self.left < self.burst && self.since + self.every <= at {
            self.left += 1;
            self.since += self.every;
        }
        if self.left == self.burst {
            self.since = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_followed_by_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(1), 3, start);
        let taken: Vec<_> = (0..80)
            .filter(|tenths| pace.take(start + Duration::from_millis(tenths * 100)))
            .collect();
        assert_eq!(taken, [0, 1, 2, 10, 20, 30, 40, 50, 60, 70]);
        let rested = start + Duration::from_secs(100);
        assert_eq!((0..9).filter(|_| pace.take(rested)).count(), 3);
        assert_eq!(pace.next(), Some(rested + Duration::from_secs(1)));
    }
}
