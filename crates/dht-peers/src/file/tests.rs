use std::fs;

use dht_core::{Features, RemotePeer, Severity};

use super::*;
use crate::{
    Direction, NetGroup, PeerFilter, PeerRecord,
    directory::DirectoryLimits,
    test_util::{public_key, record},
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn directory() -> Directory {
    Directory::new(public_key(0).node_id())
}

fn open(home: &Path, directory: &Directory) -> DirectoryFile {
    DirectoryFile::open_blocking(home, directory, NOW).unwrap()
}

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

fn authenticate(directory: &Directory, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let from = NetGroup::V4([1, u8::try_from(seed % 200).unwrap()]);
        directory.authenticated(record(seed, Features::NODE, NOW), from, NOW);
    }
}

fn hear(directory: &Directory, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let record = PeerRecord::new(public_key(seed), Features::NODE, NOW);
        directory.hear(record, &id(1), NOW);
    }
}

/// All peers and bans, as far as they are written.
fn contents(directory: &Directory) -> (Vec<PeerRecord>, Vec<Arc<crate::Ban>>) {
    let peers = directory.list(usize::MAX, &PeerFilter::everybody(NOW));
    let peers = peers.iter().map(|peer| PeerRecord::clone(peer));
    (peers.collect(), directory.banned(NOW))
}

#[test]
fn restart_finds_what_was_known() {
    let home = tempfile::tempdir().unwrap();
    let before = directory();
    let file = open(home.path(), &before);
    authenticate(&before, 1..50);
    hear(&before, 50..90);
    before.ban(
        public_key(3),
        NOW.saturating_add(9),
        Severity::Low,
        "noise",
        NOW,
    );
    before.ban(
        id(400),
        NOW.saturating_add(9),
        Severity::Low,
        "unknown",
        NOW,
    );
    file.save_blocking().unwrap();
    // A peer that was heard of is proven, another is forgotten, a ban is lifted.
    authenticate(&before, 50..51);
    before.remove(&id(51));
    before.mark_failed(
        &id(7),
        &record(7, Features::NODE, NOW).addresses[0].address,
        "refused",
        NOW,
    );
    before.unban(public_key(3));
    before.allow(id(8)).unwrap();
    before.allow(id(401)).unwrap();
    file.save_blocking().unwrap();
    before.disallow(&id(401));
    file.save_blocking().unwrap();
    drop(file);
    let memory = crate::DirectoryMemory::default();
    memory.save(&before);
    let in_memory = directory();
    memory.restore(&in_memory, NOW);
    assert_eq!(contents(&in_memory), contents(&before));

    let after = directory();
    let file = open(home.path(), &after);
    assert_eq!(contents(&after), contents(&before));
    assert_eq!(after.allowed(), [id(8)]);
    assert_eq!(in_memory.allowed(), [id(8)]);
    assert!(after.find(&id(50)).unwrap().is_proven());
    assert!(!after.find(&id(52)).unwrap().is_proven());
    // Nothing to write again.
    let outdated = after.take_outdated();
    assert!(outdated.peers.is_empty() && outdated.bans.is_empty());
    drop(file);
}

/// Law 12: the operator's word is in the settings, which may have changed.
#[test]
fn named_peers_prove_nothing_later() {
    let home = tempfile::tempdir().unwrap();
    let before = directory();
    let file = open(home.path(), &before);
    let address: dht_core::Address = "/ip4/8.8.8.8/tcp/7".parse().unwrap();
    for seed in 1..3 {
        let address = [address.clone()];
        let named = PeerRecord::seed(public_key(seed), Features::NODE, address, NOW);
        before.add_or_update(named, NOW);
    }
    authenticate(&before, 2..3);
    before.ban_listed(public_key(9), NOW);
    file.save_blocking().unwrap();
    drop(file);

    let after = directory();
    let _file = open(home.path(), &after);
    // A message may wait for it.
    let unreached = after.find(&id(1)).unwrap();
    assert!(!unreached.is_proven() && !unreached.is_seed());
    assert!(
        unreached
            .addresses()
            .iter()
            .any(|held| held.address == address)
    );
    let reached = after.find(&id(2)).unwrap();
    assert!(reached.is_proven() && !reached.is_seed());
    assert_eq!(after.banned(NOW), []);
}

#[test]
fn damaged_file_is_put_aside() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(DirectoryFile::NAME), vec![0x5a; 9_000]).unwrap();
    let before = directory();
    let file = open(home.path(), &before);
    assert!(home.path().join("peers.redb.damaged-1").exists());
    assert_eq!(file.damaged_files(), 1);
    authenticate(&before, 1..5);
    file.save_blocking().unwrap();
    drop(file);
    // One page in the middle.
    let path = home.path().join(DirectoryFile::NAME);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes
        .iter_mut()
        .skip(4096)
        .take(middle)
        .for_each(|byte| *byte ^= 0x11);
    fs::write(&path, bytes).unwrap();
    let after = directory();
    let file = open(home.path(), &after);
    assert!(after.is_empty());
    authenticate(&after, 1..9);
    file.save_blocking().unwrap();
    drop(file);
    let last = directory();
    let _file = open(home.path(), &last);
    assert_eq!(last.len(), 8);
}

#[test]
fn file_in_use_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let _running = open(home.path(), &directory());
    assert!(DirectoryFile::open_blocking(home.path(), &directory(), NOW).is_none());
    assert!(!home.path().join("peers.redb.damaged-1").exists());
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let _file = open(home.path(), &directory());
    let mode = fs::metadata(home.path().join(DirectoryFile::NAME))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

/// More changes than ids are kept of: everything is written.
#[test]
fn flood_of_changes_is_written() {
    let home = tempfile::tempdir().unwrap();
    let before = directory();
    let file = open(home.path(), &before);
    authenticate(&before, 1..3);
    file.save_blocking().unwrap();
    for seed in 0..20_000_u32 {
        let [a, b, c, d] = seed.to_be_bytes();
        let stranger = NodeId::from_bytes(&[a, b, c, d, 5, 5, 5, 5, 5, 5, 5, 5, 5]).unwrap();
        before.ban(stranger, NOW.saturating_add(60), Severity::Low, "", NOW);
    }
    assert!(matches!(before.take_outdated().bans, Changed::All));
    before.outdate();
    file.save_blocking().unwrap();
    drop(file);
    let after = directory();
    let _file = open(home.path(), &after);
    assert_eq!(after.len(), 2);
    assert_eq!(after.banned(NOW).len(), before.banned(NOW).len());
}

/// A directory that may hold less keeps the peers seen last, and the file follows.
#[test]
fn smaller_directory_keeps_the_newest() {
    let home = tempfile::tempdir().unwrap();
    let before = directory();
    let file = open(home.path(), &before);
    for seed in 1..200 {
        let at = NOW.saturating_add(seed);
        let source = NetGroup::V4([1, 1]);
        before.authenticated(record(seed, Features::NODE, at), source, at);
    }
    file.save_blocking().unwrap();
    drop(file);
    let limits = DirectoryLimits {
        proven_bytes: 60_000,
        ..DirectoryLimits::default()
    };
    let small = Directory::with_limits(id(0), limits);
    let file = open(home.path(), &small);
    let kept = small.len();
    assert!((1..150).contains(&kept), "{kept}");
    assert!(small.contains(&id(199)) && !small.contains(&id(1)));
    file.save_blocking().unwrap();
    drop(file);
    let again = directory();
    let _file = open(home.path(), &again);
    assert_eq!(again.len(), kept);
}

#[test]
fn anchors_are_known_after_restart() {
    let home = tempfile::tempdir().unwrap();
    let before = directory();
    let file = open(home.path(), &before);
    authenticate(&before, 1..6);
    let connections = before.connections();
    let connect = |seed, direction| {
        let peer = RemotePeer::new(public_key(seed), Features::NODE);
        connections.insert(Arc::new(peer), direction);
    };
    connect(1, Direction::Outbound);
    connect(2, Direction::Inbound);
    before.update_anchors();
    connect(3, Direction::Outbound);
    before.update_anchors();
    assert!(before.is_anchor(&id(1)) && !before.is_anchor(&id(2)));
    // This node is cut off.
    connections.clear();
    before.update_anchors();
    file.save_blocking().unwrap();
    drop(file);

    let after = directory();
    let _file = open(home.path(), &after);
    let anchors = after.anchors(NOW);
    let ids: Vec<_> = anchors.iter().map(|peer| *peer.node_id()).collect();
    assert_eq!(ids, [id(1), id(3)]);
    after.ban(id(1), NOW.saturating_add(60), Severity::Low, "", NOW);
    assert_eq!(after.anchors(NOW).len(), 1);
}
