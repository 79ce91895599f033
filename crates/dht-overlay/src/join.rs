//! When a node announces itself: specification 06 section 3.

use std::time::Duration;

use rand_core::Rng;
use tokio::time::Instant;

use crate::{config::Config, pools::cooldown::jittered};

/// Longest time between getting online and the join, so that many nodes that start at once do not all join at once.
const FIRST_DELAY: Duration = Duration::from_secs(2);
/// Pause after a join that could not be sent.
const RETRY: Duration = Duration::from_secs(15);

/// Decides when a join is sent: after each transition to online and each change of the addresses, but not before the
/// cool-down of the last one has ended, and again every few hours.
#[derive(Debug)]
pub struct JoinTimer {
    is_enabled: bool,
    cooldown: Duration,
    interval: Duration,
    is_online: bool,
    last: Option<Instant>,
    due: Option<Instant>,
}

impl JoinTimer {
    /// A node that has not joined yet.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            is_enabled: config.auto_join,
            cooldown: Duration::from_secs(config.join_cooldown_seconds),
            interval: Duration::from_secs(config.join_interval_seconds),
            is_online: false,
            last: None,
            due: None,
        }
    }

    /// The node got online or went offline. A join within the cool-down is not repeated.
    pub fn on_status(&mut self, is_online: bool, at: Instant, rng: &mut impl Rng) {
        let got_online = is_online && !self.is_online;
        self.is_online = is_online;
        let is_cool = self.last.is_none_or(|last| last + self.cooldown < at);
        if got_online && is_cool {
            self.schedule(at + FIRST_DELAY.mul_f64(share(rng)));
        }
    }

    /// The node has other addresses: what it announced is wrong, so it joins again as soon as the cool-down allows.
    pub fn on_address_changed(&mut self, at: Instant, rng: &mut impl Rng) {
        let cool = self.last.map_or(at, |last| last + self.cooldown);
        self.schedule(cool.max(at) + FIRST_DELAY.mul_f64(share(rng)));
    }

    /// Whether a join is to be sent now. [`on_joined`](Self::on_joined) follows.
    pub fn take(&mut self, at: Instant) -> bool {
        let is_due = self.is_enabled && self.is_online;
        is_due && self.due.take_if(|due| *due <= at).is_some()
    }

    /// The join was sent, or could not be.
    pub fn on_joined(&mut self, was_sent: bool, at: Instant, rng: &mut impl Rng) {
        if was_sent {
            self.last = Some(at);
            self.schedule(at + jittered(self.interval, rng));
        } else {
            self.schedule(at + jittered(RETRY, rng));
        }
    }

    /// When a join is due, if the node is online.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| self.is_enabled && self.is_online)
    }

    fn schedule(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

/// A number from 0 to 1.
fn share(rng: &mut impl Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn timer() -> JoinTimer {
        JoinTimer::new(&Config::default())
    }

    /// Sends a join if one is due by then.
    fn joins(timer: &mut JoinTimer, by: Instant, rng: &mut impl Rng) -> bool {
        let sends = timer.take(by);
        if sends {
            timer.on_joined(true, by, rng);
        }
        sends
    }

    #[test]
    fn joins_have_a_cooldown() {
        let (mut rng, start) = (SeededEntropy::new(1).rng(), Instant::now());
        let mut timer = timer();
        assert!(!joins(&mut timer, start + MINUTE, &mut rng), "not online");
        timer.on_status(true, start, &mut rng);
        assert!(timer.next_timeout().unwrap() <= start + FIRST_DELAY);
        assert!(joins(&mut timer, start + FIRST_DELAY, &mut rng));
        for (minutes, expected) in [(5, false), (10, false), (11, true)] {
            let at = start + MINUTE * minutes;
            timer.on_status(false, at, &mut rng);
            timer.on_status(true, at, &mut rng);
            assert_eq!(joins(&mut timer, at + FIRST_DELAY, &mut rng), expected);
        }
    }

    #[test]
    fn changed_addresses_wait_for_cooldown() {
        let (mut rng, start) = (SeededEntropy::new(1).rng(), Instant::now());
        let mut timer = timer();
        timer.on_status(true, start, &mut rng);
        assert!(joins(&mut timer, start + FIRST_DELAY, &mut rng));
        timer.on_address_changed(start + MINUTE, &mut rng);
        assert!(!joins(&mut timer, start + MINUTE * 9, &mut rng));
        assert!(joins(&mut timer, start + MINUTE * 11, &mut rng));
        timer.on_address_changed(start + MINUTE * 60, &mut rng);
        assert!(joins(&mut timer, start + MINUTE * 61, &mut rng));
    }

    #[test]
    fn unsent_joins_are_tried_again() {
        let (mut rng, start) = (SeededEntropy::new(1).rng(), Instant::now());
        let mut timer = timer();
        timer.on_status(true, start, &mut rng);
        assert!(timer.take(start + FIRST_DELAY));
        timer.on_joined(false, start + FIRST_DELAY, &mut rng);
        assert!(!timer.take(start + FIRST_DELAY));
        assert!(timer.take(start + MINUTE));
        let config = Config {
            auto_join: false,
            ..Config::default()
        };
        let mut never = JoinTimer::new(&config);
        never.on_status(true, start, &mut rng);
        assert_eq!(never.next_timeout(), None);
        assert!(!never.take(start + MINUTE));
    }

    proptest! {
        /// Whatever happens, two joins are a cool-down apart, and a node that stays online joins every five hours.
        #[test]
        fn joins_keep_their_distance(seed: u64, events in prop::collection::vec(0..3_u8, 0..200)) {
            let (mut rng, start) = (SeededEntropy::new(seed).rng(), Instant::now());
            let mut timer = timer();
            let (mut at, mut last) = (start, None::<Instant>);
            for event in events {
                at += MINUTE * 3;
                match event {
                    0 => timer.on_status(true, at, &mut rng),
                    1 => timer.on_status(false, at, &mut rng),
                    _ => timer.on_address_changed(at, &mut rng),
                }
                at += MINUTE;
                if joins(&mut timer, at, &mut rng) {
                    prop_assert!(last.is_none_or(|last| at >= last + MINUTE * 10));
                    last = Some(at);
                }
            }
            timer.on_status(true, at, &mut rng);
            if last.is_some() {
                prop_assert!(timer.next_timeout().unwrap() <= at + MINUTE * 300);
            }
        }
    }
}
