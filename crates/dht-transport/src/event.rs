//! Events of a transport for its owner.

use std::sync::Arc;

use dht_core::{Address, NodeId, PublicKey};

use crate::{
    connection::Connection,
    error::{DialError, UpgradeError},
};

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
        /// The connection, with peer, address and identity.
        connection: Arc<Connection>,
        /// Whether it took over from another connection.
        replaced: bool,
    },
    /// A peer is no longer connected.
    Disconnected {
        /// Node id of the peer that disconnected.
        node_id: NodeId,
        /// We closed on purpose; nothing is wrong with the peer.
        minimized: bool,
        /// The peer ended it before it sent anything over it, as when it refuses the identity of this node.
        refused: bool,
    },
    /// The last connection is gone.
    Offline,
    /// A socket connected, but the upgrade failed.
    InboundFailed {
        /// Address of the remote socket.
        address: Address,
        /// Peer, if it was authenticated already.
        public_key: Option<PublicKey>,
        /// Cause of the failure.
        error: UpgradeError,
    },
    /// A listener panicked again and again, and accepts no more. Waits for room as `Connected` does.
    ListenerFailed {
        /// Address that is no longer listened on.
        address: Address,
    },
    /// A dial gave no connection.
    DialFailed {
        /// Peer that was dialled.
        node_id: NodeId,
        /// Cause of the failure.
        error: DialError,
    },
}
