//! Ban policy: what a peer must not do, and the ban that follows.
//!
//! [`rules`] is the one table of [`Offence`]s that the code, `docs/bans.md` and `dht-node bans rules` read. Code that
//! notices an offence reports it to a [`BanPolicy`], together with the [`Parties`] it knows; the policy looks up who
//! is to be banned under its [`AttributionProfile`] and enters the ban in the [`Directory`].
//!
//! ```
//! use std::sync::Arc;
//! use dht_core::{ManualClock, SecretKey, UnixSeconds};
//! use dht_peers::{
//!     Directory,
//!     policy::{AttributionProfile, BanPolicy, BanTerms, Offence, Parties},
//! };
//!
//! let [me, joiner] = [1, 2].map(|n| SecretKey::from_bytes(&[n; 32]).map(|secret| secret.public_key()));
//! let (directory, joiner) = (Directory::new(me?.node_id()), joiner?);
//! let clock = Arc::new(ManualClock::new(UnixSeconds(1_700_000_000)));
//! let policy = BanPolicy::new(AttributionProfile::Strict, BanTerms::default(), directory.clone(), clock);
//!
//! let ban = policy.report(Offence::JoinForOther, Parties::origin(joiner));
//! assert_eq!(ban.map(|ban| ban.until), Some(UnixSeconds(1_700_007_200)));
//! assert!(directory.is_banned(&joiner.node_id(), UnixSeconds(1_700_007_199)));
//! # Ok::<(), dht_core::ParseError>(())
//! ```
//!
//! Specification 03, section 4.

mod offence;
mod penalty;
mod profile;

use std::{fmt, sync::Arc};

use dht_core::SharedClock;

use crate::{
    ban::{Ban, BanOutcome, BanTarget},
    directory::Directory,
};

pub use offence::{Offence, Rule, rules};
pub use penalty::{BanTerms, DEFAULT_LONG_SECONDS, DEFAULT_SHORT_SECONDS, Party, Penalty, Term};
pub use profile::{AttributionProfile, UnknownProfile};

/// Turns reported offences into bans. Cloning shares the policy.
#[derive(Clone)]
pub struct BanPolicy(Arc<Inner>);

struct Inner {
    profile: AttributionProfile,
    terms: BanTerms,
    directory: Directory,
    clock: SharedClock,
}

/// The parties to an offence that the reporter knows; each by key, or by node id where the key is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parties {
    /// The connected peer, for [`Party::Deliverer`].
    pub deliverer: Option<BanTarget>,
    /// The authenticated sender, for [`Party::Origin`].
    pub origin: Option<BanTarget>,
    /// The peer that a discovery sought, for [`Party::Sought`].
    pub sought: Option<BanTarget>,
    /// The peer a claim is about, for [`Party::Peer`].
    pub peer: Option<BanTarget>,
}

// === impl BanPolicy ===

impl BanPolicy {
    /// A policy that bans in `directory`, from the time of `clock` on.
    #[must_use]
    pub fn new(
        profile: AttributionProfile,
        terms: BanTerms,
        directory: Directory,
        clock: SharedClock,
    ) -> Self {
        Self(Arc::new(Inner {
            profile,
            terms,
            directory,
            clock,
        }))
    }

    /// The profile that decides who is banned.
    #[must_use]
    pub fn profile(&self) -> AttributionProfile {
        self.0.profile
    }

    /// Bans the party that the profile holds responsible for `offence`, and returns the ban now in force, which is
    /// an earlier one if that ends later.
    ///
    /// `None` if the profile has no ban for the offence, if the responsible party is not among `parties`, or if the directory
    /// refuses the ban (a peer on the allow list, this node itself).
    pub fn report(&self, offence: Offence, parties: Parties) -> Option<Arc<Ban>> {
        let Inner {
            profile,
            terms,
            directory,
            clock,
        } = &*self.0;
        let rule = offence.rule();
        let Some(penalty) = offence.penalty(*profile) else {
            tracing::debug!(offence = rule.name, "unpunished");
            return None;
        };
        let target = parties.get(penalty.party)?;
        let now = clock.now();
        let ban = Ban {
            node_id: target.node_id(),
            public_key: target.public_key(),
            until: now.saturating_add(terms.seconds(penalty.term)),
            severity: penalty.severity,
            offence: Some(offence),
            is_listed: false,
            reason: rule.text.into(),
        };
        match directory.enforce(ban, now) {
            BanOutcome::Banned(ban) => Some(ban),
            BanOutcome::AllowListed | BanOutcome::Ourselves | BanOutcome::AlreadyOver => None,
        }
    }
}

impl fmt::Debug for BanPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BanPolicy")
            .field("profile", &self.0.profile)
            .field("terms", &self.0.terms)
            .finish_non_exhaustive()
    }
}

// === impl Parties ===

impl Parties {
    /// Only the deliverer is known.
    #[must_use]
    pub fn deliverer(deliverer: impl Into<BanTarget>) -> Self {
        Self {
            deliverer: Some(deliverer.into()),
            ..Self::default()
        }
    }

    /// Only the origin is known.
    #[must_use]
    pub fn origin(origin: impl Into<BanTarget>) -> Self {
        Self {
            origin: Some(origin.into()),
            ..Self::default()
        }
    }

    /// Only the peer at the other end of the connection is known.
    #[must_use]
    pub fn peer(peer: impl Into<BanTarget>) -> Self {
        Self {
            peer: Some(peer.into()),
            ..Self::default()
        }
    }

    const fn get(&self, party: Party) -> Option<BanTarget> {
        match party {
            Party::Deliverer => self.deliverer,
            Party::Origin => self.origin,
            Party::Sought => self.sought,
            Party::Peer => self.peer,
        }
    }
}

#[cfg(test)]
mod tests;
