//! Penalties: the party that is banned, the severity and the duration.

use dht_core::Severity;

/// A party to an offence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Party {
    /// The connected peer that handed this node an envelope or a page of stored messages.
    Deliverer,
    /// The authenticated signer of a message.
    Origin,
    /// The peer that a discovery looked for.
    Sought,
    /// The authenticated peer at the other end of a connection.
    Peer,
}

/// Length of a ban.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Term {
    /// Ban for [`BanTerms::short_seconds`].
    Short,
    /// Ban for [`BanTerms::long_seconds`].
    Long,
    /// This many seconds, whatever [`BanTerms`] says.
    Seconds(u64),
}

/// The ban that follows from an offence under one profile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Penalty {
    /// Party that is banned.
    pub party: Party,
    /// Gravity recorded with the ban.
    pub severity: Severity,
    /// Length of the ban.
    pub term: Term,
}

/// Seconds behind [`Term::Short`] and [`Term::Long`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanTerms {
    /// Length of a short ban in seconds. Defaults to [`DEFAULT_SHORT_SECONDS`].
    pub short_seconds: u64,
    /// Length of a long ban in seconds. Defaults to [`DEFAULT_LONG_SECONDS`].
    pub long_seconds: u64,
}

/// Default length of a short ban: 10 minutes (specification 03, section 4.1).
pub const DEFAULT_SHORT_SECONDS: u64 = 600;

/// Default length of a long ban: 2 hours (specification 03, section 4.1).
pub const DEFAULT_LONG_SECONDS: u64 = 7_200;

// === impl Party ===

impl Party {
    /// A short name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deliverer => "deliverer",
            Self::Origin => "signer",
            Self::Sought => "sought",
            Self::Peer => "peer",
        }
    }
}

// === impl Penalty ===

impl Penalty {
    /// A [`Term::Short`] ban of low severity.
    pub(super) const fn low(party: Party) -> Option<Self> {
        Self::new(party, Severity::Low, Term::Short)
    }

    /// A [`Term::Short`] ban of medium severity.
    pub(super) const fn medium(party: Party) -> Option<Self> {
        Self::new(party, Severity::Medium, Term::Short)
    }

    /// A [`Term::Long`] ban of high severity.
    pub(super) const fn high(party: Party) -> Option<Self> {
        Self::new(party, Severity::High, Term::Long)
    }

    pub(super) const fn new(party: Party, severity: Severity, term: Term) -> Option<Self> {
        Some(Self {
            party,
            severity,
            term,
        })
    }
}

// === impl BanTerms ===

impl BanTerms {
    /// Seconds of a term.
    #[must_use]
    pub const fn seconds(&self, term: Term) -> u64 {
        match term {
            Term::Short => self.short_seconds,
            Term::Long => self.long_seconds,
            Term::Seconds(seconds) => seconds,
        }
    }
}

impl Default for BanTerms {
    fn default() -> Self {
        Self {
            short_seconds: DEFAULT_SHORT_SECONDS,
            long_seconds: DEFAULT_LONG_SECONDS,
        }
    }
}
