//! One token bucket, in eight bytes and whole seconds.

use dht_core::UnixSeconds;

use super::Rate;

/// Threads that read the clock at the same time may be this far apart, in seconds. A clock that is further back was
/// set back.
const MAX_SKEW_SECONDS: u32 = 5;

/// Tokens left, and when they were counted. The default is a bucket nobody has taken from, whatever its rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    /// Tokens taken and not come back. More than the burst is debt.
    used: u32,
    /// The second up to which tokens have come back, in the low bits: enough for 136 years between two looks.
    at: u32,
}

impl Tokens {
    /// Takes `tokens` if there is at least one left, and says whether there was.
    pub(super) fn take(&mut self, tokens: u32, rate: Rate, now: UnixSeconds) -> bool {
        let there = self.has(rate, now);
        if there {
            self.used = self.used.saturating_add(tokens);
        }
        there
    }

    /// Takes `tokens`, into debt if there are not as many. A debt is never more than another burst.
    pub(super) fn charge(&mut self, tokens: u32, rate: Rate, now: UnixSeconds) {
        self.refill(rate, now);
        let most = capacity(rate).saturating_mul(2);
        self.used = self.used.saturating_add(tokens).min(most);
    }

    /// Whether there is a token left.
    pub(super) fn has(&mut self, rate: Rate, now: UnixSeconds) -> bool {
        self.refill(rate, now);
        self.used < capacity(rate)
    }

    fn refill(&mut self, rate: Rate, now: UnixSeconds) {
        #[expect(clippy::cast_possible_truncation, reason = "takes the low bits")]
        let now = now.0 as u32;
        let passed = now.wrapping_sub(self.at);
        if passed > u32::MAX / 2 && self.used > 0 {
            // Going back gives nothing. But time goes on from where a clock was set back to: whoever had to wait for
            // it to catch up would be shut out for as long as it had been wrong.
            if self.at.wrapping_sub(now) > MAX_SKEW_SECONDS {
                self.at = now;
            }
            return;
        }
        self.used = self
            .used
            .saturating_sub(passed.saturating_mul(rate.per_second));
        self.at = now;
    }
}

/// At least one, so that nobody is in debt who has taken nothing.
const fn capacity(rate: Rate) -> u32 {
    match (rate.per_second, rate.burst) {
        (0, 0) => 1,
        (per_second, burst) if burst > per_second => burst,
        (per_second, _) => per_second,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        per_second: 2,
        burst: 5,
    };

    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut tokens, now) = (Tokens::default(), UnixSeconds(1_700_000_000));
        let mut taken = |now| (0..10).filter(|_| tokens.take(1, RATE, now)).count();
        assert_eq!(taken(now), 5);
        assert_eq!(taken(now.saturating_add(1)), 2);
        assert_eq!(taken(now), 0, "a clock set back gives nothing");
        assert_eq!(taken(now.saturating_add(3)), 4);
        assert_eq!(taken(now.saturating_add(1_000)), 5);
    }

    #[test]
    fn a_clock_set_back_gives_nothing_and_takes_nothing_either() {
        let (mut tokens, now) = (Tokens::default(), UnixSeconds(1_700_000_000));
        let mut taken = |now| (0..10).filter(|_| tokens.take(1, RATE, now)).count();
        assert_eq!(taken(now.saturating_add(3_600)), 5);
        assert_eq!(taken(now), 0);
        assert_eq!(taken(now.saturating_add(1)), 2);
        assert_eq!(taken(now.saturating_add(3)), 4);
    }

    #[test]
    fn a_rate_of_nothing_accuses_nobody() {
        let (mut tokens, now) = (Tokens::default(), UnixSeconds(1_700_000_000));
        let none = Rate {
            per_second: 0,
            burst: 0,
        };
        assert!(tokens.has(none, now));
        tokens.charge(1, none, now);
        assert!(!tokens.has(none, now.saturating_add(1_000)));
    }

    #[test]
    fn a_debt_is_paid_before_anything_else_and_is_bounded() {
        let (mut tokens, now) = (Tokens::default(), UnixSeconds(1_700_000_000));
        tokens.charge(u32::MAX, RATE, now);
        assert!(!tokens.has(RATE, now.saturating_add(2)));
        assert!(tokens.has(RATE, now.saturating_add(3)));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            steps in proptest::collection::vec((0_u64..4, 1_u32..3), 1..60),
        ) {
            let (mut tokens, mut now) = (Tokens::default(), UnixSeconds(1_700_000_000));
            let start = now;
            let mut taken = 0;
            for (wait, wanted) in steps {
                now = now.saturating_add(wait);
                taken += u64::from(tokens.take(wanted, RATE, now)) * u64::from(wanted);
                // The last one may take a token too many.
                prop_assert!(taken <= 5 + 1 + 2 * now.saturating_since(start));
            }
        }
    }
}
