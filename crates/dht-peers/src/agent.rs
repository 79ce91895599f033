//! Program that a peer names in the handshake.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use bytes::Bytes;

use crate::address::truncate;

/// Bytes kept of a user agent; a longer one is refused at the handshake.
pub const MAX_USER_AGENT_BYTES: usize = 50;

/// Protocol names kept of a peer, as many as a handshake may carry.
pub const MAX_PROTOCOLS: usize = 20;

/// User agent of a peer and the protocols it offers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    user_agent: Box<str>,
    /// Slices of one allocation.
    protocols: Box<[Bytes]>,
}

/// Agents that were entered lately, so that the many peers which run one program share one. Each has one slot, in which a new one
/// takes the place of the old.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    slots: [Option<Arc<Agent>>; SLOTS],
    hasher: RandomState,
}

const SLOTS: usize = 32;

// === impl Agent ===

impl Agent {
    /// Cuts both to their bounds. `None` if there is nothing of either.
    pub(crate) fn new<P: AsRef<[u8]>>(
        user_agent: &str,
        protocols: impl IntoIterator<Item = P>,
    ) -> Option<Self> {
        let mut names = Vec::new();
        let mut ends = Vec::new();
        for name in protocols.into_iter().take(MAX_PROTOCOLS) {
            names.extend_from_slice(name.as_ref());
            ends.push(names.len());
        }
        if user_agent.is_empty() && ends.is_empty() {
            return None;
        }
        // Copied: the names must not keep the whole message they came in alive.
        let mut rest = Bytes::from(names);
        let mut from = 0;
        let slices = ends.into_iter().map(|end| {
            let name = rest.split_to(end - from);
            from = end;
            name
        });
        Some(Self {
            protocols: slices.collect(),
            user_agent: truncate(user_agent, MAX_USER_AGENT_BYTES).into(),
        })
    }

    pub(crate) fn user_agent(&self) -> &str {
        &self.user_agent
    }

    pub(crate) fn protocols(&self) -> &[Bytes] {
        &self.protocols
    }

    /// Agent that `new` names, and that of this one where `new` names none.
    pub(crate) fn merged(self: &Arc<Self>, new: &Arc<Self>) -> Arc<Self> {
        match (new.user_agent.is_empty(), new.protocols.is_empty()) {
            (false, false) => Arc::clone(new),
            (is_nameless, _) => {
                let (name, other) = if is_nameless {
                    (self, new)
                } else {
                    (new, self)
                };
                Arc::new(Self {
                    user_agent: name.user_agent.clone(),
                    protocols: other.protocols.clone(),
                })
            }
        }
    }

    /// Bytes of memory in at most four allocations.
    pub(crate) fn bytes(&self) -> usize {
        let of_name = |name: &Bytes| size_of::<Bytes>().saturating_add(name.len());
        let names = self.protocols.iter().map(of_name);
        let rest = size_of::<Self>().saturating_add(self.user_agent.len());
        names.fold(rest, usize::saturating_add)
    }
}

// === impl Agents ===

impl Agents {
    /// Puts the agent that other peers have in the place of an equal one.
    pub(crate) fn share(&mut self, agent: &mut Option<Arc<Agent>>) {
        let Some(agent) = agent else {
            return;
        };
        let slot = self.hasher.hash_one(&**agent) % SLOTS as u64;
        let slot = usize::try_from(slot).ok();
        let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) else {
            return;
        };
        match slot {
            Some(known) if known == agent => *agent = Arc::clone(known),
            _ => *slot = Some(Arc::clone(agent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(user_agent: &str, protocols: &[&'static str]) -> Option<Arc<Agent>> {
        Agent::new(user_agent, protocols).map(Arc::new)
    }

    #[test]
    fn equal_agents_are_shared() {
        let mut agents = Agents::default();
        let mut two = [agent("dht/1", &["a", "bc"]), agent("dht/1", &["a", "bc"])];
        for agent in &mut two {
            agents.share(agent);
        }
        let [one, other] = two.map(Option::unwrap);
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.protocols(), ["a", "bc"]);
        // As many as there may be; those that went are still told of by their peers.
        for n in 0..1_000 {
            agents.share(&mut agent(&n.to_string(), &[]));
        }
        assert_eq!(one.user_agent(), "dht/1");
    }

    #[test]
    fn merged_agent_keeps_what_is_told() {
        let both = agent("dht/1", &["a"]).unwrap();
        let name = agent("dht/2", &[]).unwrap();
        let protocols = agent("", &["b"]).unwrap();
        assert_eq!(both.merged(&name), agent("dht/2", &["a"]).unwrap());
        assert_eq!(both.merged(&protocols), agent("dht/1", &["b"]).unwrap());
        assert_eq!(name.merged(&both), both);
        assert_eq!(agent("", &[]), None);
    }
}
