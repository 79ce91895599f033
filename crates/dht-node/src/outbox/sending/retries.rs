//! When the next attempt begins: at growing intervals, or sooner when a peer connects.

use std::time::Duration;

use crate::outbox::event::Now;

/// Shortest time between two attempts that the recipient causes by connecting.
const APPEARANCE_GAP: Duration = Duration::from_secs(5);
/// Time until the second attempt; it doubles with each further one up to [`MAX_RETRY_WAIT`].
const RETRY_WAIT: Duration = Duration::from_secs(5);
const MAX_RETRY_WAIT: Duration = Duration::from_secs(15 * 60);
/// Doublings that are computed at most; from the eighth on the wait is [`MAX_RETRY_WAIT`].
const MAX_DOUBLINGS: u32 = 16;

/// The attempts that were made.
#[derive(Debug)]
pub(super) struct Retries {
    /// Attempts, those of earlier lives of the node included, of which at most [`MAX_DOUBLINGS`] are counted.
    made: u32,
    /// Start of the last one in this life.
    last: Option<Duration>,
    /// Whether the recipient, which gives no receipts, ended the connection right after the last copy.
    lost: bool,
    /// Whether the recipient connected while holders were asked.
    returned: bool,
}

impl Retries {
    pub(super) fn new(made: u32) -> Self {
        Self {
            made: made.min(MAX_DOUBLINGS),
            last: None,
            lost: false,
            returned: false,
        }
    }

    /// Whether no attempt before the one under way was made.
    pub(super) const fn is_first(&self) -> bool {
        self.made <= 1
    }

    pub(super) const fn begin(&mut self, now: Now) {
        self.made = self.made.saturating_add(1);
        self.last = Some(now.at);
        self.lost = false;
    }

    pub(super) const fn note_loss(&mut self) {
        self.lost = true;
    }

    pub(super) const fn note_return(&mut self) {
        self.returned = true;
    }

    pub(super) const fn take_return(&mut self) -> bool {
        std::mem::replace(&mut self.returned, false)
    }

    /// When the next attempt begins if no peer connects.
    pub(super) fn next(&self, now: Now) -> Duration {
        now.at.saturating_add(self.wait())
    }

    /// When the next attempt begins because a peer has connected, the recipient or another one.
    pub(super) fn after_appearance(&self, recipient: bool, now: Now) -> Duration {
        let gap = if recipient && self.lost {
            // A peer that takes a copy, hangs up and comes back causes no attempts of its own.
            self.wait()
        } else if recipient {
            APPEARANCE_GAP
        } else {
            // Strangers that come and go cause no more than a few attempts between two planned ones.
            APPEARANCE_GAP.max(self.wait() / 8)
        };
        match self.last {
            Some(last) => last.saturating_add(gap).max(now.at),
            None => now.at,
        }
    }

    fn wait(&self) -> Duration {
        let doubled = 1_u32 << self.made.saturating_sub(1).min(MAX_DOUBLINGS);
        (RETRY_WAIT * doubled).min(MAX_RETRY_WAIT)
    }
}
