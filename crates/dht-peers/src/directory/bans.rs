//! The bans of a [`Directory`], and its allow list.

use std::sync::Arc;

use dht_core::{NodeId, Severity, UnixSeconds};

use super::Directory;
use crate::{
    ban::{AllowListFull, Ban, BanOutcome, BanTarget, FOREVER},
    metrics,
};

impl Directory {
    /// Bans a peer on the operator's behalf, in the directory or not, by node id or key, and calls the
    /// [hooks](Self::on_ban). Code that notices an offence reports it to a
    /// [`BanPolicy`](crate::policy::BanPolicy) instead.
    ///
    /// An earlier ban that ends later stays as it is.
    pub fn ban(
        &self,
        target: impl Into<BanTarget>,
        until: UnixSeconds,
        severity: Severity,
        reason: &str,
        now: UnixSeconds,
    ) -> BanOutcome {
        let target = target.into();
        let ban = Ban {
            node_id: target.node_id(),
            public_key: target.public_key(),
            until,
            severity,
            offence: None,
            is_listed: false,
            reason: reason.into(),
        };
        self.enforce(ban, now)
    }

    /// Bans a peer that the settings list, for as long as the node runs or until the ban is [lifted](Self::unban).
    pub fn ban_listed(&self, target: impl Into<BanTarget>, now: UnixSeconds) -> BanOutcome {
        let target = target.into();
        let ban = Ban {
            node_id: target.node_id(),
            public_key: target.public_key(),
            until: FOREVER,
            severity: Severity::High,
            offence: None,
            is_listed: true,
            reason: "banned by the settings".into(),
        };
        self.enforce(ban, now)
    }

    pub(crate) fn enforce(&self, ban: Ban, now: UnixSeconds) -> BanOutcome {
        if ban.node_id == self.0.me {
            return BanOutcome::Ourselves;
        }
        if !ban.is_active(now) {
            return BanOutcome::AlreadyOver;
        }
        let offence = ban.offence;
        let banned_before = self.is_banned(&ban.node_id, now);
        let Some(ban) = self.0.state.write().ban(ban, now) else {
            return BanOutcome::AllowListed;
        };
        metrics::banned(offence);
        // A banned peer may have many messages under way; one line is enough.
        if !banned_before {
            let (peer, reason) = (&ban.node_id, &ban.reason);
            match ban.seconds_left(now) {
                Some(seconds) => tracing::warn!(%peer, seconds, %reason, "peer banned"),
                None => tracing::warn!(%peer, %reason, "peer banned permanently"),
            }
        }
        for hook in &*self.0.hooks.read() {
            hook(&ban);
        }
        BanOutcome::Banned(ban)
    }

    /// Whether a ban of this peer, known or not, is in force.
    #[must_use]
    pub fn is_banned(&self, id: &NodeId, now: UnixSeconds) -> bool {
        self.ban_in_force(id, now).is_some()
    }

    /// The ban of this peer, known or not, that is in force.
    #[must_use]
    pub fn ban_in_force(&self, id: &NodeId, now: UnixSeconds) -> Option<Arc<Ban>> {
        let state = self.0.state.read();
        let ban = state.bans().find(id).filter(|ban| ban.is_active(now));
        ban.map(Arc::clone)
    }

    /// Lifts a ban. False if there was none.
    pub fn unban(&self, target: impl Into<BanTarget>) -> bool {
        self.0.state.write().unban(&target.into().node_id())
    }

    /// All bans in force, those that end first first.
    #[must_use]
    pub fn banned(&self, now: UnixSeconds) -> Vec<Arc<Ban>> {
        self.0
            .state
            .read()
            .bans()
            .active(now)
            .map(Arc::clone)
            .collect()
    }

    /// Puts a peer on the allow list: it is never banned, and a ban in force is lifted. False if it was on it.
    ///
    /// # Errors
    /// [`AllowListFull`] if [`MAX_ALLOWED`](crate::MAX_ALLOWED) others are on it.
    pub fn allow(&self, id: NodeId) -> Result<bool, AllowListFull> {
        self.0.state.write().allow(id)
    }

    /// Takes a peer off the allow list. False if it was not on it.
    pub fn disallow(&self, id: &NodeId) -> bool {
        self.0.state.write().disallow(id)
    }

    /// Whether a peer is on the allow list.
    #[must_use]
    pub fn is_allowed(&self, id: &NodeId) -> bool {
        self.0.state.read().bans().is_allowed(id)
    }

    /// The allow list, by node id.
    #[must_use]
    pub fn allowed(&self) -> Vec<NodeId> {
        self.0.state.read().bans().allowed()
    }

    /// Calls `hook` after every ban, in the task that bans, so that the connection can be closed. It must not
    /// block, and must not register another hook. It stays for the life of the directory.
    pub fn on_ban(&self, hook: impl Fn(&Arc<Ban>) + Send + Sync + 'static) {
        self.0.hooks.write().push(Box::new(hook));
    }
}
