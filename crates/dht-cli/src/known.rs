//! The peers that a home knows, for a command that starts from them.

use std::{fs, path::Path};

use dht_api::{Client, types::PeerEntry};
use dht_core::{Clock as _, Features, Network, NodeId, PeerAddress};
use dht_node::SystemClock;
use dht_peers::{Directory, DirectoryFile, FeatureRule, PeerFilter, PeerRecord};
use tokio::task::spawn_blocking;

use crate::{
    exit::Failure,
    home::Home,
    session::{refused, running_or_lock},
};

/// Most peers that are taken.
const MOST: usize = 1000;

/// Nodes of `network` that the node of this home authenticated or was told by its operator, those first that are connected or
/// tried first after a restart. The running node says which; without one, the file of the home does. Nothing in the home changes.
pub(crate) async fn nodes(home: &Home, network: Network) -> Result<Vec<PeerAddress>, Failure> {
    // Flags of the command need not be those of the running node.
    let home = home.without_flags();
    if !home.exists() {
        return Ok(Vec::new());
    }
    match running_or_lock(&home, "probe").await? {
        Ok(client) => of_running(&client, network).await,
        Err(_lock) if home.config()?.network != network => Ok(Vec::new()),
        Err(lock) => {
            let path = home.path().to_owned();
            let read = spawn_blocking(move || {
                let _lock = lock;
                of_file(&path)
            });
            // It fails only if the runtime shuts down.
            read.await.unwrap_or_else(|_| Ok(Vec::new()))
        }
    }
}

async fn of_running(client: &Client, network: Network) -> Result<Vec<PeerAddress>, Failure> {
    let status = client.status().await.map_err(|error| refused(&error))?;
    if status.network != network.to_string() {
        return Ok(Vec::new());
    }
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let page = client.peers(true, after, Some(MOST)).await;
        let page = page.map_err(|error| refused(&error))?.peers;
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.node_id);
        let useful = |peer: &PeerEntry| peer.is_proven && !peer.is_banned && is_node(peer);
        entries.extend(page.into_iter().filter(useful));
    }
    entries.sort_by_key(|peer| (!peer.is_connected, !peer.is_anchor));
    entries.truncate(MOST);
    Ok(entries.iter().filter_map(address).collect())
}

fn is_node(peer: &PeerEntry) -> bool {
    let names = Features::NODE.iter_names();
    names
        .map(|(name, _)| name.to_ascii_lowercase())
        .all(|name| peer.features.contains(&name))
}

/// `None` for a key or address that this version cannot read.
fn address(peer: &PeerEntry) -> Option<PeerAddress> {
    let (key, addresses) = (peer.public_key, peer.addresses.join("::"));
    format!("{key}::{addresses}").parse().ok()
}

/// Reads a copy of the file, since opening one may repair it or put it aside.
fn of_file(home: &Path) -> Result<Vec<PeerAddress>, Failure> {
    let original = home.join(DirectoryFile::NAME);
    if !original.exists() {
        return Ok(Vec::new());
    }
    let failed = |error| Failure::other(format!("cannot copy {}: {error}", original.display()));
    let folder = tempfile::tempdir().map_err(failed)?;
    fs::copy(&original, folder.path().join(DirectoryFile::NAME)).map_err(failed)?;
    let (directory, now) = (Directory::new(NodeId::default()), SystemClock.now());
    let _file = DirectoryFile::open_blocking(folder.path(), &directory, now);
    let nodes = PeerFilter::allowed(now).features(FeatureRule::Exactly(Features::NODE));
    let mut peers = directory.anchors(now);
    peers.extend(directory.list(MOST, &nodes));
    let address = |peer: &PeerRecord| {
        let order = peer.dial_order(now).into_iter();
        Some(PeerAddress {
            public_key: peer.public_key().to_string().parse().ok()?,
            addresses: order.map(|address| address.address.clone()).collect(),
        })
    };
    Ok(peers.iter().filter_map(|peer| address(peer)).collect())
}
