//! Round trips to peers, over connections that are made for them.

use std::time::Duration;

use dht_core::PeerAddress;
use dht_outbound::SearchError;
use dht_transport::{DialError, StreamError};
use tokio::time::Instant;

use super::Node;

/// Connections on which a ping is tried before it fails.
const ATTEMPTS: u32 = 3;

/// Times that a ping measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Time to find, dial and authenticate the peer; `None` if it was connected before.
    pub dialled: Option<Duration>,
    /// Time from a request on the connection to the answer of the peer.
    pub round_trip: Duration,
}

/// Why a ping failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// None of the given addresses gave a connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The known addresses gave no connection, and no others were found.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The peer did not answer on the connection.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl Node {
    /// Connects to a peer unless it is connected, and measures how long it takes to answer: opens a stream, on which the peer
    /// refuses a protocol that no node speaks. Without addresses, dials those that are known, and searches for the peer if none
    /// of them answers.
    ///
    /// # Errors
    /// [`PingError`].
    pub async fn ping(&self, peer: &PeerAddress) -> Result<Pong, PingError> {
        let node_id = peer.public_key.node_id();
        let was_connected = self.transport.connection(&node_id).is_some();
        let mut is_connected = was_connected;
        let mut attempts = 0;
        loop {
            let begin = Instant::now();
            match peer.addresses.is_empty() {
                _ if is_connected => {}
                true => self.dial_or_discover(&peer.public_key).await?,
                false => self.connect(peer).await?,
            }
            let dialled = begin.elapsed();
            attempts += 1;
            let answer = match self.transport.connection(&node_id) {
                Some(connection) => connection.round_trip().await,
                None if is_connected => Err(StreamError::NotConnected),
                // It has ended right after the dial.
                None => Err(StreamError::Refused),
            };
            match answer {
                Ok(round_trip) => {
                    let dialled = (!was_connected).then_some(dialled);
                    return Ok(Pong {
                        dialled,
                        round_trip,
                    });
                }
                // The peer may have closed the connection for another one, as after a restart of this node.
                Err(StreamError::NotConnected | StreamError::Closed | StreamError::Refused)
                    if attempts < ATTEMPTS =>
                {
                    is_connected = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
