//! What store-and-forward needs of the node around it.

use bytes::Bytes;
use dht_core::{DedupHash, MessageType, RemotePeer, Severity, UnixSeconds};

/// Takes what store-and-forward sends. Never waits: a message that finds no room is refused.
pub trait Outbox: Send + Sync + 'static {
    /// Sends `part` as part 0 of a message of `message_type`: clear, unsigned, destination unknown, directly to one
    /// peer, which is dialled if it is not connected. `done` learns whether it left for the peer's socket.
    ///
    /// # Errors
    /// [`OutboxFull`]; `done` is dropped.
    fn send(
        &self,
        to: &RemotePeer,
        message_type: MessageType,
        part: Bytes,
        done: Done,
    ) -> Result<(), OutboxFull>;
}

/// Told once whether a message left; dropped if nobody can tell.
pub type Done = Box<dyn FnOnce(bool) + Send>;

/// There is no room for another message, or nobody sends any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another outgoing message")]
pub struct OutboxFull;

/// Puts bans in force. Must not wait.
pub trait BanSink: Send + Sync + 'static {
    /// Bans a peer for what it did.
    fn ban(&self, peer: &RemotePeer, severity: Severity, reason: &'static str);
}

/// The duplicate table of the inbound stack.
pub trait Duplicates: Send + Sync + 'static {
    /// Counts a sighting and answers how many there were, this one included; 0 if it could not be counted.
    fn record(
        &self,
        key: &DedupHash,
        signed: bool,
        expires: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> u32;
}
