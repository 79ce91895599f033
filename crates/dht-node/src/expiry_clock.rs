//! Whether the wall clock may end what is stored.

use std::time::Duration;

use dht_core::{Clock as _, SharedClock, UnixSeconds};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long wall clock and monotonic clock must have agreed before the wall clock is believed: ten minutes.
const TRUST_AFTER: Duration = Duration::from_secs(600);
/// Seconds by which they may differ and still agree.
const MAX_DIFFERENCE: u64 = 60;
/// Seconds the wall clock may be ahead of the newest stored time at start before it is logged: a day.
const MAX_AHEAD: u64 = 86_400;

/// Believes the wall clock once it has agreed with the monotonic clock for ten minutes of this process: a machine may start with
/// a clock far ahead, and the time of a stranger may set it there. Until then, nothing that was stored before ends by its age.
#[derive(Debug)]
pub(crate) struct ExpiryClock {
    wall: WallClock,
    agreed: Mutex<Agreement>,
}

/// Both clocks when they began to agree.
#[derive(Debug)]
struct Agreement {
    since: Instant,
    wall: UnixSeconds,
}

struct WallClock(SharedClock);

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.now().fmt(f)
    }
}

impl ExpiryClock {
    pub(crate) fn new(wall: SharedClock) -> Self {
        let agreed = Agreement {
            since: Instant::now(),
            wall: wall.now(),
        };
        Self {
            wall: WallClock(wall),
            agreed: Mutex::new(agreed),
        }
    }

    /// Compares the clocks. A jump of the wall clock since the last call begins the ten minutes again.
    pub(crate) fn is_believed(&self) -> bool {
        let (now, wall) = (Instant::now(), self.wall.0.now());
        let mut agreed = self.agreed.lock();
        let passed = now.duration_since(agreed.since);
        let expected = agreed.wall.saturating_add(passed.as_secs());
        if wall.0.abs_diff(expected.0) > MAX_DIFFERENCE {
            *agreed = Agreement { since: now, wall };
            return false;
        }
        passed >= TRUST_AFTER
    }

    /// Logs that the wall clock is far ahead of everything stored. To be called at start.
    pub(crate) fn compare(&self, newest: Option<UnixSeconds>) {
        let Some(newest) = newest else { return };
        let ahead = self.wall.0.now().saturating_since(newest);
        if ahead > MAX_AHEAD {
            tracing::warn!(
                seconds = ahead,
                "the clock is far ahead of the newest stored message; none expires for ten minutes: is the clock right?"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dht_core::{ManualClock, test_util::NOW};
    use tokio::time::advance;

    use super::*;

    async fn pass(wall: &ManualClock, seconds: u64) {
        advance(Duration::from_secs(seconds)).await;
        wall.advance(seconds);
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_that_agree_are_believed() {
        let wall = Arc::new(ManualClock::new(NOW));
        let clock = ExpiryClock::new(Arc::clone(&wall) as _);
        assert!(!clock.is_believed());
        pass(&wall, 599).await;
        wall.advance(60);
        assert!(!clock.is_believed());
        pass(&wall, 1).await;
        assert!(clock.is_believed());
    }

    #[tokio::test(start_paused = true)]
    async fn jumps_begin_the_time_again() {
        let wall = Arc::new(ManualClock::new(NOW));
        let clock = ExpiryClock::new(Arc::clone(&wall) as _);
        pass(&wall, 600).await;
        assert!(clock.is_believed());
        for jump in [31 * 86_400, 61] {
            wall.advance(jump);
            assert!(!clock.is_believed());
            pass(&wall, 599).await;
            assert!(!clock.is_believed());
            pass(&wall, 1).await;
            assert!(clock.is_believed());
        }
        wall.set(NOW);
        assert!(!clock.is_believed());
    }
}
