//! How much of a long task fits between two insertions.

use std::time::Duration;

/// How much of a long task goes into one commit, by how long the last ones took.
///
/// An insertion waits for the commit under way. The time for a row differs between machines and with their load, so the
/// number of rows follows the measured time.
#[derive(Debug)]
pub(super) struct Pace {
    rows: usize,
    /// Whether the last commit left the tasks out.
    rested: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rows: Self::START_ROWS,
            rested: false,
        }
    }
}

impl Pace {
    const START_ROWS: usize = 64;
    const MIN_ROWS: usize = 16;
    const MAX_ROWS: usize = 512;
    const LONG: Duration = Duration::from_millis(3);
    const SHORT: Duration = Duration::from_micros(1_500);

    /// Rows that a task may take out in one commit.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Whether this commit does a part of the tasks: not while requests wait, except every second time.
    pub(super) const fn works(&mut self, awaited: bool) -> bool {
        self.rested = awaited && !self.rested;
        !self.rested
    }

    pub(super) fn took(&mut self, time: Duration) {
        if time > Self::LONG {
            self.rows = (self.rows / 2).max(Self::MIN_ROWS);
        } else if time < Self::SHORT {
            self.rows = self.rows.saturating_add(Self::MIN_ROWS).min(Self::MAX_ROWS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_alternate_with_waiting_requests() {
        let mut pace = Pace::default();
        let turns: Vec<_> = (0..4).map(|_| pace.works(true)).collect();
        assert_eq!(turns, [false, true, false, true]);
        assert!(pace.works(false) && pace.works(false));
    }

    #[test]
    fn step_follows_time_within_bounds() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.took(Duration::from_millis(50));
        }
        assert_eq!(pace.rows(), Pace::MIN_ROWS);
        for _ in 0..100 {
            pace.took(Duration::from_micros(50));
        }
        assert_eq!(pace.rows(), Pace::MAX_ROWS);
    }
}
