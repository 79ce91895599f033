//! Parts that the scenarios on finding each other share: a network that grows from one seed, and whether it is whole.

use std::time::Duration;

use dht_core::NodeId;
use tokio::time::sleep;

use super::Run;
use crate::world::World;

/// Neighbours and random peers that a node wants to be connected to.
pub(super) const NEIGHBOURS: usize = 8;
const WANTED: usize = NEIGHBOURS + 4;
/// Time between the starts of two nodes.
const STAGGER: Duration = Duration::from_millis(50);
/// Bytes of a message.
const BYTES: usize = 400;

impl Run {
    /// Adds `nodes` nodes and starts them one after the other; each knows the first one.
    pub(super) async fn grow(&mut self, nodes: usize) -> anyhow::Result<()> {
        for _ in 0..nodes {
            let node = self.world.add();
            self.join(node).await?;
            sleep(STAGGER).await;
        }
        Ok(())
    }

    /// Starts a node that knows the first one.
    pub(super) async fn join(&mut self, node: usize) -> anyhow::Result<()> {
        let seed = self.world.peer(0)?;
        let set = |builder: dht_node::Builder| match node {
            0 => builder,
            _ => builder.peer(seed),
        };
        self.world.start(node, set).await
    }

    /// Waits until the pools of every node are full, and checks that this takes `limit` at most.
    pub(super) async fn check_whole(
        &mut self,
        limit: Duration,
        name: &'static str,
        since: &str,
    ) -> Option<Duration> {
        let took = self.until(limit, |world| world.starved().is_empty()).await;
        let starved = self.world.starved().len();
        let limit = limit.as_secs();
        let what = format!("pools full within {limit} s {since}");
        let what = if starved > 0 {
            format!("{what}: {starved} are not")
        } else {
            what
        };
        self.tell(&what);
        self.check(took.is_some(), what);
        self.number(name, took.map_or(f64::NAN, |took| took.as_secs_f64()));
        self.number("neighbours_percent", self.world.neighbours_percent());
        took
    }

    /// Sends `count` messages between random nodes that run, one each `pace`. No node is told where another one is.
    pub(super) async fn chatter(&mut self, count: usize, pace: Duration) -> anyhow::Result<()> {
        for _ in 0..count {
            if let Some((from, to)) = self.world.pair() {
                self.world.send(from, to, BYTES, false)?;
            }
            sleep(pace).await;
        }
        Ok(())
    }

    /// Waits until every message has arrived, at most for `limit`, and checks that.
    pub(super) async fn check_arrived(&mut self, limit: Duration) {
        let arrived = self.until(limit, |world| world.missing().is_empty()).await;
        self.number(
            "last_arrival_s",
            arrived.map_or(f64::NAN, |took| took.as_secs_f64()),
        );
        self.check_mail();
    }
}

impl World {
    /// The nodes that are connected to fewer nodes that run than they want.
    pub(super) fn starved(&self) -> Vec<usize> {
        let running = self.nodes().count();
        let wanted = WANTED.min(running.saturating_sub(1));
        let starved = self.nodes().filter(|(_, node)| {
            let peers = node.peers();
            let alive = peers.iter().filter(|peer| self.runs(&peer.node_id));
            alive.count() < wanted
        });
        starved.map(|(number, _)| number).collect()
    }

    /// Share of the nearest nodes to each node that it is connected to, in percent.
    fn neighbours_percent(&self) -> f64 {
        let ids: Vec<_> = self
            .nodes()
            .map(|(_, node)| node.public_key().node_id())
            .collect();
        let (mut wanted, mut connected) = (0, 0);
        for (_, node) in self.nodes() {
            let me = node.public_key().node_id();
            let mut near: Vec<_> = ids.iter().filter(|id| **id != me).collect();
            near.sort_by_key(|id| me.distance(id));
            let peers = node.peers();
            for id in near.into_iter().take(NEIGHBOURS) {
                wanted += 1;
                connected += u32::from(peers.iter().any(|peer| peer.node_id == *id));
            }
        }
        100.0 * f64::from(connected) / f64::from(wanted.max(1))
    }

    fn runs(&self, id: &NodeId) -> bool {
        self.nodes()
            .any(|(_, node)| node.public_key().node_id() == *id)
    }
}
