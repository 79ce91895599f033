//! Events of a message on its way, and the actions that follow.

use std::time::Duration;

use dht_core::{NodeId, UnixSeconds};
use dht_spool::Transition;

/// The time, twice: monotonic since the start of the outbox, and as nodes tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) at: Duration,
    pub(super) unix: UnixSeconds,
}

/// Outcome of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CopyOutcome {
    /// The socket of a live peer took it, which answers when it is asked for a receipt.
    Written,
    /// The socket of a live peer took it that gives no receipts; the id of its connection.
    Unconfirmed(u64),
    /// A socket took it, and the connection has ended since: the peer may have read it.
    Lost,
    /// A queue had no room.
    NoRoom,
    /// The recipient is to be found first.
    Unknown,
    /// The peer could not be reached.
    Failed(String),
}

/// Answer of a peer about the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "saf"), expect(dead_code, reason = "nobody is asked"))]
pub(super) enum Answer {
    /// It is the recipient, and has it.
    Received,
    /// It stores it for the recipient.
    Stored,
    /// It has not got it.
    Neither,
    /// It did not answer.
    Silent,
}

/// Something happened to the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendingEvent {
    /// An attempt begins.
    Start {
        /// Whether the recipient is connected.
        connected: bool,
    },
    /// A copy for this node itself was delivered, or no subscriber takes it now.
    Local(bool),
    /// Outcome of the copy for the recipient.
    Direct(CopyOutcome),
    /// Whether the recipient was found; otherwise why not.
    Found(Result<(), String>),
    /// Nodes that get a copy each; maybe none.
    Chosen(Vec<NodeId>),
    /// Outcome of a holder's copy.
    Holder(NodeId, CopyOutcome),
    /// A peer was asked.
    Receipt(NodeId, Answer),
    /// Whether the connection that carried the copy for the recipient answers a ping.
    Answers(bool),
    /// The recipient's connection ended, and this node did not close it.
    ConnectionEnded,
    /// A peer connected: the recipient or another one.
    Appeared {
        /// Whether it is the recipient.
        recipient: bool,
    },
    /// The deadline is over.
    Tick,
    /// The same, while the copy for the recipient waits in this node's own queue for a peer that bans fast senders.
    Paced,
}

impl SendingEvent {
    /// Whether it concerns the copy for the recipient, of which there is one at a time, in whichever attempt it was sent.
    pub(super) const fn is_of_message(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Direct(_))
    }
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendingAction {
    /// Hand the message to the application of this node.
    DeliverLocally,
    /// Send a copy to the recipient after this time.
    SendDirect(Duration),
    /// Find the recipient.
    Find,
    /// Send copies to the closest nodes, except those that store it already or were tried, at most this many.
    SendToHolders { most: usize, except: Vec<NodeId> },
    /// Search for the recipient, if its known addresses do not answer.
    Search,
    /// Send a holder's copy again after this time.
    SendAgain(NodeId, Duration),
    /// Ask a peer for a receipt after this time.
    Ask(NodeId, Duration),
    /// Ping the recipient over the connection with this id.
    Ping(u64),
    /// Write down what became of it.
    Persist(Transition),
}
