//! How long a node takes to answer a control message.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{MessageType, PeerAddress, PublicKey, RawEnvelope};
use dht_peers::InboundFrame;
use dht_proto::dht::DiscoveryResponseMessage;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::time::Instant;

use super::{Peer, PeerError};
use crate::frames;

/// A well-behaved peer that asks the node for its addresses - the network's discovery - and times the answers.
#[derive(Debug)]
pub struct Probe {
    peer: Peer,
    node: PublicKey,
    asked: Arc<Mutex<Asked>>,
}

/// Answers so far.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How long each took, in the order of arrival.
    pub times: Vec<Duration>,
    /// How long the unanswered ones have waited.
    pub waiting: Vec<Duration>,
}

#[derive(Debug, Default)]
struct Asked {
    next: u64,
    waiting: BTreeMap<u64, Instant>,
    times: Vec<Duration>,
}

impl Probe {
    /// Connects to `node`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn connect(seed: u64, node: &PeerAddress) -> Result<Self, PeerError> {
        let asked = Arc::<Mutex<Asked>>::default();
        let answered = Arc::clone(&asked);
        let on_message = move |message: InboundFrame| {
            if let Some(nonce) = nonce(message.frame) {
                let mut asked = answered.lock();
                if let Some(at) = asked.waiting.remove(&nonce) {
                    asked.times.push(at.elapsed());
                }
            }
        };
        Ok(Self {
            peer: Peer::connect(seed, node, on_message).await?,
            node: node.public_key,
            asked,
        })
    }

    /// Asks once. False if the question did not even reach the socket's queue.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn ask(&self) -> Result<bool, PeerError> {
        let nonce = {
            let mut asked = self.asked.lock();
            asked.next += 1;
            asked.next
        };
        let frame = frames::discovery(self.peer.identity(), &self.node, nonce)?;
        self.asked.lock().waiting.insert(nonce, Instant::now());
        Ok(self.peer.send(frame).is_ok())
    }

    /// Answers received so far.
    #[must_use]
    pub fn answers(&self) -> Answers {
        let asked = self.asked.lock();
        Answers {
            times: asked.times.clone(),
            waiting: asked.waiting.values().map(Instant::elapsed).collect(),
        }
    }

    /// The transport underneath.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// The question a frame answers, if it is an answer whose signature holds.
fn nonce(frame: Bytes) -> Option<u64> {
    let sealed = RawEnvelope::parse(frame).ok()?.into_sealed().ok()?;
    if sealed.header().message_type != MessageType::DiscoveryResponse {
        return None;
    }
    let verified = sealed.verify().ok()?;
    let parts = dht_core::decode_parts(verified.body().clone()).ok()?;
    let response = DiscoveryResponseMessage::decode(parts.first()?.clone()).ok()?;
    Some(response.nonce)
}
