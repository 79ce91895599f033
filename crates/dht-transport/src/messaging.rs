//! The messaging protocol `t/msg/0.1`: one-way streams of length-delimited messages.
//! docs/protocol/02-transport-and-connectivity.md sections 6 and 7.

use bytes::Bytes;

pub use codec::{FrameAssembler, FrameTooLong, Step};
pub use delivery::Queued;
pub(crate) use delivery::Reply;
pub(crate) use inbound::{End, InboundSlot, Receiver};
pub(crate) use queue::{Limits, SharedBytes};
pub(crate) use session::{Connect, PeerQueues, PeerSession, Pushed};

mod codec;
mod delivery;
mod inbound;
mod pace;
mod pump;
mod queue;
mod session;

/// The id under which the messaging protocol is negotiated.
pub const MESSAGING_PROTOCOL: Bytes = Bytes::from_static(b"t/msg/0.1");
