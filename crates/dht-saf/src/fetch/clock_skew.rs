//! Notices that the clock of this node is slow, by what peers say when they stored messages. No I/O, reads no clock.

use dht_core::{NodeId, UnixSeconds};

/// Seconds that a message may be stored in the future and is still taken (strict profile): clocks differ.
pub(super) const TOLERANCE_SECONDS: u64 = 5 * 60;

/// A peer counts as ahead from more than this many seconds on.
const NOTICEABLE_SECONDS: u64 = 30;
/// Peers that must be ahead; fewer may have wrong clocks themselves.
const PEERS: usize = 3;
/// Seconds for which a peer counts as ahead after its last response, and between two warnings.
const WINDOW_SECONDS: u64 = 60 * 60;

/// Peers whose clocks were ahead of the clock of this node lately.
#[derive(Debug, Default)]
pub(super) struct ClockSkew {
    /// Peer, seconds it was ahead, and when; at most [`PEERS`].
    ahead: Vec<(NodeId, u64, UnixSeconds)>,
    warned: Option<UnixSeconds>,
}

impl ClockSkew {
    /// Takes the newest `stored_at` of a response. Returns the seconds by which this node is at least behind if the operator
    /// is to be warned now.
    pub(super) fn observe(
        &mut self,
        peer: NodeId,
        newest: UnixSeconds,
        now: UnixSeconds,
    ) -> Option<u64> {
        let seconds = newest.saturating_since(now);
        self.ahead
            .retain(|(other, _, at)| *other != peer && now.saturating_since(*at) <= WINDOW_SECONDS);
        if seconds <= NOTICEABLE_SECONDS {
            return None;
        }
        self.ahead.truncate(PEERS - 1);
        self.ahead.push((peer, seconds, now));
        let is_warned = self
            .warned
            .is_some_and(|at| now.saturating_since(at) <= WINDOW_SECONDS);
        if self.ahead.len() < PEERS || is_warned {
            return None;
        }
        self.warned = Some(now);
        self.ahead.iter().map(|(_, seconds, _)| *seconds).min()
    }
}

#[cfg(test)]
mod tests {
    use dht_core::test_util::{NOW, public_key};

    use super::*;

    #[test]
    fn several_peers_ahead_warn_once() {
        let mut skew = ClockSkew::default();
        let mut observe = |seed, ahead, at: u64| {
            let now = NOW.saturating_add(at);
            skew.observe(public_key(seed).node_id(), now.saturating_add(ahead), now)
        };
        assert_eq!(observe(1, 40, 0), None);
        assert_eq!(observe(1, 50, 1), None, "one peer counts once");
        assert_eq!(observe(2, 30, 2), None, "within the tolerance");
        assert_eq!(observe(2, 90, 3), None);
        assert_eq!(observe(3, 31, 4), Some(31));
        assert_eq!(observe(4, 31, 5), None, "warned already");
        let later = 5 + WINDOW_SECONDS;
        assert_eq!(observe(1, 40, later), None, "the others are forgotten");
    }
}
