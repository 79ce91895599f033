//! Choice of whom to dial of those that announce themselves on a local network. Performs no I/O and reads no clock.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddrV4},
};

use dht_core::{NodeId, PublicKey, UnixSeconds};
use dht_stack::{Rate, TokenBuckets};

/// Suggestions that wait to be dialled, at most; more are dropped, and none is pushed out.
const MAX_WAITING: usize = 64;
/// Connections that one address brought about, of the
/// [`MAX_LAN_CONNECTIONS`](dht_transport::limits::MAX_LAN_CONNECTIONS) of all.
const MAX_PER_ADDRESS: usize = 4;
/// Messages a second that one address may have read.
const MESSAGES: Rate = Rate {
    per_second: 4,
    burst: 16,
};
/// Suggestions of one address in each [`PERIOD_SECONDS`].
const SUGGESTIONS: Rate = Rate {
    per_second: 1,
    burst: 4,
};
const PERIOD_SECONDS: u64 = 60;
/// Addresses whose rates are remembered: those of four whole /24.
const MAX_ADDRESSES: usize = 1_024;

/// A node that may be dialled: its key, which the handshake proves, and where it says that it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suggestion {
    pub(super) key: PublicKey,
    pub(super) at: SocketAddrV4,
}

/// Why a suggestion is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It waits already.
    Waiting,
    /// Its address suggested as many as it may lately, or has as many connections.
    Address,
    /// As many wait as may.
    Full,
}

/// Suggestions that wait, with a share for each address: whoever announces any number of keys takes only its own.
#[derive(Debug)]
pub(super) struct Suggestions {
    messages: TokenBuckets<Ipv4Addr>,
    suggested: TokenBuckets<Ipv4Addr>,
    waiting: VecDeque<Suggestion>,
    /// Peers that a suggestion had this node connect to, and the address that it came from.
    connected: BTreeMap<NodeId, Ipv4Addr>,
}

impl Suggestions {
    /// None wait. The `seed` is unknown to others.
    pub(super) fn new(seed: [u8; 16]) -> Self {
        Self {
            messages: TokenBuckets::new([MESSAGES], MAX_ADDRESSES, seed),
            suggested: TokenBuckets::new([SUGGESTIONS], MAX_ADDRESSES, seed),
            waiting: VecDeque::new(),
            connected: BTreeMap::new(),
        }
    }

    /// Whether a message from this address is read.
    pub(super) fn may_read(&self, from: Ipv4Addr, now: UnixSeconds) -> bool {
        self.messages.try_take(&from, 0, now.0)
    }

    /// Takes in a suggestion, unless its address has its share or there is no room.
    pub(super) fn hear(&mut self, suggestion: Suggestion, now: UnixSeconds) -> Result<(), Refused> {
        let from = *suggestion.at.ip();
        if self.waiting.contains(&suggestion) {
            return Err(Refused::Waiting);
        }
        let held = self.connected.values().filter(|held| **held == from);
        let waiting = self.waiting.iter().filter(|it| *it.at.ip() == from);
        if held.count() + waiting.count() >= MAX_PER_ADDRESS {
            return Err(Refused::Address);
        }
        if self.waiting.len() >= MAX_WAITING {
            return Err(Refused::Full);
        }
        if !self.suggested.try_take(&from, 0, now.0 / PERIOD_SECONDS) {
            return Err(Refused::Address);
        }
        self.waiting.push_back(suggestion);
        Ok(())
    }

    /// Whether one waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The one that waited longest.
    pub(super) fn next(&mut self) -> Option<Suggestion> {
        self.waiting.pop_front()
    }

    /// The dial of a suggestion gave a connection.
    pub(super) fn on_connected(&mut self, suggestion: &Suggestion) {
        let from = *suggestion.at.ip();
        self.connected.insert(suggestion.key.node_id(), from);
    }

    /// Forgets the peers that are not connected any more.
    pub(super) fn retain_connected(&mut self, is_connected: impl Fn(&NodeId) -> bool) {
        self.connected.retain(|id, _| is_connected(id));
    }
}

impl Refused {
    /// A short name for metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Address => "share_of_address",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use dht_core::test_util::public_key;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_040);

    fn suggestions() -> Suggestions {
        Suggestions::new([7; 16])
    }

    fn suggestion(seed: u64, host: u8) -> Suggestion {
        Suggestion {
            key: public_key(seed),
            at: SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, host), 18_189),
        }
    }

    /// A million announcements of one address take four places, and another address keeps its own.
    #[test]
    fn one_address_takes_its_share() {
        let mut suggestions = suggestions();
        let invented: Vec<_> = (0..100).map(|seed| suggestion(seed, 1)).collect();
        let mut taken = 0;
        for round in 0..10_000 {
            let now = NOW.saturating_add(round / 1_000);
            for suggestion in &invented {
                taken += usize::from(suggestions.hear(suggestion.clone(), now).is_ok());
            }
        }
        assert_eq!(taken, MAX_PER_ADDRESS);
        let honest = suggestion(1_000, 2);
        assert_eq!(suggestions.hear(honest.clone(), NOW), Ok(()));
        assert_eq!(suggestions.hear(honest.clone(), NOW), Err(Refused::Waiting));
        let dialled: Vec<_> = std::iter::from_fn(|| suggestions.next()).collect();
        assert_eq!(dialled.len(), MAX_PER_ADDRESS + 1);
        assert_eq!(dialled.last(), Some(&honest));
    }

    /// A dial makes room for one suggestion a minute, and for none while its peers stay connected.
    #[test]
    fn shares_come_back_slowly() {
        let mut suggestions = suggestions();
        for seed in 0..MAX_PER_ADDRESS as u64 {
            assert_eq!(suggestions.hear(suggestion(seed, 1), NOW), Ok(()));
            suggestions.next();
        }
        let refused = suggestions.hear(suggestion(10, 1), NOW);
        assert_eq!(refused, Err(Refused::Address));
        let later = NOW.saturating_add(PERIOD_SECONDS);
        assert_eq!(suggestions.hear(suggestion(10, 1), later), Ok(()));
        assert_eq!(suggestions.next(), Some(suggestion(10, 1)));
        let again = suggestions.hear(suggestion(10, 1), later);
        assert_eq!(again, Err(Refused::Address));
        for seed in 0..MAX_PER_ADDRESS as u64 {
            suggestions.on_connected(&suggestion(seed, 1));
        }
        let hour = NOW.saturating_add(3_600);
        let refused = suggestions.hear(suggestion(10, 1), hour);
        assert_eq!(refused, Err(Refused::Address));
        suggestions.retain_connected(|id| *id != suggestion(0, 1).key.node_id());
        assert_eq!(suggestions.hear(suggestion(10, 1), hour), Ok(()));
    }

    #[test]
    fn full_list_pushes_nobody_out() {
        let mut suggestions = suggestions();
        let mut honest = (1..=200).map(|host| suggestion(host.into(), host));
        let first = honest.next().unwrap();
        suggestions.hear(first.clone(), NOW).unwrap();
        let taken = honest.filter(|it| suggestions.hear(it.clone(), NOW).is_ok());
        assert_eq!(taken.count(), MAX_WAITING - 1);
        assert_eq!(suggestions.next(), Some(first));
    }

    #[test]
    fn messages_of_one_address_are_limited() {
        let suggestions = suggestions();
        let [flooding, other] = [1, 2].map(|host| Ipv4Addr::new(192, 168, 1, host));
        let read = (0..1_000).filter(|_| suggestions.may_read(flooding, NOW));
        assert_eq!(read.count(), MESSAGES.burst as usize);
        assert!(suggestions.may_read(other, NOW));
    }
}
