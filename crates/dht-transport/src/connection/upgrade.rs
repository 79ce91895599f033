//! From a connected socket to an authenticated, identified channel.
//! docs/protocol/02-transport-and-connectivity.md section 4: wire byte, Noise, identity; yamux comes on top.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{Network, NodeIdentity, PublicKey, RemotePeer, SharedClock, SharedEntropy};
use dht_peers::{
    Directory,
    policy::{BanPolicy, Parties},
};
use tokio::{
    io::AsyncReadExt,
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use super::identity::{IdentityRules, PeerInfo, encode_identity, exchange};
use crate::{
    error::UpgradeError,
    limits::{MAX_LIVENESS_LINE_BYTES, MAX_V1_LIVENESS_LINE_BYTES},
    medium::Socket,
    noise::{self, NoiseStream},
};

/// Facts about this node that an upgrade needs.
#[derive(Clone)]
pub(crate) struct Upgrade {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) network: Network,
    pub(crate) entropy: SharedEntropy,
    pub(crate) clock: SharedClock,
    pub(crate) directory: Directory,
    pub(crate) bans: BanPolicy,
    pub(crate) rules: IdentityRules,
    pub(crate) user_agent: Arc<str>,
    pub(crate) protocols: Arc<[Bytes]>,
}

/// A peer at the other end of an encrypted channel.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) channel: NoiseStream<Socket>,
    pub(crate) peer: Arc<RemotePeer>,
    pub(crate) info: PeerInfo,
    /// Time the peer took to answer in the Noise handshake.
    pub(crate) round_trip: Duration,
}

/// A failed upgrade, and the key that was already authenticated.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: UpgradeError,
    pub(crate) key: Option<PublicKey>,
}

/// Request in the first byte that a listener reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireMode {
    Network,
    Liveness {
        /// Longest line of the session, in bytes without its `\n`.
        longest: usize,
    },
}

/// First byte of a liveness session, and that of peers of version 1.
const LIVENESS_BYTE: u8 = 0xa7;
const V1_LIVENESS_BYTE: u8 = 0xa6;

impl Upgrade {
    /// Reads the byte that says what the dialler wants.
    pub(crate) async fn wire_mode(
        &self,
        socket: &mut Socket,
        limit: Duration,
    ) -> Result<WireMode, UpgradeError> {
        let byte = timeout(limit, socket.read_u8())
            .await
            .map_err(|_| UpgradeError::WireByteTimeout)??;
        match byte {
            byte if byte == self.network.wire_byte() => Ok(WireMode::Network),
            LIVENESS_BYTE => Ok(WireMode::Liveness {
                longest: MAX_LIVENESS_LINE_BYTES,
            }),
            V1_LIVENESS_BYTE => Ok(WireMode::Liveness {
                longest: MAX_V1_LIVENESS_LINE_BYTES,
            }),
            byte => Err(UpgradeError::WireByte(byte)),
        }
    }

    /// The dialler's side. The key must be the one wanted.
    ///
    /// Of several attempts to reach one peer only the one whose `turn` it is goes on to the identity: with that the
    /// peer has a connection, and of two it keeps the later, which may be the one given up here.
    pub(crate) async fn outbound(
        &self,
        socket: Socket,
        wanted: &PublicKey,
        turn: &Mutex<()>,
        deadline: Instant,
    ) -> Result<Upgraded, Failed> {
        let secret = self.identity.secret_key();
        let byte = self.network.wire_byte();
        let started = Instant::now();
        let noise = noise::initiate(socket, secret, self.entropy.clone(), byte);
        let (channel, key) = by(deadline, noise).await.map_err(Failed::nobody)?;
        let round_trip = started.elapsed();
        if key != *wanted {
            return Err(Failed {
                error: UpgradeError::WrongKey,
                key: Some(key),
            });
        }
        let _turn = timeout_at(deadline, turn.lock())
            .await
            .map_err(|_| Failed {
                error: UpgradeError::Timeout,
                key: Some(key),
            })?;
        self.identify(channel, key, round_trip, deadline).await
    }

    /// The listener's side, after the wire byte.
    pub(crate) async fn inbound(
        &self,
        socket: Socket,
        deadline: Instant,
    ) -> Result<Upgraded, Failed> {
        let secret = self.identity.secret_key();
        let started = Instant::now();
        let noise = noise::respond(socket, secret, self.entropy.clone());
        let (channel, key) = by(deadline, noise).await.map_err(Failed::nobody)?;
        let round_trip = started.elapsed();
        self.identify(channel, key, round_trip, deadline).await
    }

    pub(crate) fn is_banned(&self, key: &PublicKey) -> bool {
        self.directory.is_banned(&key.node_id(), self.clock.now())
    }

    /// Reports the offence behind a failed upgrade, if the peer was authenticated and is to blame.
    pub(crate) fn report(&self, failed: &Failed, we_dialled: bool) {
        if let Some(key) = failed.key
            && let Some(offence) = failed.error.offence(we_dialled)
        {
            self.bans.report(offence, Parties::peer(key));
        }
    }

    async fn identify(
        &self,
        mut channel: NoiseStream<Socket>,
        key: PublicKey,
        round_trip: Duration,
        deadline: Instant,
    ) -> Result<Upgraded, Failed> {
        let failed = |error| Failed {
            error,
            key: Some(key),
        };
        if key == *self.identity.public_key() {
            return Err(failed(UpgradeError::OwnKey));
        }
        if self.is_banned(&key) {
            return Err(failed(UpgradeError::Banned));
        }
        let claim = self.identity.claim();
        let ours = encode_identity(
            self.rules.version,
            &claim,
            &self.user_agent,
            &self.protocols,
        )
        .map_err(|error| failed(error.into()))?;
        let info = exchange(&mut channel, &ours, &key, &self.rules, self.clock.now());
        let info = by(deadline, info).await.map_err(failed)?;
        let peer = Arc::new(RemotePeer::new(key, info.claim.features));
        Ok(Upgraded {
            channel,
            peer,
            info,
            round_trip,
        })
    }
}

impl Failed {
    fn nobody(error: UpgradeError) -> Self {
        Self { error, key: None }
    }
}

/// Limits one step by the deadline of all of them.
async fn by<T, E: Into<UpgradeError>>(
    deadline: Instant,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, UpgradeError> {
    timeout_at(deadline, step)
        .await
        .map_err(|_| UpgradeError::Timeout)?
        .map_err(Into::into)
}
