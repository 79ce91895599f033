use std::collections::BTreeSet;

use dht_core::Features;
use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::*;
use crate::test_util::peer_at;

const FEATURES: [Features; 3] = [
    Features::NODE,
    Features::CLIENT,
    Features::MESSAGE_PROPAGATION,
];

fn table(entries: &[([u8; 13], usize)]) -> Arc<ConnectedPeers> {
    let connections = Connections::new();
    for (bytes, role) in entries {
        let id = NodeId::from_bytes(bytes).unwrap();
        connections.insert(
            Arc::new(peer_at(id, FEATURES[role % 3])),
            Direction::Inbound,
        );
    }
    connections.snapshot()
}

fn entries() -> impl Strategy<Value = Vec<([u8; 13], usize)>> {
    proptest::collection::vec((any::<[u8; 13]>(), 0_usize..3), 0..40)
}

proptest! {
    #[test]
    fn closest_equals_naive_sort_of_nodes(
        entries in entries(), target: [u8; 13], n in 0_usize..12, skip in 0_usize..20,
    ) {
        let table = table(&entries);
        let target = NodeId::from_bytes(&target).unwrap();
        let exclude: Vec<_> = table.iter().map(|entry| entry.peer.node_id).step_by(2).take(skip).collect();
        let mut naive: Vec<_> = table
            .iter()
            .filter(|entry| entry.peer.features.is_node() && !exclude.contains(&entry.peer.node_id))
            .map(|entry| Arc::clone(&entry.peer))
            .collect();
        naive.sort_by_key(|peer| peer.node_id.distance(&target));
        naive.truncate(n);
        prop_assert_eq!(table.closest(&target, n, &exclude), naive);
    }

    #[test]
    fn random_nodes_are_distinct_and_allowed(entries in entries(), n in 0_usize..50, seed: u64) {
        let table = table(&entries);
        let exclude: Vec<_> = table.nodes().iter().map(|node| node.node_id).step_by(3).collect();
        let chosen = table.random(n, &exclude, &mut ChaCha12Rng::seed_from_u64(seed));
        let ids: BTreeSet<_> = chosen.iter().map(|node| node.node_id).collect();
        prop_assert_eq!(ids.len(), chosen.len());
        prop_assert_eq!(chosen.len(), n.min(table.nodes().len() - exclude.len()));
        prop_assert!(chosen.iter().all(|node| node.features.is_node()));
        prop_assert!(ids.iter().all(|id| !exclude.contains(id)));
    }

    #[test]
    fn table_behaves_like_a_map(steps in proptest::collection::vec((0_u8..12, 0_usize..3, any::<bool>()), 0..60)) {
        let connections = Connections::new();
        let mut model = std::collections::BTreeMap::new();
        for (name, role, add) in steps {
            let id = NodeId::from_bytes(&[name; 13]).unwrap();
            if add {
                let fresh = connections.insert(Arc::new(peer_at(id, FEATURES[role])), Direction::Outbound);
                prop_assert_eq!(fresh, model.insert(id, FEATURES[role]).is_none());
            } else {
                prop_assert_eq!(connections.remove(&id), model.remove(&id).is_some());
            }
            let now = connections.snapshot();
            let held: Vec<_> = now.iter().map(|entry| (entry.peer.node_id, entry.peer.features)).collect();
            prop_assert_eq!(held, model.iter().map(|(id, features)| (*id, *features)).collect::<Vec<_>>());
            let nodes = model.values().filter(|features| features.is_node()).count();
            prop_assert_eq!(now.nodes().len(), nodes);
            prop_assert_eq!(now.contains(&id), model.contains_key(&id));
        }
    }
}

#[test]
fn a_snapshot_does_not_change_afterwards() {
    let connections = Connections::new();
    let id = NodeId::from_bytes(&[1; 13]).unwrap();
    let before = connections.snapshot();
    connections.insert(Arc::new(peer_at(id, Features::NODE)), Direction::Inbound);
    assert!(before.is_empty());
    assert!(connections.contains(&id));
    assert_eq!(
        connections.snapshot().find(&id).unwrap().direction,
        Direction::Inbound
    );
    connections.clear();
    assert!(!connections.contains(&id));
}
