//! Whether a node is online: specification 02 section 10.

use std::fmt;

use crate::view::View;

/// Whether a node is in the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// No peer was connected yet.
    #[default]
    Initializing,
    /// Enough nodes are connected.
    Online {
        /// Number of connected nodes.
        nodes: usize,
    },
    /// Fewer nodes are connected than are wanted, or clients only.
    Degraded {
        /// Number of connected nodes.
        nodes: usize,
    },
    /// Nobody is connected any more.
    Offline,
}

impl Status {
    /// Whether enough nodes are connected.
    #[must_use]
    pub const fn is_online(self) -> bool {
        matches!(self, Self::Online { .. })
    }

    /// Takes in who is connected; the status if that is worth an event: it is another one, or a degraded node has another
    /// number of nodes.
    pub(crate) fn update(&mut self, view: &View<'_>, min_connected: usize) -> Option<Self> {
        let nodes = view.connected.nodes().len();
        let next = if nodes >= min_connected {
            Self::Online { nodes }
        } else if view.connected.is_empty() {
            match self {
                Self::Initializing => Self::Initializing,
                _ => Self::Offline,
            }
        } else {
            Self::Degraded { nodes }
        };
        let before = std::mem::replace(self, next);
        let is_same = match (before, next) {
            (Self::Online { .. }, Self::Online { .. }) => true,
            (before, next) => before == next,
        };
        (!is_same).then_some(next)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initializing => f.write_str("initializing"),
            Self::Online { nodes } => write!(f, "online, {nodes} nodes"),
            Self::Degraded { nodes } => write!(f, "degraded, {nodes} nodes"),
            Self::Offline => f.write_str("offline"),
        }
    }
}

/// Share in percent of the connected nodes that have an IPv4 address with a TCP port, if it is below `min_percent` and there
/// is more than one: specification 06 section 8.5. The port is the second part of the address (defect N4).
pub(crate) fn low_ipv4_share(view: &View<'_>, min_percent: u64) -> Option<u64> {
    let nodes = view.connected.nodes();
    let has_ipv4 = |id| {
        view.directory.find(id).is_some_and(|record| {
            let mut hosts = record.addresses().iter().map(|known| known.address.host());
            hosts.any(|host| matches!(host, Some(dht_core::Host::Ip(ip, _)) if ip.is_ipv4()))
        })
    };
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let found = nodes.iter().filter(|node| has_ipv4(&node.node_id)).count();
    let percent = count(found)
        .saturating_mul(100)
        .checked_div(count(nodes.len()))?;
    (nodes.len() > 1 && percent < min_percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use dht_core::{Features, RemotePeer};

    use super::*;
    use crate::test_util::Net;

    #[test]
    fn status_follows_connections() {
        let mut net = Net::new();
        let mut status = Status::default();
        assert_eq!(status.update(&net.view(), 2), None);
        let steps: [(u64, Features, Option<Status>); 3] = [
            (1, Features::CLIENT, Some(Status::Degraded { nodes: 0 })),
            (2, Features::NODE, Some(Status::Degraded { nodes: 1 })),
            (3, Features::NODE, Some(Status::Online { nodes: 2 })),
        ];
        for (seed, features, expected) in steps {
            net.connect(RemotePeer::new(
                dht_peers::test_util::public_key(seed),
                features,
            ));
            assert_eq!(status.update(&net.view(), 2), expected);
        }
        net.connect_node(4);
        assert_eq!(status.update(&net.view(), 2), None, "online before");
        assert_eq!(status, Status::Online { nodes: 3 });
        net.disconnect_all();
        assert_eq!(status.update(&net.view(), 2), Some(Status::Offline));
        assert_eq!(status.update(&net.view(), 2), None);
    }

    #[test]
    fn dp46_lone_connection_warns_nobody() {
        let mut net = Net::new();
        net.connect_node(1);
        assert_eq!(low_ipv4_share(&net.view(), 10), None);
        // Nodes with memory addresses only.
        net.connect_node(2);
        assert_eq!(low_ipv4_share(&net.view(), 10), Some(0));
        net.know_at(3, "/ip4/203.0.113.1/tcp/5");
        net.connect_node(3);
        assert_eq!(low_ipv4_share(&net.view(), 10), None);
        assert_eq!(low_ipv4_share(&net.view(), 50), Some(33));
    }
}
