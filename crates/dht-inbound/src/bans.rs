//! From an offence to a ban.

use std::sync::Arc;

use dht_core::{Clock, NodeId, PublicKey, Severity, UnixSeconds};
use dht_peers::{BanTarget, Directory};
use tracing::{debug, warn};

use crate::{AttributionProfile, BanTerms, Culprit, FloodMeter, Offence, metrics};

/// Takes bans. Must not wait; the connection is closed by whoever watches the bans.
pub trait BanSink: Send + Sync + 'static {
    /// Puts a ban in force.
    fn ban(&self, order: BanOrder);
}

/// A ban to be put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanOrder {
    /// Whom.
    pub target: BanTarget,
    /// For what.
    pub offence: Offence,
    /// How grave it is.
    pub severity: Severity,
    /// For how long.
    pub seconds: u64,
}

/// Bans in a peer directory.
#[derive(Clone, Debug)]
pub struct DirectoryBans<C> {
    directory: Directory,
    clock: C,
}

/// Looks offences up in the [table](crate::rules) and hands what follows to a [`BanSink`]. Cloning shares it.
///
/// ```
/// use std::sync::Arc;
/// use dht_core::{AttributionProfile, ManualClock, SecretKey, UnixSeconds};
/// use dht_inbound::{BanTerms, Bans, DirectoryBans, Offence, Parties};
/// use dht_peers::Directory;
///
/// let [me, joiner] = [1, 2].map(|n| SecretKey::from_bytes(&[n; 32]).map(|secret| secret.public_key()));
/// let (directory, joiner) = (Directory::new(me?.node_id()), joiner?);
/// let clock = Arc::new(ManualClock::new(UnixSeconds(1_700_000_000)));
/// let sink = DirectoryBans::new(directory.clone(), clock);
/// let bans = Bans::new(AttributionProfile::Strict, BanTerms::default(), sink);
///
/// let order = bans.report(Offence::JoinForOther, Parties { origin: Some(&joiner), ..Parties::default() });
/// assert_eq!(order.map(|order| order.seconds), Some(7_200));
/// assert!(directory.is_banned(&joiner.node_id(), UnixSeconds(1_700_007_199)));
/// # Ok::<(), dht_core::KeyError>(())
/// ```
///
/// Specification 03, section 4.
#[derive(Debug)]
pub struct Bans<B>(Arc<Inner<B>>);

#[derive(Debug)]
struct Inner<B> {
    profile: AttributionProfile,
    terms: BanTerms,
    sink: B,
}

/// Who had to do with a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parties<'a> {
    /// The neighbour that delivered it.
    pub source: Option<NodeId>,
    /// Its authenticated signer.
    pub origin: Option<&'a PublicKey>,
    /// The peer that was being looked for.
    pub sought: Option<&'a PublicKey>,
}

// === impl Bans ===

impl<B> Bans<B> {
    /// Bans by this profile.
    pub fn new(profile: AttributionProfile, terms: BanTerms, sink: B) -> Self {
        Self(Arc::new(Inner {
            profile,
            terms,
            sink,
        }))
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> AttributionProfile {
        self.0.profile
    }
}

impl<B: BanSink> Bans<B> {
    /// Reports an offence; answers the ban that followed. None does if the profile leaves it unpunished, or if the
    /// culprit is not known.
    pub fn report(&self, offence: Offence, parties: Parties<'_>) -> Option<BanOrder> {
        let Inner {
            profile,
            terms,
            sink,
        } = &*self.0;
        let rule = offence.rule();
        let Some(sanction) = rule.sanction(*profile) else {
            debug!(offence = rule.name, "unpunished");
            return None;
        };
        let target = match sanction.culprit {
            Culprit::Source => parties.source?.into(),
            Culprit::Origin => BanTarget::from(*parties.origin?),
            Culprit::Sought => BanTarget::from(*parties.sought?),
        };
        let seconds = terms.seconds(sanction.term);
        let order = BanOrder {
            target,
            offence,
            severity: sanction.severity,
            seconds,
        };
        metrics::ban(rule.name);
        sink.ban(order);
        Some(order)
    }
}

impl<B: BanSink> Bans<B> {
    /// Reports everybody over the flood limit; wanted at start and then every two minutes. Answers how many.
    pub fn report_floods(&self, meter: &FloodMeter, now: UnixSeconds) -> usize {
        let flooders = meter.exceeding(now);
        for flooder in &flooders {
            let source = Some(flooder.node_id);
            self.report(
                Offence::Flood,
                Parties {
                    source,
                    ..Parties::default()
                },
            );
        }
        flooders.len()
    }
}

impl<B> Clone for Bans<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

// === impl DirectoryBans ===

impl<C> DirectoryBans<C> {
    /// Bans in `directory`, from the time of `clock` on.
    pub const fn new(directory: Directory, clock: C) -> Self {
        Self { directory, clock }
    }
}

impl<C: Clock> BanSink for DirectoryBans<C> {
    fn ban(&self, order: BanOrder) {
        let now: UnixSeconds = self.clock.now();
        let until = now.saturating_add(order.seconds);
        let reason = order.offence.rule().text;
        let known = self.directory.is_banned(&order.target.node_id(), now);
        self.directory
            .ban(order.target, until, order.severity, reason, now);
        // A banned peer may have many messages under way; one line will do.
        if !known {
            warn!(peer = %order.target.node_id(), seconds = order.seconds, reason, "peer banned");
        }
    }
}

impl<B: BanSink + ?Sized> BanSink for Arc<B> {
    fn ban(&self, order: BanOrder) {
        (**self).ban(order);
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{ManualClock, test_util::public_key};

    use super::*;
    use crate::{
        FloodLimits, rules,
        test_support::{NOW, bans},
    };

    fn parties<'a>(origin: Option<&'a PublicKey>, sought: Option<&'a PublicKey>) -> Parties<'a> {
        Parties {
            source: Some(public_key(2).node_id()),
            origin,
            sought,
        }
    }

    #[test]
    fn every_offence_follows_the_table_in_both_profiles() {
        let (origin, sought) = (public_key(3), public_key(4));
        for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
            let (bans, taken) = bans(profile);
            for rule in rules() {
                let order = bans.report(rule.offence, parties(Some(&origin), Some(&sought)));
                assert_eq!(taken.take(), order.as_slice());
                let Some(sanction) = rule.sanction(profile) else {
                    assert_eq!(order, None);
                    continue;
                };
                let order = order.unwrap();
                let target = match sanction.culprit {
                    Culprit::Source => public_key(2).node_id().into(),
                    Culprit::Origin => BanTarget::from(origin),
                    Culprit::Sought => BanTarget::from(sought),
                };
                assert_eq!((order.target, order.severity), (target, sanction.severity));
            }
        }
    }

    #[test]
    fn who_is_not_known_is_not_banned() {
        let (bans, taken) = bans(AttributionProfile::Strict);
        assert_eq!(
            bans.report(Offence::JoinForOther, parties(None, None)),
            None
        );
        assert_eq!(bans.report(Offence::OwnMail, Parties::default()), None);
        assert_eq!(taken.take(), []);
    }

    #[test]
    fn the_directory_bans_until_the_term_is_over_and_never_shortens_it() {
        let directory = Directory::new(public_key(1).node_id());
        let clock = Arc::new(ManualClock::new(NOW));
        let sink = DirectoryBans::new(directory.clone(), Arc::clone(&clock));
        let bans = Bans::new(AttributionProfile::Strict, BanTerms::default(), sink);
        let (origin, id) = (public_key(3), public_key(3).node_id());
        bans.report(Offence::JoinForOther, parties(Some(&origin), None));
        bans.report(Offence::JoinForgedClaim, parties(Some(&origin), None));
        assert!(directory.is_banned(&id, NOW.saturating_add(7_199)));
        assert!(!directory.is_banned(&id, NOW.saturating_add(7_200)));
        let ban = directory.find_ban(&id, NOW).unwrap();
        assert_eq!(&*ban.reason, Offence::JoinForOther.rule().text);
    }

    #[test]
    fn floods_are_banned_low() {
        let limits = FloodLimits {
            messages: 2,
            seconds: 60,
        };
        let meter = FloodMeter::new(limits, [0; 16]);
        let (bans, taken) = bans(AttributionProfile::Legacy);
        let (quiet, loud) = (public_key(2).node_id(), public_key(3).node_id());
        for _ in 0..3 {
            meter.record(&loud, NOW);
        }
        meter.record(&quiet, NOW);
        assert_eq!(bans.report_floods(&meter, NOW), 1);
        let orders = taken.take();
        assert_eq!(orders.len(), 1);
        assert_eq!((orders[0].target, orders[0].seconds), (loud.into(), 600));
        assert_eq!(bans.report_floods(&meter, NOW.saturating_add(61)), 0);
    }
}
