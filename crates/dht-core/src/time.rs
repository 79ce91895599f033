//! Time as the protocol counts it. Callers bring the clock; the one of the operating system is behind a feature.

#[cfg(feature = "system-clock")]
use std::time::{SystemTime, UNIX_EPOCH};
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

/// Source of the time, so that a test or a simulator can set it.
pub trait Clock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> UnixSeconds;
}

/// A clock shared by the parts of a node.
pub type SharedClock = Arc<dyn Clock>;

/// The wall clock of the operating system.
#[cfg(feature = "system-clock")]
#[cfg_attr(docsrs, doc(cfg(feature = "system-clock")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

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

#[cfg(feature = "system-clock")]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is given"
    )]
    fn now(&self) -> UnixSeconds {
        // A clock set before 1970 reads as 1970.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixSeconds(since.as_secs())
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
