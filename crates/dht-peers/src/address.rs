//! The addresses of a peer, what is known of each, and in which order to dial them.

use std::{sync::Arc, time::Duration};

use dht_core::{Address, Claim, Host, UnixSeconds};

use crate::moment::Moment;

/// Addresses kept of one peer; a claim holds at most 5.
pub const MAX_ADDRESSES: usize = 10;

/// Bytes kept of the text of a failure.
pub const MAX_FAILURE_BYTES: usize = 128;

/// An address of a peer and its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRecord {
    /// Address at which the peer can be dialled.
    pub address: Address,
    claim: Option<Arc<Claim>>,
    is_named: bool,
    pub(crate) last_seen: Moment,
    pub(crate) last_attempt: Moment,
    /// `None` once a dial has succeeded.
    failures: Option<Arc<Failures>>,
    /// Time a dial takes until it is authenticated.
    pub dial_time: Average,
    /// Round trip of the handshake.
    pub latency: Average,
}

/// Failed dials since the last success.
#[derive(Debug, PartialEq, Eq)]
struct Failures {
    attempts: u32,
    reason: Box<str>,
}

/// A running average in whole microseconds that forgets: a sample weighs at least a hundredth. Beyond 71 minutes it saturates.
// Without padding: a directory holds two for each address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct Average {
    mean_micros: u32,
    samples: u8,
}

/// Outcome of an authenticated connection to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialTimes {
    /// Round trip of the handshake, if measured.
    pub latency: Option<Duration>,
    /// Time until the dial was authenticated, if this node dialled.
    pub dial_time: Option<Duration>,
}

// === impl AddressRecord ===

impl AddressRecord {
    /// An address that the operator named.
    #[must_use]
    pub const fn named(address: Address) -> Self {
        Self::new(address, None, true)
    }

    /// An address that its owner signed, in this claim, which is kept so that it can be relayed.
    #[must_use]
    pub const fn claimed(address: Address, claim: Arc<Claim>) -> Self {
        Self::new(address, Some(claim), false)
    }

    /// An address that somebody told of without a signature of its owner, as a name server does. The first claim replaces it.
    #[must_use]
    pub const fn unsigned(address: Address) -> Self {
        Self::new(address, None, false)
    }

    const fn new(address: Address, claim: Option<Arc<Claim>>, is_named: bool) -> Self {
        Self {
            address,
            claim,
            is_named,
            last_seen: Moment::NEVER,
            last_attempt: Moment::NEVER,
            failures: None,
            dial_time: Average::NONE,
            latency: Average::NONE,
        }
    }

    /// Whether the operator named it: then no claim removes it.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.is_named
    }

    /// Last time a connection with this address was authenticated.
    #[must_use]
    pub fn last_seen(&self) -> Option<UnixSeconds> {
        self.last_seen.time()
    }

    /// Last time it was dialled.
    #[must_use]
    pub fn last_attempt(&self) -> Option<UnixSeconds> {
        self.last_attempt.time()
    }

    /// Dials since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.failures
            .as_ref()
            .map_or(0, |failures| failures.attempts)
    }

    /// Why the last dial failed; `None` once one has succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<&str> {
        self.failures.as_ref().map(|failures| &*failures.reason)
    }

    /// How promising a dial is, at this moment: 100 to 1000, or 0 if the last dial failed. `None` if nothing is
    /// known. Specification 02, section 11.4.
    ///
    /// 800 + latency (100, less one for each 100 ms) + freshness (100, less one for each second since it was
    /// last seen, at least -700).
    #[must_use]
    pub fn quality(&self, now: UnixSeconds) -> Option<u16> {
        if self.last_seen.max(self.last_attempt) == Moment::NEVER {
            return None;
        }
        if self.has_failed() {
            return Some(0);
        }
        let latency = self.latency.mean().map_or(100, |mean| {
            u16::try_from(mean.as_millis() / 100).map_or(0, |tenths| 100_u16.saturating_sub(tenths))
        });
        // Freshness shifted by 700, so that nothing is negative: 0 to 800.
        let freshness = self.last_seen().map_or(0, |seen| {
            u16::try_from(now.saturating_since(seen)).map_or(0, |age| 800_u16.saturating_sub(age))
        });
        Some(latency.saturating_add(freshness).saturating_add(100))
    }

    /// Whether the last dial failed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failures.is_some()
    }

    /// Whether this node knows from others alone where the address leads: the operator did not name it, and no connection
    /// with it was authenticated. That the peer is proven does not matter, as it may have claimed any address. An address with
    /// a name always counts as hearsay, because its owner may have the name lead elsewhere at any time.
    #[must_use]
    pub fn is_hearsay(&self) -> bool {
        let is_name = || matches!(self.address.host(), Some(Host::Dns { .. }));
        !self.is_named && (self.last_seen().is_none() || is_name())
    }

    /// The claim that the address comes from, if its owner signed it.
    #[must_use]
    pub const fn claim(&self) -> Option<&Arc<Claim>> {
        self.claim.as_ref()
    }

    pub(crate) fn seen(&mut self, now: UnixSeconds, times: DialTimes) {
        self.last_seen = self.last_seen.max(now.into());
        self.failures = None;
        if let Some(sample) = times.latency {
            self.latency.add(sample);
        }
        if let Some(sample) = times.dial_time {
            self.last_attempt = self.last_attempt.max(now.into());
            self.dial_time.add(sample);
        }
    }

    pub(crate) fn failed(&mut self, now: UnixSeconds, reason: &str) {
        self.last_attempt = self.last_attempt.max(now.into());
        self.set_failures(self.attempts().saturating_add(1), reason);
    }

    pub(crate) fn set_failures(&mut self, attempts: u32, reason: &str) {
        let reason = truncate(reason, MAX_FAILURE_BYTES).into();
        self.failures = Some(Arc::new(Failures { attempts, reason }));
    }

    /// Bytes of memory outside of this value and of its claim, and the number of allocations.
    pub(crate) fn heap_bytes(&self) -> (usize, usize) {
        let address = self.address.heap_bytes();
        let failures = self.failures.as_ref();
        let (failures, allocations) = failures.map_or((0, 0), |failures| {
            let bytes = size_of::<Failures>().saturating_add(failures.reason.len());
            (bytes, 2)
        });
        let allocations = allocations + usize::from(address > 0);
        (address.saturating_add(failures), allocations)
    }

    /// Takes over what `incoming` knows better about the same address.
    ///
    /// Whichever side was tried last decides about failure and attempts: a maximum would make reset counters
    /// stick, and the incoming side may be the older one.
    pub(crate) fn merge(&mut self, incoming: &Self) {
        if (incoming.last_attempt, incoming.last_seen) > (self.last_attempt, self.last_seen) {
            self.failures.clone_from(&incoming.failures);
        }
        self.last_seen = self.last_seen.max(incoming.last_seen);
        self.last_attempt = self.last_attempt.max(incoming.last_attempt);
        self.latency = self.latency.better(incoming.latency);
        self.dial_time = self.dial_time.better(incoming.dial_time);
        let replace = match (self.claim(), incoming.claim()) {
            // An address the operator named stays the operator's, or a claim could remove it.
            _ if self.is_named => false,
            (_, None) => incoming.is_named,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new.is_newer_than(old),
        };
        if replace {
            self.claim.clone_from(&incoming.claim);
            self.is_named = incoming.is_named;
        }
    }
}

// === impl Average ===

impl Average {
    const NONE: Self = Self {
        mean_micros: 0,
        samples: 0,
    };

    /// The mean; `None` without a sample.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (self.samples > 0).then(|| Duration::from_micros(self.mean_micros.into()))
    }

    /// Number of samples that went in, at most 100.
    #[must_use]
    pub const fn samples(&self) -> u8 {
        self.samples
    }

    /// Adds a sample: (mean · n + sample) / (n + 1).
    pub fn add(&mut self, sample: Duration) {
        let n = u64::from(self.samples);
        let sum = n.saturating_mul(self.mean_micros.into());
        let sample = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        let mean = sum.saturating_add(sample) / n.saturating_add(1);
        *self = Self::from_parts(mean, self.samples.saturating_add(1));
    }

    #[cfg(feature = "redb")]
    pub(crate) const fn parts(self) -> (u32, u8) {
        (self.mean_micros, self.samples)
    }

    pub(crate) fn from_parts(mean_micros: u64, samples: u8) -> Self {
        Self {
            mean_micros: u32::try_from(mean_micros).unwrap_or(u32::MAX),
            samples: samples.min(MAX_SAMPLES),
        }
    }

    const fn better(self, other: Self) -> Self {
        if other.samples > self.samples {
            other
        } else {
            self
        }
    }
}

pub(crate) fn truncate(text: &str, bytes: usize) -> &str {
    // A character has at most 4 bytes, so this looks at no more than 4 places.
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

const MAX_SAMPLES: u8 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    fn fresh() -> AddressRecord {
        AddressRecord::named("/ip4/1.2.3.4/tcp/5".parse().unwrap())
    }

    fn seen(seconds_ago: u64, latency_ms: Option<u64>) -> AddressRecord {
        let mut record = fresh();
        let latency = latency_ms.map(Duration::from_millis);
        record.seen(
            UnixSeconds(NOW.0 - seconds_ago),
            DialTimes {
                latency,
                dial_time: None,
            },
        );
        record
    }

    #[test]
    fn seen_addresses_are_no_hearsay() {
        let is_hearsay = |mut record: AddressRecord, seen: bool| {
            if seen {
                record.seen(NOW, DialTimes::default());
            }
            record.is_hearsay()
        };
        let ip = || "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        let name = || "/dns4/a.example.com/tcp/5".parse().unwrap();
        assert!(is_hearsay(AddressRecord::unsigned(ip()), false));
        assert!(!is_hearsay(AddressRecord::unsigned(ip()), true));
        assert!(is_hearsay(AddressRecord::unsigned(name()), true));
        assert!(!is_hearsay(AddressRecord::named(name()), false));
    }

    #[test]
    fn quality_follows_the_table() {
        assert_eq!(fresh().quality(NOW), None);
        assert_eq!(seen(0, None).quality(NOW), Some(1_000));
        assert_eq!(seen(0, Some(250)).quality(NOW), Some(998));
        assert_eq!(seen(30, Some(0)).quality(NOW), Some(970));
        assert_eq!(seen(800, None).quality(NOW), Some(200));
        assert_eq!(seen(1_000_000, None).quality(NOW), Some(200));
        assert_eq!(seen(1_000_000, Some(3_600_000)).quality(NOW), Some(100));
        let mut failed = seen(0, None);
        failed.failed(NOW, "connection refused");
        assert_eq!(failed.quality(NOW), Some(0));
        failed.seen(NOW, DialTimes::default());
        assert_eq!(failed.quality(NOW), Some(1_000));
    }

    #[test]
    fn quality_falls_as_time_passes() {
        let record = seen(0, None);
        assert!(record.quality(NOW.saturating_add(60)) < record.quality(NOW));
    }

    #[test]
    fn first_hundred_samples_weigh_equally() {
        let mut average = Average::default();
        assert_eq!(average.mean(), None);
        average.add(Duration::from_millis(100));
        average.add(Duration::from_millis(300));
        assert_eq!(average.mean(), Some(Duration::from_millis(200)));
        for _ in 0..500 {
            average.add(Duration::from_secs(1));
        }
        assert_eq!(average.samples(), 100);
        assert!(average.mean().unwrap() > Duration::from_millis(980));
        average.add(Duration::MAX);
    }

    #[test]
    fn failure_text_is_cut_between_characters() {
        let mut record = fresh();
        record.failed(NOW, &"é".repeat(100));
        assert_eq!(record.last_failure().unwrap().len(), MAX_FAILURE_BYTES);
    }

    #[test]
    fn merge_lets_the_later_attempt_decide() {
        let mut held = fresh();
        held.failed(NOW, "refused");
        let mut later = fresh();
        later.seen(
            NOW.saturating_add(5),
            DialTimes {
                latency: None,
                dial_time: Some(Duration::from_millis(9)),
            },
        );
        held.merge(&later);
        assert_eq!((held.attempts(), held.has_failed()), (0, false));
        let mut earlier = fresh();
        earlier.failed(UnixSeconds(NOW.0 - 50), "timed out");
        held.merge(&earlier);
        assert!(!held.has_failed());
    }
}
