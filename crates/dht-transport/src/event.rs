//! What a transport tells its owner.

use std::sync::Arc;

use dht_core::{Address, NodeId, PublicKey};

use crate::{Connection, DialError, UpgradeError};

/// Something happened to a connection.
///
/// [`Connected`](Self::Connected) and [`Disconnected`](Self::Disconnected) are never lost: a connection waits
/// with them until the owner takes them. The others are dropped, and counted, while the channel is full.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a failed handshake is as rare as a connection"
)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// A peer is connected. If it was connected before, and nothing was told of the end of that, this
    /// connection `replaced` the other, and nothing will be told of its end.
    Connected {
        /// Who, from where, and what it told about itself.
        connection: Arc<Connection>,
        /// Whether it took over from another connection.
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
}
