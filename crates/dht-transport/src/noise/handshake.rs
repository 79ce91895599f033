//! The three messages of the XX pattern, framed as on the wire.

use std::time::Duration;

use dht_core::{PublicKey, SecretKey, SharedEntropy};
use snow::{Builder, HandshakeState};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{NoiseError, NoiseStream, keys::HandshakeKeys, resolver::Resolver};
use crate::limits::NOISE_RECEIVE_TIMEOUT;

const PROTOCOL: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2b";
const PROLOGUE: &[u8] = b"com.tari.comms.noise.prologue";

/// Bytes of `-> e`.
const M1_BYTES: usize = 32;
/// Bytes of `<- e, ee, s, es`.
const M2_BYTES: usize = 32 + 48 + 16;
/// Bytes of `-> s, se`.
const M3_BYTES: usize = 48 + 16;
const _: () = assert!(M1_BYTES == 32 && M2_BYTES == 96 && M3_BYTES == 64);

/// The pure side of a handshake: messages in, messages out.
///
/// ```
/// use std::sync::Arc;
/// use dht_core::{Entropy, SecretKey, SeededEntropy};
/// use dht_transport::noise::Handshake;
///
/// let entropy = Arc::new(SeededEntropy::new(1));
/// let (a, b) = (SecretKey::random(&mut entropy.rng()), SecretKey::random(&mut entropy.rng()));
/// let mut dialler = Handshake::initiator(&a, entropy.clone())?;
/// let mut listener = Handshake::responder(&b, entropy)?;
/// listener.read(&dialler.write()?)?;
/// dialler.read(&listener.write()?)?;
/// listener.read(&dialler.write()?)?;
/// assert_eq!(dialler.finish()?.remote, b.public_key());
/// assert_eq!(listener.finish()?.remote, a.public_key());
/// # Ok::<(), dht_transport::noise::NoiseError>(())
/// ```
pub struct Handshake {
    state: HandshakeState,
    step: u8,
}

/// Dials: sends `first_byte` and the first message in one write, checks the second, and returns the channel
/// with the third message waiting in its write buffer.
///
/// # Errors
/// [`NoiseError`]; the socket is of no more use then.
pub async fn initiate<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    secret: &SecretKey,
    entropy: SharedEntropy,
    first_byte: u8,
) -> Result<(NoiseStream<S>, PublicKey), NoiseError> {
    let mut handshake = Handshake::initiator(secret, entropy)?;
    let mut opening = vec![first_byte];
    frame(&handshake.write()?, &mut opening);
    socket.write_all(&opening).await?;
    socket.flush().await?;
    handshake.read(&receive(&mut socket, NOISE_RECEIVE_TIMEOUT).await?)?;
    let mut third = Vec::new();
    frame(&handshake.write()?, &mut third);
    let keys = handshake.finish()?;
    let remote = keys.remote;
    Ok((NoiseStream::new(socket, &keys, third), remote))
}

/// Listens: expects the first message (the network byte is already read) and runs the handshake.
///
/// # Errors
/// [`NoiseError`]; the socket is of no more use then.
pub async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    secret: &SecretKey,
    entropy: SharedEntropy,
) -> Result<(NoiseStream<S>, PublicKey), NoiseError> {
    let mut handshake = Handshake::responder(secret, entropy)?;
    handshake.read(&receive(&mut socket, NOISE_RECEIVE_TIMEOUT).await?)?;
    let mut second = Vec::new();
    frame(&handshake.write()?, &mut second);
    socket.write_all(&second).await?;
    socket.flush().await?;
    handshake.read(&receive(&mut socket, NOISE_RECEIVE_TIMEOUT).await?)?;
    let keys = handshake.finish()?;
    let remote = keys.remote;
    Ok((NoiseStream::new(socket, &keys, Vec::new()), remote))
}

// === impl Handshake ===

impl Handshake {
    /// The side that dialled.
    ///
    /// # Errors
    /// [`NoiseError::Handshake`] if `secret` is unusable.
    pub fn initiator(secret: &SecretKey, entropy: SharedEntropy) -> Result<Self, NoiseError> {
        Self::new(secret, entropy, None, true)
    }

    /// The side that listened.
    ///
    /// # Errors
    /// [`NoiseError::Handshake`] if `secret` is unusable.
    pub fn responder(secret: &SecretKey, entropy: SharedEntropy) -> Result<Self, NoiseError> {
        Self::new(secret, entropy, None, false)
    }

    /// Either side with a chosen ephemeral secret, to reproduce published vectors.
    ///
    /// # Security
    /// A repeated ephemeral key gives away the session. For tests only.
    ///
    /// # Errors
    /// [`NoiseError::Handshake`] if `secret` is unusable.
    pub fn with_ephemeral(
        secret: &SecretKey,
        ephemeral: &SecretKey,
        entropy: SharedEntropy,
        initiator: bool,
    ) -> Result<Self, NoiseError> {
        Self::new(secret, entropy, Some(ephemeral), initiator)
    }

    fn new(
        secret: &SecretKey,
        entropy: SharedEntropy,
        ephemeral: Option<&SecretKey>,
        initiator: bool,
    ) -> Result<Self, NoiseError> {
        let params = PROTOCOL.parse().map_err(|_| NoiseError::Handshake)?;
        let secret = secret.to_bytes();
        let ephemeral = ephemeral.map(SecretKey::to_bytes);
        let mut builder = Builder::with_resolver(params, Box::new(Resolver { entropy }))
            .local_private_key(&*secret)
            .and_then(|builder| builder.prologue(PROLOGUE))
            .map_err(|_| NoiseError::Handshake)?;
        if let Some(ephemeral) = &ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(&**ephemeral);
        }
        let state = if initiator {
            builder.build_initiator()
        } else {
            builder.build_responder()
        };
        Ok(Self {
            state: state.map_err(|_| NoiseError::Handshake)?,
            step: 0,
        })
    }

    /// The next message of this side, without its length prefix.
    ///
    /// # Errors
    /// [`NoiseError::Handshake`] if it is not this side's turn.
    pub fn write(&mut self) -> Result<Vec<u8>, NoiseError> {
        let mut message = vec![0; M2_BYTES + 16];
        let length = self
            .state
            .write_message(&[], &mut message)
            .map_err(|_| NoiseError::Handshake)?;
        message.truncate(length);
        self.step = self.step.saturating_add(1);
        Ok(message)
    }

    /// Takes the next message of the other side, without its length prefix.
    ///
    /// # Errors
    /// [`NoiseError::HandshakeLength`] unless it has the one length that carries no payload,
    /// [`NoiseError::Handshake`] if it does not authenticate or holds an unacceptable key.
    pub fn read(&mut self, message: &[u8]) -> Result<(), NoiseError> {
        let expected = match self.step {
            0 => M1_BYTES,
            1 => M2_BYTES,
            _ => M3_BYTES,
        };
        if message.len() != expected {
            return Err(NoiseError::HandshakeLength(message.len()));
        }
        self.state
            .read_message(message, &mut [])
            .map_err(|_| NoiseError::Handshake)?;
        self.step = self.step.saturating_add(1);
        Ok(())
    }

    /// The keys, after the third message.
    ///
    /// # Errors
    /// [`NoiseError::Handshake`] if a message is missing, or the remote's static key is the identity point.
    pub fn finish(mut self) -> Result<HandshakeKeys, NoiseError> {
        if !self.state.is_handshake_finished() {
            return Err(NoiseError::Handshake);
        }
        let remote = self
            .state
            .get_remote_static()
            .ok_or(NoiseError::Handshake)?;
        let remote = PublicKey::from_bytes(remote).map_err(|_| NoiseError::Handshake)?;
        if remote.is_identity() {
            return Err(NoiseError::Handshake);
        }
        let hash = self
            .state
            .get_handshake_hash()
            .try_into()
            .map_err(|_| NoiseError::Handshake)?;
        let (first, second) = self.state.dangerously_get_raw_split();
        let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
        let (send, receive) = if self.state.is_initiator() {
            (first, second)
        } else {
            (second, first)
        };
        Ok(HandshakeKeys {
            remote,
            hash,
            send,
            receive,
        })
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// Appends `message` with its length prefix.
fn frame(message: &[u8], out: &mut Vec<u8>) {
    // Handshake messages have at most 96 bytes.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
}

/// Reads one frame of at most [`M2_BYTES`]; empty frames are skipped.
async fn receive<S: AsyncRead + Unpin>(
    socket: &mut S,
    limit: Duration,
) -> Result<Vec<u8>, NoiseError> {
    let read = async {
        loop {
            let length = usize::from(socket.read_u16().await?);
            if length > M2_BYTES {
                return Err(NoiseError::HandshakeLength(length));
            }
            if length > 0 {
                let mut message = vec![0; length];
                socket.read_exact(&mut message).await?;
                return Ok(message);
            }
        }
    };
    timeout(limit, read)
        .await
        .map_err(|_| NoiseError::Timeout)?
}

#[cfg(test)]
mod tests;
