//! Asks peers for peers once they are connected: specification 06 section 7.3.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dht_core::NodeId;
use tokio::time::Instant;

use crate::{config::Config, network_discovery::PeersAdded, sync::SyncReport, view::View};

/// Least time between two requests; it doubles with each request that brings no new peer.
const FIRST_GAP: Duration = Duration::from_millis(500);
/// Longest time between two requests.
const LONGEST_GAP: Duration = Duration::from_secs(5 * 60);

/// Decides whom to ask of those that are connected, the present ones included (defect N12): one at a time, each once for a
/// connection, and less often as long as nobody says anything new.
#[derive(Debug)]
pub struct SyncOnConnect {
    again: Duration,
    /// Connected nodes; true for those that are to be asked.
    connected: BTreeMap<NodeId, bool>,
    /// When peers were asked last, as far as that matters.
    asked: BTreeMap<NodeId, Instant>,
    /// Peers that are not asked any more, because a request failed.
    skipped: BTreeSet<NodeId>,
    under_way: Option<NodeId>,
    gap: Duration,
    next: Option<Instant>,
}

impl SyncOnConnect {
    /// Nobody was asked yet.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            again: Duration::from_secs(config.sync_again_seconds),
            connected: BTreeMap::new(),
            asked: BTreeMap::new(),
            skipped: BTreeSet::new(),
            under_way: None,
            gap: FIRST_GAP,
            next: None,
        }
    }

    /// The peer to ask now. A [report](Self::on_synced) follows.
    pub fn ask(&mut self, view: &View<'_>) -> Option<NodeId> {
        self.note_connected(view);
        if self.under_way.is_some() || self.next.is_some_and(|next| view.at < next) {
            return None;
        }
        let waiting = self.connected.iter().filter(|(_, waits)| **waits);
        let mut due = waiting.filter(|(id, _)| self.may_ask(id, view.at));
        let peer = *due.next()?.0;
        self.connected.insert(peer, false);
        self.asked.insert(peer, view.at);
        self.under_way = Some(peer);
        Some(peer)
    }

    /// A peer was asked, or could not be. If it told of new peers, how many.
    pub fn on_synced(&mut self, report: &SyncReport, at: Instant) -> Option<PeersAdded> {
        self.under_way.take_if(|peer| *peer == report.peer)?;
        if !report.is_success() {
            self.skipped.insert(report.peer);
        }
        self.gap = if report.new > 0 {
            FIRST_GAP
        } else {
            (self.gap * 2).min(LONGEST_GAP)
        };
        self.next = Some(at + self.gap);
        (report.new > 0).then(|| PeersAdded {
            new: report.new,
            duplicates: 0,
            succeeded: report.new,
            sync_peers: vec![report.peer],
        })
    }

    /// When [`ask`](Self::ask) may have something to say even if nothing changed.
    #[must_use]
    pub fn next_timeout(&self, at: Instant) -> Option<Instant> {
        if self.under_way.is_some() {
            return None;
        }
        let waiting = self.connected.iter().filter(|(_, waits)| **waits);
        let due = waiting.map(|(id, _)| self.asked.get(id).map_or(at, |asked| *asked + self.again));
        Some(due.min()?.max(self.next.unwrap_or(at)))
    }

    fn note_connected(&mut self, view: &View<'_>) {
        self.connected.retain(|id, _| view.connected.contains(id));
        for node in view.connected.nodes() {
            let is_wanted = !self.skipped.contains(&node.node_id);
            self.connected.entry(node.node_id).or_insert(is_wanted);
        }
        let again = self.again;
        self.asked
            .retain(|id, asked| self.connected.contains_key(id) || *asked + again > view.at);
        while self.skipped.len() > MAX_SKIPPED {
            self.skipped.pop_first();
        }
    }

    fn may_ask(&self, peer: &NodeId, at: Instant) -> bool {
        let asked = self.asked.get(peer);
        asked.is_none_or(|asked| *asked + self.again <= at)
    }
}

/// Peers that are remembered as skipped.
const MAX_SKIPPED: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sync::SyncFailure, test_util::Net};

    fn report(peer: NodeId, new: usize) -> SyncReport {
        SyncReport {
            new,
            was_connected: true,
            ..SyncReport::of(peer)
        }
    }

    #[test]
    fn dp37_good_node_is_synced_twice() {
        let mut net = Net::new();
        let mut machine = SyncOnConnect::new(&Config::default());
        // Connected before the machine was.
        let peer = net.connect_node(1);
        for _ in 0..2 {
            assert_eq!(machine.ask(&net.view()), Some(peer));
            machine.on_synced(&report(peer, 1), net.at());
            net.pass(Duration::from_secs(120));
            assert_eq!(machine.ask(&net.view()), None, "once for a connection");
            net.disconnect(1);
            assert_eq!(machine.ask(&net.view()), None);
            net.connect_node(1);
        }
    }

    #[test]
    fn dp38_new_peers_are_counted() {
        let mut net = Net::new();
        let mut machine = SyncOnConnect::new(&Config::default());
        let peer = net.connect_node(1);
        assert_eq!(machine.ask(&net.view()), Some(peer));
        let told = SyncReport {
            duplicates: 1,
            ..report(peer, 3)
        };
        let expected = PeersAdded {
            new: 3,
            duplicates: 0,
            succeeded: 3,
            sync_peers: vec![peer],
        };
        assert_eq!(machine.on_synced(&told, net.at()), Some(expected));
    }

    #[test]
    fn failed_peers_are_skipped() {
        let mut net = Net::new();
        let mut machine = SyncOnConnect::new(&Config::default());
        let peer = net.connect_node(1);
        assert_eq!(machine.ask(&net.view()), Some(peer));
        let mut failed = report(peer, 0);
        failed.failure = Some(SyncFailure::Session);
        assert_eq!(machine.on_synced(&failed, net.at()), None);
        net.disconnect(1);
        net.pass(Duration::from_secs(3_600));
        machine.ask(&net.view());
        net.connect_node(1);
        assert_eq!(machine.ask(&net.view()), None);
    }

    /// A hundred peers connect and nobody tells anything new.
    #[test]
    fn requests_without_news_get_rare() {
        let mut net = Net::new();
        let mut machine = SyncOnConnect::new(&Config::default());
        for seed in 1..=100 {
            net.connect_node(seed);
        }
        let mut asked = 0;
        for _ in 0..3_600 {
            if let Some(peer) = machine.ask(&net.view()) {
                asked += 1;
                machine.on_synced(&report(peer, 0), net.at());
                assert!(machine.next_timeout(net.at()).unwrap() > net.at());
            }
            net.pass(Duration::from_secs(1));
        }
        assert!((15..=25).contains(&asked), "{asked}");
    }
}
