//! The files of store-and-forward in a node's home.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use dht_mailbox::{MemoryDisk, Store, StoreConfig, StoreError};
use dht_saf::Ledger;

use crate::home::MemoryHome;

/// Folder of the store within a home.
const FOLDER: &str = "saf";
/// File of the ledger within that folder.
const LEDGER: &str = "ledger.redb";

/// The folder in which a node with this home stores messages for offline peers.
#[must_use]
pub fn saf_folder(home: &Path) -> PathBuf {
    home.join(FOLDER)
}

/// The file in which a node with this home records the messages that it received (feature `spool`).
#[must_use]
pub fn ledger_file(home: &Path) -> PathBuf {
    saf_folder(home).join(LEDGER)
}

/// Opens the store, if this node has one, and the ledger in memory.
pub(super) fn open_in_memory(
    home: Option<&MemoryHome>,
    config: Option<StoreConfig>,
) -> Result<(Option<Store>, Arc<Ledger>), StoreError> {
    let (disk, ledger) = match home {
        Some(home) => (home.store.clone(), Arc::clone(&home.ledger)),
        None => (MemoryDisk::new(), Arc::new(Ledger::in_memory())),
    };
    let store = config.map(|config| Store::open_on(disk, config));
    Ok((store.transpose()?, ledger))
}

/// Opens the store, if this node has one, and the ledger in `folder`. Blocks.
pub(super) fn open(
    folder: &Path,
    config: Option<StoreConfig>,
) -> Result<(Option<Store>, Arc<Ledger>), StoreError> {
    // The store first: it creates the folder, and its lock also guards the ledger.
    let store = match config {
        Some(config) => Some(Store::open(folder, config)?),
        None => {
            std::fs::create_dir_all(folder)?;
            None
        }
    };
    #[cfg(feature = "spool")]
    let ledger = Ledger::open(folder.join(LEDGER))?;
    #[cfg(not(feature = "spool"))]
    let ledger = Ledger::in_memory();
    Ok((store, Arc::new(ledger)))
}

/// Advice on an error of the store.
pub(crate) const fn hint(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::Locked => "stop the node that runs with this home, or use another --home",
        StoreError::NewerFormat { .. } => "use the newer version, or another --home",
        StoreError::DiskFull => "make room on the disk, and start the node again",
        StoreError::Io(io::ErrorKind::InvalidData) => {
            "if it stays so, move ledger.redb away, without which a message may be delivered twice"
        }
        StoreError::Io(
            io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory,
        ) => "something else lies there: move it away",
        StoreError::Io(io::ErrorKind::PermissionDenied) => "run as the owner of the home",
        StoreError::Io(io::ErrorKind::ReadOnlyFilesystem) => {
            "make the disk writable, or use another --home"
        }
        _ => return None,
    })
}
