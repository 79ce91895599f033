//! The directory across restarts: in a file of the home, or with a home in memory.

use std::time::Duration;

use dht_core::Clock as _;
use dht_peers::{Directory, DirectoryMemory};
use tokio::time::{MissedTickBehavior, interval};

use crate::{home::Home, shared::Shared, tasks::Tasks};

/// How often a home in memory takes what is known; a node that ends without a shutdown loses what came since.
const INTERVAL: Duration = Duration::from_secs(30);

/// Where the peers that a node knows, its bans and its allow list outlive it.
pub(crate) enum KnownPeers {
    /// Nowhere.
    Forgotten,
    #[cfg(feature = "spool")]
    InFile(dht_peers::DirectoryFile),
    InMemory(DirectoryMemory, Directory),
}

impl KnownPeers {
    /// Enters what an earlier node of the home knew in the directory, and keeps what changes.
    pub(crate) async fn open(home: Option<&Home>, shared: &Shared, tasks: &Tasks) -> Self {
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
                    return Self::Forgotten;
                };
                tasks.spawn("peers file", file.clone().keep());
                Self::InFile(file)
            }
            _ => Self::Forgotten,
        }
    }

    /// Keeps what is known now.
    pub(crate) async fn save(&self) {
        match self {
            Self::Forgotten => {}
            #[cfg(feature = "spool")]
            Self::InFile(file) => file.save().await,
            Self::InMemory(memory, directory) => memory.save(directory),
        }
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
