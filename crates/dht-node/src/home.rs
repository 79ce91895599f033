//! Where a node keeps what outlives a restart.

use std::path::{Path, PathBuf};

#[cfg(feature = "saf")]
use dht_mailbox::MemoryDisk;
use dht_peers::DirectoryMemory;
#[cfg(feature = "saf")]
use dht_saf::Ledger;
use dht_spool::{Outbox, OutboxConfig};

/// Bytes of messages that a [`MemoryHome`] holds in its inbox at most, and as many in its outbox: 16 MiB, two of the largest
/// messages. The memory of a node (`memory_mib`) does not count them, as they are there while no node is.
const MEMORY_BYTES: u64 = 16 << 20;
/// Messages in each of them.
const MEMORY_ROWS: u64 = 16_384;
/// Messages that have left and are remembered, and those that have ended and can be asked for.
const MEMORY_ENDED_ROWS: usize = 16_384;

/// A folder, or memory that outlives the node.
pub(crate) enum Home {
    Folder(PathBuf),
    Memory(MemoryHome),
}

/// A home in memory: what a node keeps outlives it and ends with the process. For simulations that restart nodes: with it a
/// node uses no thread of its own. For one node at a time; clones share it.
///
/// Beside the memory that the node is given, its inbox and its outbox hold 16,384 messages of together 16 MiB each, and its
/// store what [`saf`](crate::Config::saf) lets it hold on disk.
///
/// Peers, bans and allow list are those of the last half minute in which the node ran, or of its [end](crate::Node::shutdown):
/// [`DirectoryMemory`] takes them as the file of a folder does. The table of messages seen is not kept, as after a crash; what the inbox has or had is recognised all the same.
#[derive(Clone, Debug)]
pub struct MemoryHome {
    pub(crate) outbox: Outbox,
    pub(crate) directory: DirectoryMemory,
    #[cfg(feature = "spool")]
    pub(crate) inbox: dht_spool::Inbox,
    #[cfg(feature = "saf")]
    pub(crate) store: MemoryDisk,
    #[cfg(feature = "saf")]
    pub(crate) ledger: std::sync::Arc<Ledger>,
}

impl Home {
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Memory(_) => None,
        }
    }

    pub(crate) const fn memory(&self) -> Option<&MemoryHome> {
        match self {
            Self::Folder(_) => None,
            Self::Memory(memory) => Some(memory),
        }
    }
}

impl Default for MemoryHome {
    /// An empty home.
    fn default() -> Self {
        Self {
            directory: DirectoryMemory::default(),
            outbox: Outbox::in_memory(OutboxConfig {
                max_rows: MEMORY_ROWS,
                max_bytes: MEMORY_BYTES,
                ended_rows: MEMORY_ENDED_ROWS,
                ..OutboxConfig::default()
            }),
            #[cfg(feature = "spool")]
            inbox: dht_spool::Inbox::in_memory(dht_spool::InboxConfig {
                max_rows: MEMORY_ROWS,
                max_bytes: MEMORY_BYTES,
                remember_rows: MEMORY_ENDED_ROWS,
                ..dht_spool::InboxConfig::default()
            }),
            #[cfg(feature = "saf")]
            store: MemoryDisk::new(),
            #[cfg(feature = "saf")]
            ledger: std::sync::Arc::new(Ledger::in_memory()),
        }
    }
}
