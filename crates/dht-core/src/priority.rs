//! The order in which messages are shed.

/// Importance of a message: queues shed [`Gossip`](Self::Gossip) first and [`Control`](Self::Control) last (law 3).
///
/// The order of the variants is the order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// Requests and answers of the protocol.
    Control,
    /// Messages to one named peer.
    Direct,
    /// Stored messages, handed to the peer that asked for them.
    Stored,
    /// Messages that this node forwards for others.
    Gossip,
}

impl Priority {
    /// Every priority, most important first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Direct, Self::Stored, Self::Gossip];

    /// Short name for logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Direct => "direct",
            Self::Stored => "stored",
            Self::Gossip => "gossip",
        }
    }
}
