//! How long a message is remembered: specification 03, section 9.3; 03 F-15.

use dht_core::{Header, UnixSeconds};

/// Messages a node remembers by default. Entries whose retention is not over are kept beyond it, up to
/// [`CEILING_FACTOR`] times as many.
pub const DEFAULT_CAPACITY: usize = 50_000;

/// Most entries, as a multiple of the capacity. Without this ceiling, any peer that can make this node validate
/// messages could fill its memory.
pub const CEILING_FACTOR: usize = 10;

/// Least retention after the last occurrence, in seconds: the three hours a message is valid for by default, and ten
/// minutes for clocks that differ.
pub const MIN_RETENTION_SECONDS: u64 = 3 * 60 * 60 + GRACE_SECONDS;

/// Most retention after the last occurrence, in seconds, whatever expiry the sender wrote.
pub const MAX_RETENTION_SECONDS: u64 = 24 * 60 * 60;

/// Most retention of a message that was delivered here, in seconds: the three days for which senders try and other nodes
/// store a message, and ten minutes for clocks that differ.
pub const MAX_DELIVERED_SECONDS: u64 = 3 * 24 * 60 * 60 + GRACE_SECONDS;

const GRACE_SECONDS: u64 = 10 * 60;

/// Facts that decide how long the table keeps a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupMeta {
    /// Whether a signature covers the message, its expiry included.
    pub signed: bool,
    /// Expiry of the header; counts only if the message is signed.
    pub expires: Option<UnixSeconds>,
}

impl DedupMeta {
    /// The signature and expiry of a header.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self {
            signed: !header.signature.is_empty(),
            expires: header.expires,
        }
    }

    /// Second until which a message that is seen at `now` is kept.
    ///
    /// A signed one until ten minutes after it expires, within [`MIN_RETENTION_SECONDS`] and
    /// [`MAX_RETENTION_SECONDS`] from now; one that never expires for the longest time. An unsigned one for the
    /// shortest, because anybody can give it any expiry.
    #[must_use]
    pub fn retain_until(&self, now: UnixSeconds) -> UnixSeconds {
        self.until(now, MAX_RETENTION_SECONDS)
    }

    /// Second until which a message that was delivered here at `now` is kept: as [`retain_until`](Self::retain_until), but
    /// for up to [`MAX_DELIVERED_SECONDS`], as long as another copy may come.
    #[must_use]
    pub fn delivered_until(&self, now: UnixSeconds) -> UnixSeconds {
        self.until(now, MAX_DELIVERED_SECONDS)
    }

    fn until(&self, now: UnixSeconds, most: u64) -> UnixSeconds {
        let least = now.saturating_add(MIN_RETENTION_SECONDS);
        let most = now.saturating_add(most);
        match self.expires {
            _ if !self.signed => least,
            None => most,
            Some(expires) => expires.saturating_add(GRACE_SECONDS).clamp(least, most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
    const HOUR: u64 = 3_600;

    fn hours(signed: bool, expires: Option<u64>) -> f64 {
        let expires = expires.map(|hours| NOW.saturating_add(hours * HOUR));
        let until = DedupMeta { signed, expires }.retain_until(NOW);
        until.saturating_since(NOW) as f64 / HOUR as f64
    }

    #[test]
    fn b050_retention_follows_signed_expiry_within_bounds() {
        let least = 3.0 + 1.0 / 6.0;
        assert_eq!(hours(true, Some(100)), 24.0);
        assert_eq!(hours(false, Some(20)), least);
        assert_eq!(hours(true, Some(20)), 20.0 + 1.0 / 6.0);
        assert_eq!(hours(true, Some(0)), least);
        assert_eq!(hours(true, None), 24.0);
        assert_eq!(hours(false, None), least);
    }
}
