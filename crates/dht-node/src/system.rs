//! The operating system's clock and randomness: the only place that reads either.

use std::time::{SystemTime, UNIX_EPOCH};

use dht_core::{Clock, Entropy, UnixSeconds};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Generators seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock everybody else is given"
    )]
    fn now(&self) -> UnixSeconds {
        // A clock before 1970 is as good as none.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixSeconds(since.as_secs())
    }
}

impl Entropy for OsEntropy {
    /// # Panics
    /// If the operating system has no randomness to give: no key made without it would be one.
    #[expect(
        clippy::expect_used,
        reason = "there is no safe way on without randomness"
    )]
    fn rng(&self) -> ChaCha12Rng {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the operating system provides randomness");
        ChaCha12Rng::from_seed(seed)
    }
}
