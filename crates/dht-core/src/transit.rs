//! The interface between the inbound stack and store-and-forward, which do not depend on each other.

use std::sync::Arc;

use crate::{
    envelope::{DedupHash, Opened},
    remote_peer::RemotePeer,
};

/// An opened message inside the inbound stack.
///
/// The inbound stack implements it for its own message type; the layers of store-and-forward are generic over it.
pub trait InTransit: Sized + Send + 'static {
    /// Deliverer: the connected peer that handed the message to this node.
    fn source(&self) -> &Arc<RemotePeer>;

    /// Header, content and the received bytes.
    fn opened(&self) -> &Opened;

    /// Key of the message in the dedup table.
    fn hash(&self) -> DedupHash;

    /// How often the message has been received, this time included; 0 and 1 mean that it is new.
    fn occurrences(&self) -> u32;

    /// Records what the store decided.
    fn set_store_outcome(&mut self, outcome: StoreOutcome);

    /// Makes a message that was inside this one, came from the same deliverer and is new to this node. It takes over
    /// up to `bytes` of the memory that this message accounts for.
    fn unpack(&mut self, opened: Opened, hash: DedupHash, bytes: usize) -> Self;
}

/// Whether the store holds a message for its recipient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoreOutcome {
    /// The store considered the message and does not hold it.
    NotStored,
    /// The store holds the message now.
    Stored,
    /// The store held the message before, so it was forwarded before.
    AlreadyStored,
}
