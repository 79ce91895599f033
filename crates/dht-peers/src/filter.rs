//! Which peers a query is about.

use dht_core::{Features, NodeId, UnixSeconds};

use crate::{exclude::Exclude, record::PeerRecord};

/// A peer is active if it was seen within this many seconds: 7 days.
pub const ACTIVE_SECONDS: u64 = 7 * 24 * 60 * 60;

/// A rule about features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FeatureRule {
    /// Any peer passes.
    #[default]
    Any,
    /// Exactly these; the role tests of the protocol are exact.
    Exactly(Features),
    /// Peers with at least these features pass.
    Contains(Features),
}

/// Which peers a query is about. Start from a preset and narrow it. Proven peers are asked about, except by
/// [`everybody`](Self::everybody) and [`heard_of`](Self::heard_of).
#[derive(Clone, Copy, Debug)]
pub struct PeerFilter<'a> {
    now: UnixSeconds,
    features: FeatureRule,
    exclude: &'a [NodeId],
    proven: bool,
    heard_of: bool,
    banned: bool,
    offline: bool,
    deleted: bool,
    seen_within: Option<u64>,
}

/// A [`PeerFilter`] made ready for many questions.
pub(crate) struct Matcher<'a> {
    filter: PeerFilter<'a>,
    exclude: Exclude<'a>,
}

// === impl FeatureRule ===

impl FeatureRule {
    /// Whether these features satisfy the rule.
    #[must_use]
    pub fn allows(self, features: Features) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => features == wanted,
            Self::Contains(wanted) => features.contains(wanted),
        }
    }
}

// === impl PeerFilter ===

impl<'a> PeerFilter<'a> {
    /// All peers of both tables, banned and deleted ones included.
    #[must_use]
    pub const fn everybody(now: UnixSeconds) -> Self {
        Self {
            now,
            features: FeatureRule::Any,
            exclude: &[],
            proven: true,
            heard_of: true,
            banned: true,
            offline: true,
            deleted: true,
            seen_within: None,
        }
    }

    /// Proven, and neither banned nor deleted.
    #[must_use]
    pub const fn allowed(now: UnixSeconds) -> Self {
        Self {
            heard_of: false,
            banned: false,
            deleted: false,
            ..Self::everybody(now)
        }
    }

    /// Proven, and neither banned nor deleted nor offline.
    #[must_use]
    pub const fn reachable(now: UnixSeconds) -> Self {
        Self {
            offline: false,
            ..Self::allowed(now)
        }
    }

    /// Proven, neither banned nor deleted, and seen within [`ACTIVE_SECONDS`]: worth telling others about.
    #[must_use]
    pub const fn active(now: UnixSeconds) -> Self {
        Self {
            seen_within: Some(ACTIVE_SECONDS),
            ..Self::allowed(now)
        }
    }

    /// Heard of, not proven, and neither banned nor deleted nor offline: a suggestion whom to dial, and nothing else.
    #[must_use]
    pub const fn heard_of(now: UnixSeconds) -> Self {
        Self {
            proven: false,
            heard_of: true,
            ..Self::reachable(now)
        }
    }

    /// Only peers whose features satisfy the rule.
    #[must_use]
    pub const fn features(mut self, rule: FeatureRule) -> Self {
        self.features = rule;
        self
    }

    /// Leaves out the peers with these node ids.
    #[must_use]
    pub const fn exclude(mut self, ids: &'a [NodeId]) -> Self {
        self.exclude = ids;
        self
    }

    /// Whether the filter lets this peer through.
    #[must_use]
    pub fn matches(&self, peer: &PeerRecord) -> bool {
        self.matches_state(peer) && !self.exclude.contains(peer.node_id())
    }

    pub(crate) const fn rule(&self) -> FeatureRule {
        self.features
    }

    /// The tables asked about, true for the proven one.
    pub(crate) fn tables(&self) -> impl Iterator<Item = bool> + Clone + use<> {
        let tables = [(self.proven, true), (self.heard_of, false)];
        let asked = tables.into_iter().filter(|(asked, _)| *asked);
        asked.map(|(_, is_proven)| is_proven)
    }

    pub(crate) fn matcher(&self) -> Matcher<'a> {
        Matcher {
            filter: *self,
            exclude: Exclude::new(self.exclude),
        }
    }

    fn matches_state(&self, peer: &PeerRecord) -> bool {
        self.features.allows(peer.features())
            && (if peer.is_proven() {
                self.proven
            } else {
                self.heard_of
            })
            && (self.deleted || peer.deleted_at().is_none())
            && (self.banned || !peer.is_banned(self.now))
            && (self.offline || !peer.is_offline())
            && self.seen_within.is_none_or(|within| {
                peer.last_seen()
                    .is_some_and(|seen| self.now.saturating_since(seen) <= within)
            })
    }
}

// === impl Matcher ===

impl Matcher<'_> {
    pub(crate) fn matches(&self, peer: &PeerRecord) -> bool {
        self.filter.matches_state(peer) && !self.exclude.contains(peer.node_id())
    }
}
