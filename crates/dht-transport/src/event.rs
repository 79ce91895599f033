//! What a transport tells its owner.

use std::{sync::Arc, time::Duration};

use dht_core::{Address, NodeId, PublicKey};

use crate::{Connection, DialError, Offence, UpgradeError};

/// Something happened to a connection.
///
/// [`Connected`](Self::Connected) and [`Disconnected`](Self::Disconnected) are never lost: a connection waits
/// with them until the owner takes them. The others are dropped, and counted, while the channel is full.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected. If it was connected already this connection `replaced` the one before, and no
    /// disconnect was or will be told of that one.
    Connected {
        /// Who, from where, and what it told about itself.
        connection: Arc<Connection>,
        /// Whether it took over from a live connection.
        replaced: bool,
    },
    /// A peer is no longer connected.
    Disconnected {
        /// Who.
        node_id: NodeId,
        /// We closed on purpose; nothing is wrong with the peer.
        minimized: bool,
    },
    /// The last connection is gone.
    Offline,
    /// Somebody connected, but it came to nothing.
    InboundFailed {
        /// From where.
        address: Address,
        /// Who, if that was clear already.
        public_key: Option<PublicKey>,
        /// Why.
        error: UpgradeError,
    },
    /// A dial gave no connection.
    DialFailed {
        /// To whom.
        node_id: NodeId,
        /// Why.
        error: DialError,
    },
    /// A peer did what earns a ban.
    Offence {
        /// Whose key.
        public_key: PublicKey,
        /// What.
        offence: Offence,
        /// For how long.
        ban: Duration,
    },
}
