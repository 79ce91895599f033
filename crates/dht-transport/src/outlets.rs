//! Receiving ends that a transport hands its owner besides the handle.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::RemotePeer;
use dht_peers::InboundFrame;
use tokio::sync::mpsc;

use crate::{event::ConnectionEvent, mux::Substream};

/// A stream of another protocol that a peer opened.
#[derive(Debug)]
pub struct InboundStream {
    /// Peer that opened the stream.
    pub peer: Arc<RemotePeer>,
    /// Id of the protocol that both sides agreed on.
    pub protocol: Bytes,
    /// The stream, past its negotiation.
    pub stream: Substream,
}

/// Receiving ends that a transport hands its owner besides the handle.
#[derive(Debug)]
pub struct Outlets {
    /// Messages of all peers. While they are not taken, peers are not read.
    pub messages: mpsc::Receiver<InboundFrame>,
    /// Changes of connections, and dials and handshakes that failed.
    pub events: mpsc::Receiver<ConnectionEvent>,
}
