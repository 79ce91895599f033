//! Room for another connection: which one is closed for it.

use std::sync::{Arc, atomic::Ordering};

use super::{
    eviction::{self, Protections},
    handle::Connection,
};
use crate::{metrics, state::State};

impl State {
    /// Whether there are so many connections that one may be closed for another, of `most`. Costs next to nothing: anybody may ask, by
    /// opening a socket.
    pub(crate) fn may_make_room(&self, most: usize) -> bool {
        self.table.connections() > Protections::of(most).total()
    }

    /// Whether one of `most` connections could be closed for another one.
    pub(crate) fn can_make_room(&self, most: usize) -> bool {
        self.least_useful(most, None).is_some()
    }

    /// Closes the least useful connection if there are more than the limit says now that `new` counts.
    pub(crate) fn make_room(&self, new: &Connection) {
        // A standby holds a slot as any other connection does.
        let connections = self.table.with_standbys();
        let open = connections.iter().filter(|held| held.is_open()).count();
        let most = self.admission.most_connections();
        if open > most
            && let Some(victim) = self.least_useful(most, Some(new))
        {
            tracing::debug!(peer = %victim.node_id(), "connection evicted");
            victim.evict();
            self.counters.evicted.fetch_add(1, Ordering::Relaxed);
            metrics::evicted();
        }
    }

    /// The least useful of the connections that strangers brought about; no configured peer's.
    fn least_useful(&self, most: usize, new: Option<&Connection>) -> Option<Arc<Connection>> {
        let directory = &self.upgrade.directory;
        let candidates = self.table.with_standbys().into_iter().filter(|held| {
            let is_new = new.is_some_and(|new| new.id() == held.id());
            let is_configured = || {
                let known = directory.find(held.node_id());
                known.is_some_and(|known| known.is_seed())
            };
            held.is_open() && held.is_of_stranger() && !is_new && !is_configured()
        });
        let candidates = candidates.map(Connection::candidate);
        eviction::victim(candidates.collect(), Protections::of(most))
    }
}
