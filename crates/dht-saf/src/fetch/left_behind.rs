//! Remembers who stores messages that this node had no place for, and when to ask again. No I/O, no clock.

use std::collections::HashMap;

use dht_core::{NodeId, RemotePeer, UnixSeconds};

/// Seconds until the first repetition; each further one waits twice as long as the one before.
const FIRST_SECONDS: u64 = 10;
/// Most seconds between two repetitions.
const MOST_SECONDS: u64 = 640;
/// Peers remembered; others are asked when they connect again.
const MAX_PEERS: usize = 1024;

/// Peers that store messages which were fetched and not taken.
#[derive(Debug, Default)]
pub(super) struct LeftBehind(HashMap<NodeId, Repetition>);

#[derive(Debug)]
struct Repetition {
    /// Second in which to ask again; `None` while that is under way.
    at: Option<UnixSeconds>,
    /// Seconds waited for that.
    wait: u64,
}

impl LeftBehind {
    /// A peer's messages were not taken.
    pub(super) fn add(&mut self, peer: &RemotePeer, now: UnixSeconds) {
        let wait = match self.0.get(&peer.node_id) {
            Some(before) => before.wait.saturating_mul(2).min(MOST_SECONDS),
            None if self.0.len() >= MAX_PEERS => return,
            None => FIRST_SECONDS,
        };
        let at = Some(now.saturating_add(wait));
        self.0.insert(peer.node_id, Repetition { at, wait });
    }

    /// Everything this peer had was taken.
    pub(super) fn remove(&mut self, peer: &NodeId) {
        self.0.remove(peer);
    }

    /// The peers to ask now.
    pub(super) fn due(&mut self, now: UnixSeconds) -> Vec<NodeId> {
        let due = |it: &mut Repetition| it.at.take_if(|at| *at <= now).is_some();
        let peers = self.0.iter_mut();
        peers
            .filter_map(|(peer, it)| due(it).then_some(*peer))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Features, test_util::public_key};

    use super::*;

    #[test]
    fn repetitions_become_rarer() {
        let mut left = LeftBehind::default();
        let key = public_key(1);
        let peer = RemotePeer {
            node_id: key.node_id(),
            public_key: key,
            features: Features::NODE,
        };
        let mut now = UnixSeconds(1_700_000_000);
        for wait in [10, 20, 40, 80, 160, 320, 640, 640] {
            left.add(&peer, now);
            assert_eq!(left.due(now.saturating_add(wait - 1)), []);
            now = now.saturating_add(wait);
            assert_eq!(left.due(now), [peer.node_id]);
            assert_eq!(left.due(now), [], "while it is being asked");
        }
        left.remove(&peer.node_id);
        left.add(&peer, now);
        assert_eq!(left.due(now.saturating_add(10)), [peer.node_id]);
    }
}
