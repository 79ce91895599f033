//! From an offence to a ban.

use std::sync::Arc;

use dht_core::{Clock, PublicKey, RemotePeer, Severity, UnixSeconds};
use dht_peers::{BanTarget, Directory};
use tracing::{debug, warn};

use crate::{AttributionProfile, BanTerms, Culprit, Offence, metrics};

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
    pub source: Option<&'a RemotePeer>,
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
            Culprit::Source => parties.source?.node_id.into(),
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
