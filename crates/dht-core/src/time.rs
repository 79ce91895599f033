//! Time as the protocol counts it. This crate never reads a clock; callers bring one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Whole seconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixSeconds(pub u64);

/// Where a component takes the time from, so that a test or a simulator can drive it.
pub trait Clock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> UnixSeconds;
}

/// A clock shared by the parts of a node.
pub type SharedClock = Arc<dyn Clock>;

/// A clock that moves only when told to.
///
/// ```
/// use dht_core::{Clock, ManualClock, UnixSeconds};
///
/// let clock = ManualClock::new(UnixSeconds(1_700_000_000));
/// clock.advance(60);
/// assert_eq!(clock.now(), UnixSeconds(1_700_000_060));
/// ```
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl UnixSeconds {
    /// This time plus `seconds`, saturating.
    #[must_use]
    pub const fn saturating_add(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this time; 0 if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ManualClock {
    /// A clock standing at `now`.
    #[must_use]
    pub const fn new(now: UnixSeconds) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Puts the clock to `now`, also backwards.
    pub fn set(&self, now: UnixSeconds) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.0.load(Ordering::SeqCst))
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> UnixSeconds {
        (**self).now()
    }
}
