//! What layers of one crate need of a message that another crate's stack carries.

use std::sync::Arc;

use crate::{DedupHash, Opened, RemotePeer};

/// An opened message on its way through the inbound stack, whoever defines its type.
///
/// The seam between the inbound stack and store-and-forward, which do not know each other: the stack implements it
/// for its message, store-and-forward's layers ask for nothing else.
pub trait InTransit: Sized + Send + 'static {
    /// The neighbour it came from.
    fn source(&self) -> &Arc<RemotePeer>;

    /// Header, content, and the bytes as received.
    fn opened(&self) -> &Opened;

    /// Names the message.
    fn hash(&self) -> DedupHash;

    /// Sightings, this one included; 0 and 1 are new.
    fn hits(&self) -> u32;

    /// Notes what the store has done about it.
    fn set_kept(&mut self, kept: Kept);

    /// A message that was inside this one, from the same neighbour and new to this node. It takes over up to `bytes`
    /// of the memory this one accounts for.
    fn unpack(&mut self, opened: Opened, hash: DedupHash, bytes: usize) -> Self;
}

/// Whether a message was kept for its recipient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kept {
    /// Considered, and not kept.
    No,
    /// Kept now.
    Fresh,
    /// Kept before, and hence forwarded before.
    Known,
}
