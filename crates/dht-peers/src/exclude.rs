//! Exclusion lists: short ones are scanned, long ones hashed.

use std::collections::HashSet;

use dht_core::NodeId;

/// A list of node ids that is asked for membership.
#[derive(Debug)]
pub(crate) enum Exclude<'a> {
    Few(&'a [NodeId]),
    Many(HashSet<&'a NodeId>),
}

impl<'a> Exclude<'a> {
    pub(crate) fn new(ids: &'a [NodeId]) -> Self {
        if ids.len() <= FEW {
            Self::Few(ids)
        } else {
            Self::Many(ids.iter().collect())
        }
    }

    pub(crate) fn contains(&self, id: &NodeId) -> bool {
        match self {
            Self::Few(ids) => ids.contains(id),
            Self::Many(ids) => ids.contains(id),
        }
    }
}

/// Up to this many ids a scan is faster than a hash.
const FEW: usize = 16;
