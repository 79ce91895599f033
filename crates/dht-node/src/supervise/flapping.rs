//! Notices connections that end again and again, as when two processes use one key. Performs no I/O and reads no clock.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use dht_core::NodeId;
use tokio::time::Instant;

/// Interval at which configured peers that are not connected are dialled.
pub(super) const REDIAL_INTERVAL: Duration = Duration::from_secs(10);
/// Doublings of [`REDIAL_INTERVAL`] for a peer whose connections end soon: ten minutes and a half.
const MAX_DOUBLINGS: u32 = 6;
/// Repetitions that are reported, if they come within [`WINDOW`].
const REPORTED: usize = 3;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Time between two repetitions, up to which these two are reported.
pub(super) const CLOSE: Duration = Duration::from_secs(50);
/// Peers that are remembered; beyond it those of which nothing was heard within [`WINDOW`] are forgotten.
const MAX_PEERS: usize = 1_024;

/// When a configured peer is dialled. A connection that another process of the same key takes over ends soon: dialled at
/// once, it would be taken back, and so on for ever.
#[derive(Debug, Default)]
pub(super) struct Redial {
    state: State,
    /// Connections in a row that were seen at one look at most; up to [`MAX_DOUBLINGS`].
    short: u32,
    /// Not dialled before; `None` until a connection ended soon, so that the first look dials.
    next: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Down,
    /// Dialled since the last look.
    Dialled,
    /// Connected at the last look, for the first time.
    Up,
    /// Connected at the last two looks.
    Lasting,
}

impl Redial {
    /// Whether to dial the peer now. To be called every [`REDIAL_INTERVAL`].
    pub(super) fn look(&mut self, connected: bool, now: Instant) -> bool {
        if connected {
            self.state = match self.state {
                State::Down | State::Dialled => State::Up,
                State::Up | State::Lasting => {
                    self.short = 0;
                    State::Lasting
                }
            };
            return false;
        }
        // Two processes that look at the same time see each connection of theirs once: the first such is dialled again at
        // once, further ones are not.
        let longer = (self.short + 1).min(MAX_DOUBLINGS);
        let pause = match self.state {
            State::Dialled => Some(1 << longer),
            State::Up => Some((1 << self.short) - 1),
            State::Down | State::Lasting => None,
        };
        if let Some(intervals) = pause {
            self.next = Some(now + REDIAL_INTERVAL * intervals);
            self.short = longer;
        }
        self.state = State::Down;
        self.next.is_none_or(|next| next <= now)
    }

    /// A dial has connected the peer.
    pub(super) const fn dialled(&mut self) {
        self.state = State::Dialled;
    }
}

/// Counts repetitions by peer.
#[derive(Debug, Default)]
pub(crate) struct Repetitions(HashMap<NodeId, VecDeque<Instant>>);

impl Repetitions {
    /// Something happened to a peer; true if it is to be reported: at every third time within ten minutes, or the second within
    /// [`CLOSE`].
    pub(super) fn add(&mut self, peer: NodeId, now: Instant) -> bool {
        let is_recent = |at: Instant| now.duration_since(at) <= WINDOW;
        if self.0.len() >= MAX_PEERS {
            self.0
                .retain(|_, times| times.back().is_some_and(|at| is_recent(*at)));
        }
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer) {
            return false;
        }
        let times = self.0.entry(peer).or_default();
        let is_close = |at: &Instant| now.duration_since(*at) <= CLOSE;
        let follows_closely = times.back().is_some_and(is_close);
        times.push_back(now);
        times.retain(|at| is_recent(*at));
        let reported = follows_closely || times.len() >= REPORTED;
        if reported {
            self.0.remove(&peer);
        }
        reported
    }
}

/// Connections to peers that end although the peer had accepted this node.
#[derive(Debug, Default)]
pub(super) struct Losses {
    of_peer: Repetitions,
    /// Peer whose connections ended again and again last, and when.
    last: Option<(NodeId, Instant)>,
}

impl Losses {
    /// A connection to a peer has ended; true if another process of the same key is likely the cause. A peer that is not
    /// configured may have no room for this node: it is one of two such peers, or nobody keeps this node, as `is_kept` tells.
    pub(super) fn add(
        &mut self,
        peer: NodeId,
        is_configured: bool,
        is_kept: impl FnOnce() -> bool,
        now: Instant,
    ) -> bool {
        if !self.of_peer.add(peer, now) {
            return false;
        }
        let last = self.last.replace((peer, now));
        let is_other = |(id, at): (NodeId, Instant)| id != peer && now.duration_since(at) <= WINDOW;
        is_configured || last.is_some_and(is_other) || !is_kept()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every ten seconds for half an hour; each connection ends before the next look. The times of the dials.
    #[test]
    fn short_connections_are_dialled_rarely() {
        let start = Instant::now();
        let mut redial = Redial::default();
        let mut dials = Vec::new();
        for tick in 0..180 {
            if redial.look(false, start + REDIAL_INTERVAL * tick) {
                dials.push(tick * 10);
                redial.dialled();
            }
        }
        assert_eq!(dials, [0, 30, 80, 170, 340, 670, 1320]);
    }

    /// Another process takes each connection over between the first look that sees it and the next. The times of the dials.
    #[test]
    fn connections_seen_once_back_off() {
        let start = Instant::now();
        let mut redial = Redial::default();
        let mut dials = Vec::new();
        for tick in 0..180 {
            let is_up = dials.last().map(|at| at + 10) == Some(tick * 10);
            if redial.look(is_up, start + REDIAL_INTERVAL * tick) {
                dials.push(tick * 10);
                redial.dialled();
            }
        }
        assert_eq!(dials, [0, 20, 50, 100, 190, 360, 690, 1340]);
    }

    #[test]
    fn lasting_connections_are_dialled_at_once() {
        let start = Instant::now();
        let mut redial = Redial::default();
        let looks = [false, true, true, false, true, false];
        let dials: Vec<_> = looks
            .into_iter()
            .zip(0..)
            .map(|(connected, tick)| {
                let is_due = redial.look(connected, start + REDIAL_INTERVAL * tick);
                if is_due {
                    redial.dialled();
                }
                is_due
            })
            .collect();
        assert_eq!(dials, [true, false, false, true, false, true]);
    }

    #[test]
    fn every_third_repetition_is_reported() {
        let mut repetitions = Repetitions::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (a, b) = (NodeId::default(), NodeId::from_bytes(&[1; 13]).unwrap());
        let reported: Vec<_> = (0..6).map(|n| repetitions.add(a, at(n * 60))).collect();
        assert_eq!(reported, [false, false, true, false, false, true]);
        assert!((0..9).all(|n| !repetitions.add(b, at(n * 400))));
        let close = [4_000, 4_050, 4_100].map(|seconds| repetitions.add(b, at(seconds)));
        assert_eq!(close, [false, true, false]);
    }

    /// Two processes of one key flap at each peer that both dial, configured or not.
    #[test]
    fn losses_at_several_peers_are_told() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (a, b) = (NodeId::default(), NodeId::from_bytes(&[1; 13]).unwrap());
        let (kept, alone) = (|| true, || false);
        let mut losses = Losses::default();
        assert!(![0, 20].map(|time| losses.add(a, false, kept, at(time)))[1]);
        assert!([30, 50].map(|time| losses.add(b, false, kept, at(time)))[1]);
        assert!(![700, 720].map(|time| losses.add(b, false, kept, at(time)))[1]);
        assert!([730, 750].map(|time| losses.add(b, false, alone, at(time)))[1]);
        assert!([760, 780].map(|time| losses.add(b, true, kept, at(time)))[1]);
    }
}
