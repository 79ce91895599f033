//! Which rows of the file differ from the directory.
#![cfg_attr(
    not(feature = "redb"),
    expect(dead_code, reason = "only a file is written from it")
)]

use std::{collections::BTreeSet, mem};

use dht_core::NodeId;

/// Ids that are kept apart. Beyond it, the next write is of everything: a flood of peers takes no more memory than this.
const MAX_IDS: usize = 16_384;

/// Ids of the peers, or bans, that changed since the file was written.
#[derive(Debug, Default)]
pub(crate) enum Changed {
    /// No file is written.
    #[default]
    Untracked,
    /// The rows of these ids.
    Ids(BTreeSet<NodeId>),
    /// Any row.
    All,
}

impl Changed {
    pub(crate) fn note(&mut self, id: &NodeId) {
        if let Self::Ids(ids) = self {
            ids.insert(*id);
            if ids.len() > MAX_IDS {
                *self = Self::All;
            }
        }
    }

    /// Changes so far; from now on there are none.
    pub(crate) fn take(&mut self) -> Self {
        mem::replace(self, Self::Ids(BTreeSet::new()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Untracked | Self::All => false,
            Self::Ids(ids) => ids.is_empty(),
        }
    }
}
