//! The directory across restarts: in a file of the home, or with a home in memory.

use std::{io, time::Duration};

use dht_core::Clock as _;
use dht_peers::{Directory, DirectoryMemory};
use tokio::time::{MissedTickBehavior, interval};

use crate::{context::NodeContext, home::Home, tasks::Tasks};

/// How often a home in memory takes what is known; a node that ends without a shutdown loses what came since.
const INTERVAL: Duration = Duration::from_secs(30);

/// Keeps the known peers, bans and allow list across restarts.
pub(crate) enum KnownPeers {
    /// Nowhere: the node has no home.
    Forgotten,
    /// Nowhere: the file of the home could not be opened, of which the log tells.
    #[cfg(feature = "spool")]
    Unopened,
    #[cfg(feature = "spool")]
    InFile(dht_peers::DirectoryFile),
    InMemory(DirectoryMemory, Directory),
}

impl KnownPeers {
    /// Enters what an earlier node of the home knew in the directory, and keeps what changes.
    pub(crate) async fn open(home: Option<&Home>, shared: &NodeContext, tasks: &Tasks) -> Self {
        let (directory, now) = (&shared.directory, shared.clock.now());
        match home {
            Some(Home::Memory(home)) => {
                home.directory.restore(directory, now);
                let kept = (home.directory.clone(), directory.clone());
                tasks.spawn("peers in memory", keep(kept.0.clone(), kept.1.clone()));
                Self::InMemory(kept.0, kept.1)
            }
            #[cfg(feature = "spool")]
            Some(Home::Folder(folder)) => {
                let Some(file) = dht_peers::DirectoryFile::open(folder, directory, now).await
                else {
                    return Self::Unopened;
                };
                tasks.spawn("peers file", file.clone().keep());
                Self::InFile(file)
            }
            _ => Self::Forgotten,
        }
    }

    /// Damaged files beside the one in use.
    #[cfg(feature = "spool")]
    pub(crate) fn damaged_files(&self) -> u64 {
        match self {
            Self::InFile(file) => file.damaged_files(),
            _ => 0,
        }
    }

    /// Keeps what is known now. Fails, with an entry in the log, if the file is not written.
    pub(crate) async fn save(&self) -> io::Result<()> {
        match self {
            Self::Forgotten => {}
            #[cfg(feature = "spool")]
            Self::Unopened => return Err(io::Error::other("the file of known peers is not open")),
            #[cfg(feature = "spool")]
            Self::InFile(file) => file.save().await?,
            Self::InMemory(memory, directory) => memory.save(directory),
        }
        Ok(())
    }
}

async fn keep(memory: DirectoryMemory, directory: Directory) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, when there is nothing new.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        directory.update_anchors();
        memory.save(&directory);
    }
}

#[cfg(all(test, feature = "spool"))]
mod tests {
    use dht_core::{Entropy as _, SecretKey, SeededEntropy};

    use crate::{AllowError, Node};

    #[tokio::test]
    async fn unwritten_allow_list_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("peers.redb")).unwrap();
        let secret = SecretKey::random(&mut SeededEntropy::new(1).rng());
        let peer = SecretKey::random(&mut SeededEntropy::new(2).rng());
        let node = Node::builder(secret).home(home.path());
        let node = node.start().await.unwrap();
        let error = node.allow(peer.public_key().node_id()).await.unwrap_err();
        assert!(matches!(error, AllowError::NotSaved(_)), "{error}");
        node.shutdown().await;
    }
}
