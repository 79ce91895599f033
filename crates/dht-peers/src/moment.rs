//! A time that may never have been, in half the bytes of an option.

use dht_core::UnixSeconds;

/// Second of an event, or that it has not been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Before every other moment.
    pub(crate) const NEVER: Self = Self(0);

    pub(crate) fn time(self) -> Option<UnixSeconds> {
        (self != Self::NEVER).then_some(UnixSeconds(self.0))
    }
}

impl From<UnixSeconds> for Moment {
    /// The second 0, at which no clock stands that is set, counts as the second 1.
    fn from(time: UnixSeconds) -> Self {
        Self(time.0.max(1))
    }
}
