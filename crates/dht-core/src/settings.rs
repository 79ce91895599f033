//! Ranges of settings.

use std::ops::RangeInclusive;

/// A setting is out of its range.
///
/// ```
/// use dht_core::OutOfRange;
///
/// assert_eq!(OutOfRange::check("flood_seconds", 60, 1..=86_400), Ok(()));
/// let error = OutOfRange::check("flood_seconds", 0, 1..=86_400).unwrap_err();
/// assert_eq!(error.to_string(), "flood_seconds is 0, which is not in the range 1 to 86400");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}, which is not in the range {min} to {max}")]
pub struct OutOfRange {
    /// Key of the setting in the configuration file, with its section.
    pub key: &'static str,
    /// Value that was found.
    pub value: u64,
    /// Smallest value that is allowed.
    pub min: u64,
    /// Largest value that is allowed.
    pub max: u64,
}

impl OutOfRange {
    /// Checks one setting.
    ///
    /// # Errors
    /// [`OutOfRange`] if `range` does not contain `value`.
    pub const fn check(
        key: &'static str,
        value: u64,
        range: RangeInclusive<u64>,
    ) -> Result<(), Self> {
        let (min, max) = (*range.start(), *range.end());
        if min <= value && value <= max {
            return Ok(());
        }
        Err(Self {
            key,
            value,
            min,
            max,
        })
    }
}
